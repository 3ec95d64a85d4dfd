/** A cache of the facts about images, so that those on the page are requested only once. */

import * as api from "./api.js";
import { fileName } from "./elements.js";

const MOST = 5_000; // images to remember
const AT_ONCE = 1_000; // images of a request

const seen = new Map();

/** Remember the images in a response. */
export function remember(images) {
  for (const image of images) {
    seen.delete(image.id); // so that it counts as the latest
    seen.set(image.id, image);
  }
  for (const id of seen.keys()) {
    if (seen.size <= MOST) break;
    seen.delete(id);
  }
}

/** Return the facts about an image, if they are known. */
export function known(id) {
  return seen.get(id);
}

/** Return the facts about images, in the order of their ids, without those that no longer exist. */
export async function factsOf(ids, signal) {
  const found = new Map(ids.filter((id) => seen.has(id)).map((id) => [id, seen.get(id)]));
  const unknown = ids.filter((id) => !found.has(id));
  for (let from = 0; from < unknown.length; from += AT_ONCE) {
    const { images } = await api.byId(unknown.slice(from, from + AT_ONCE), signal);
    remember(images);
    images.forEach((image) => found.set(image.id, image));
  }
  return ids.map((id) => found.get(id)).filter(Boolean);
}

/** Return the name of an image's file; a placeholder if the image no longer exists. */
export async function nameOf(id) {
  try {
    if (!seen.has(id)) remember([await api.facts(id)]);
    return fileName(seen.get(id).path);
  } catch {
    return `image ${id}`;
  }
}
