/** The uploaded pictures, kept in this browser by the names that the server gave them.
 *
 * This way they survive a reload of the page, and can be sent again if the server has forgotten
 * them. Only the latest are kept.
 */

const KEPT = 60; // more than those of a search
const STORE = "pictures";

const held = new Map(); // for browsers that store nothing, as in private windows

/** Store a picture under a name. */
export async function keep(name, file) {
  held.set(name, file);
  try {
    const store = await open("readwrite");
    store.put({ name, file, title: file.name, at: Date.now() });
    const names = await done(store.index("at").getAllKeys());
    names.slice(0, -KEPT).forEach((old) => store.delete(old));
  } catch {
    // The copy in memory has to do.
  }
}

/** Return the picture with a name as a File, or null. */
export async function find(name) {
  if (held.has(name)) return held.get(name);
  try {
    const row = await done((await open("readonly")).get(name));
    if (!row) return null;
    held.set(name, new File([row.file], row.title, { type: row.file.type }));
    return held.get(name);
  } catch {
    return null;
  }
}

let database = null;

async function open(mode) {
  database ??= new Promise((resolve, reject) => {
    const request = indexedDB.open("imgsearch", 1);
    request.onupgradeneeded = () => {
      const store = request.result.createObjectStore(STORE, { keyPath: "name" });
      store.createIndex("at", "at");
    };
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
  return (await database).transaction(STORE, mode).objectStore(STORE);
}

function done(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}
