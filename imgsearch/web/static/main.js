/** The page: shows the state in the address, and turns user actions into addresses. */

import { facets, info, logOut, query, Refused, Unreachable } from "./api.js";
import { nameOf } from "./collection.js";
import { element, folderOf, icon } from "./elements.js";
import { Filters } from "./filters.js";
import { Folders } from "./folders.js";
import { Grid } from "./grid.js";
import { Images } from "./images.js";
import { chooseFolder, Indexing } from "./indexing.js";
import { listen } from "./intake.js";
import { Large } from "./large.js";
import { Making } from "./making.js";
import { explain, images as counted, say, similar, summary, warn } from "./notices.js";
import { limit } from "./numbers.js";
import { Panel } from "./panel.js";
import { find, keep } from "./pictures.js";
import { Removal } from "./removal.js";
import { go, here, keepPlace, onMove, place } from "./route.js";
import { Scrubber } from "./scrubber.js";
import { Selection } from "./selection.js";
import { asking, browsing, MOST, PAGE } from "./sources.js";
import { filtersOf, hashOf, isBrowsing, isPicture, refinements, stateOf, uploadsOf, withLike, withText, withUnlike } from "./state.js";
import { watch } from "./watch.js";

const MOST_HITS = 1_000; // per request
const MOST_FILES = 50; // of a search
const LIT = 200; // hits on the map
const KEPT = 8; // lists to keep for when the user comes back to them
const $ = (id) => document.getElementById(id);

let state = stateOf();
let images = new Images(); // of the state
let running = new AbortController(); // aborts the requests of the current state
let loading = false;
let failed = false; // whether the search failed
let answered = null; // {address, answer}: the first page of hits, which named an upload
let facts = null; // the facts about the collection, once they are known
let review = null; // the view of duplicates, once it was asked for
let map = null; // the map, likewise
let away = false; // whether the server is not responding
const kept = new Map(); // lists by their addresses, latest last

const grid = new Grid($("grid"), {
  act, next: () => load(), isSelected: (id) => selection.has(id), failed: fail,
});
const selection = new Selection(grid, {
  say,
  remove: (ids) => removal.ask(ids),
  changed: () => map?.draw(),
  search: (ids) => {
    selection.clear();
    change(stateOf({ ...refinements(state), like: ids }));
    scrollTo(0, 0);
    $("heading").focus({ preventScroll: true });
  },
});
const scrubber = new Scrubber(grid);
const removal = new Removal({
  say,
  hide: (ids) => {
    const gone = new Set(ids);
    selection.clear();
    kept.clear();
    images.drop(gone);
    map?.drop(gone);
    grid.show(images, { mayLess: !isBrowsing(state) });
    if (mapping()) lightUp();
    else explain(images.length ? null : nothing());
    tell();
    $("heading").focus({ preventScroll: true });
  },
  restore: () => {
    leave();
    kept.clear();
    show();
  },
});
const indexing = new Indexing();
const making = new Making({ made: () => (mapping() ? show() : say("The map is ready.")) });
const panel = new Panel(change);
const filters = new Filters(change);
const folders = new Folders(change);
const large = new Large($("large"), {
  act, say, asked, closed: (image) => image && (mapping() ? map.focus() : grid.focus(image.id)),
});

/** Show the state in the address. */
async function show() {
  running.abort();
  running = new AbortController();
  const { signal } = running;
  const to = place();
  state = here();
  const first = answered?.address === hashOf(state) ? answered.answer : null;
  answered = null;
  images = reviewing() ? new Images() : keptImages(first);
  loading = false;
  failed = false;
  warn("");
  if (large.dialog.open) large.dialog.close();
  panel.show(state);
  $("words").elements.text.value = state.text;
  filters.show(state);
  folders.show(state);
  offer();
  head();
  scrubber.show(!state.view && isBrowsing(state) && state.sort.endsWith("date") ? state : null, signal);
  document.body.classList.toggle("mapping", mapping());
  const other = mapping() ? ["", "Images", "grid"] : ["map", "Map", "map"];
  $("mapping").href = hashOf({ ...state, view: other[0] });
  $("mapping").title = other[1];
  $("mapping").replaceChildren(icon(other[2]), element("span", {}, other[1]));
  if (reviewing()) {
    grid.show(images, {});
    map?.show(false);
    review ??= new (await import("./review.js")).Review({ say }); // which most people do not need at first
    if (signal.aborted) return;
    review.allow(!facts?.read_only);
    await review.show(true, { count: to?.count });
    if (!signal.aborted && to) scrollTo(0, to.scroll);
    return;
  }
  review?.show(false);
  if (mapping()) {
    await showMap(signal);
    return;
  }
  map?.show(false);
  if (images.length) add();
  await load(to?.count ?? PAGE);
  if (!signal.aborted && to) {
    scrollTo(0, to.scroll);
    if (to.focus) grid.focus(to.focus, { still: true });
  }
}

/** Return whether the duplicates are shown instead of images. */
function reviewing() {
  return state.view === "duplicates";
}

/** Return whether the images are shown as a map. */
function mapping() {
  return state.view === "map";
}

/** Show the map, and light up the hits, or the images that pass the filters. */
async function showMap(signal) {
  grid.show(new Images(), {});
  explain(null);
  $("main").setAttribute("aria-busy", "true");
  try {
    if (!facts) seen(await info());
    map ??= await makeMap();
    await map.show(true, signal);
    if (signal.aborted) return;
    map.light(null);
    tell();
    if (!isBrowsing(state) || filtersOf(state).length) {
      lightUp();
      await load(LIT);
    }
  } catch (error) {
    if (signal.aborted) return;
    map?.show(false);
    $("count").textContent = "";
    if (error instanceof Unreachable) look();
    else if (error.status === 404 && facts?.images !== 0) {
      explain(noMap());
      making.follow();
    }
    else explain(facts?.images === 0 ? empty() : { title: "There is no map of this collection", text: error.message });
  } finally {
    if (!signal.aborted) $("main").removeAttribute("aria-busy");
  }
}

async function makeMap() {
  const { MapView } = await import("./map.js");
  return map ?? new MapView($("grid"), {
    select: (ids) => selection.include(ids),
    isSelected: (id) => selection.has(id),
    isSelecting: () => selection.size > 0,
    press: (image) => selection.toggle(image),
    open: (image, ids) => large.open(image, { ids }, { mayLess: !isBrowsing(state) }),
    grow: () => making.begin(),
    mayGrow: () => facts?.read_only === false,
    failed: (error) => warn(error.message),
  });
}

/** Light up the images that pass the filters, or the hits that are at least similar, where that is known. */
function lightUp() {
  const close = images.ids.filter((_, at) => images.hits[at]?.band !== "weak");
  map?.light(!isBrowsing(state) || filtersOf(state).length ? close : null);
}

function noMap() {
  const what = "On a map of the collection, images that look alike are near each other.";
  const known = { title: "There is no map yet", command: `${program()} map` };
  if (facts?.read_only !== false) return { ...known, text: `${what} This command makes it; then open this page again:` };
  return {
    ...known,
    text: `${what} It takes some seconds to make, or a minute or two for a large collection, and changes nothing in it.`,
    first: ["Make the map", () => making.begin()],
    or: "Or run this command in a terminal:",
  };
}

/** Offer filters and orders, unless there is nothing to choose from. */
function offer() {
  const nothing = facts?.images === 0 && !filtersOf(state).length;
  $("filters").hidden = nothing;
  $("sorting").hidden = nothing || !isBrowsing(state);
  $("sort").value = state.sort;
}

/** Return the images of the state, which are kept while the collection stays as it is. */
function keptImages(first) {
  const address = hashOf(state);
  const found = kept.get(address);
  kept.delete(address);
  const list = found?.of === facts?.images && found?.length ? found
    : new Images(isBrowsing(state) ? browsing(state) : asking(state, first));
  list.of = facts?.images;
  kept.set(address, list);
  if (kept.size > KEPT) kept.delete(kept.keys().next().value);
  return list;
}

/** Load all images, or more hits, until there are `wanted`. */
async function load(wanted = images.length + PAGE) {
  const { signal } = running;
  const all = isBrowsing(state);
  if (loading || images.done) return;
  loading = true;
  $("main").setAttribute("aria-busy", "true");
  try {
    while (!images.done && (all || images.length < wanted)) {
      await images.more(Math.max(PAGE, Math.min(wanted - images.length, MOST_HITS)), signal);
      if (signal.aborted) return;
      add();
      if (all && !images.done && !place()) await grid.settled(); // the first pictures go first
      if (signal.aborted) return;
    }
  } catch (error) {
    if (!signal.aborted) await fail(error);
  } finally {
    if (!signal.aborted) {
      loading = false;
      $("main").removeAttribute("aria-busy");
    }
  }
}

/** Show the images that have arrived. */
function add() {
  if (images.search && images.length) panel.banded(images.hits[0].band !== null);
  if (mapping()) {
    lightUp();
    tell();
    return;
  }
  explain(images.length ? null : nothing());
  if (grid.images === images) grid.extend();
  else grid.show(images, { mayLess: !isBrowsing(state) }); // instead of those of the previous state
  tell();
}

function tell() {
  if (mapping() && isBrowsing(state) && !filtersOf(state).length) $("count").textContent = counted(map?.length ?? 0);
  else if (mapping() && images.hits[0]?.band) $("count").textContent = similar(map.lit?.reduce((sum, on) => sum + on, 0) ?? 0);
  else $("count").textContent = images.length || mapping() ? summary(images, MOST) : "";
  $("total").hidden = !facts?.images || $("count").textContent === counted(facts.images); // which need not be said twice
}

async function head() {
  const asked = state;
  const others = state.like.length + uploadsOf(state).length - 1;
  const all = mapping() ? "Map" : filtersOf(state).length ? "Images" : "All images";
  const title = reviewing() ? "Duplicates" : isBrowsing(state) ? all : await similarTo(state, others);
  if (asked !== state) return;
  $("heading").textContent = title;
  document.title = isBrowsing(state) && !state.view ? "imgsearch" : `${title} – imgsearch`;
}

async function similarTo({ text, image, like, unlike, crop }, others) {
  const words = text && `“${text}”`;
  const name = image ? (await find(image))?.name ?? "your image" : like.length ? await nameOf(like[0]) : words;
  const also = words && name !== words ? `, and to ${words}` : "";
  const title = `Similar to ${crop ? "a part of " : ""}${name}${andMore(others)}${also}`;
  if (!unlike.length) return title;
  return `${title}, less like ${await nameOf(unlike[0])}${andMore(unlike.length - 1)}`;
}

/** Return the only picture of the search, as `explain` takes it; null if there are several. */
async function asked() {
  const { image, like, crop } = state;
  if (!isPicture(state)) return null;
  if (!image) return { id: like[0], crop };
  const file = await find(image);
  return file && { file, crop };
}

function andMore(others) {
  return others > 0 ? ` and ${others} more` : "";
}

function nothing() {
  if (filtersOf(state).length && facts?.images) {
    return {
      title: isBrowsing(state) ? "No images match the filters" : "Nothing found",
      text: "Remove a filter to see more images.",
      action: ["Remove all filters", () => filters.clear()],
    };
  }
  if (!isBrowsing(state)) {
    const title = "Nothing found";
    if (facts?.images === 0) return { title, text: "There are no images in the collection." };
    const other = state.like.length || state.unlike.length ? "other " : "";
    if (state.min === null && !state.band) return { title, text: `There are no ${other}images in the collection.` };
    const enough = state.band === "similar" ? "is similar" : "shows the same thing";
    return {
      title,
      text: `No ${other}image ${state.min === null ? enough : `has a similarity of ${limit(state.min)} or more`}.`,
      action: ["Show less similar images",
        () => change(stateOf({ ...state, min: null, band: "" }), { replace: true })],
    };
  }
  return facts?.indexing
    ? { title: "The first images are on their way", text: "Each image appears here as soon as it is indexed." }
    : empty();
}

/** Explain how an empty collection is filled. */
function empty() {
  const here = program();
  if (facts?.failed) {
    const files = facts.failed === 1 ? "The only file" : `None of the ${facts.failed.toLocaleString("en")} files`;
    return {
      title: "There are no images yet",
      text: `${files} that was looked at could ${facts.failed === 1 ? "not " : ""}be read as an image. This command says why:`,
      command: `${here} list --failed`,
    };
  }
  const note = "Each image appears here as soon as it is indexed. Your files stay where they are, and nothing leaves this machine.";
  if (facts?.may_fill) {
    return {
      title: "There are no images yet",
      text: "Here you find pictures by what they show, once imgsearch has looked at them.",
      or: "Or run this command in a terminal, with the folder of your pictures at its end:",
      first: ["Choose a folder", () => chooseFolder(begun).catch((error) => warn(error.message))],
      command: `${here} index ~/Pictures`,
      note,
    };
  }
  return {
    title: "There are no images yet",
    text: "Here you find pictures by what they show, once imgsearch has looked at them. Run this command in a terminal, "
      + "with the folder of your pictures at its end:",
    command: `${here} index ~/Pictures`,
    note,
  };
}

/** Watch the folder that was chosen being indexed. */
function begun() {
  warn("");
  indexing.follow();
  look();
}

/** Return how a command for this collection begins. */
function program() {
  const quoted = /[^\w@%+=:,./-]/.test(facts?.directory ?? "") ? `'${facts.directory.replaceAll("'", "'\\''")}'` : facts?.directory;
  return quoted ? `imgsearch -c ${quoted}` : "imgsearch";
}

/** Show what went wrong with the search. */
async function fail(error) {
  if (error instanceof Unreachable) {
    look(); // and continue once the server answers
    return;
  }
  const unknown = error instanceof Refused && [404, 410].includes(error.status);
  const files = unknown ? await Promise.all(uploadsOf(state).map(find)) : [];
  if (files.length && files.every(Boolean)) { // the server has forgotten them, but this browser has not
    await ask(files, state, { replace: true });
    return;
  }
  images = new Images();
  images.done = true;
  grid.show(images, {});
  failed = true;
  tell();
  const browse = ["Show all images", () => change(stateOf())];
  if (unknown && state.image) {
    explain({
      title: "That image is no longer here",
      text: "The server no longer has the image of this search. Choose it again to repeat the search.",
      action: ["Choose the image again", () => $("file").click()],
    });
  } else if (unknown) {
    explain({ title: "That image is no longer in the collection", text: error.message, action: browse });
  } else {
    explain({ title: "This search is not possible", text: error.message, action: browse });
  }
}

/** Search with pictures from outside, combined into one search. */
async function ask(files, wanted, { replace = false } = {}) {
  const [first, ...others] = files;
  if (files.length > MOST_FILES) {
    warn(`A search takes at most ${MOST_FILES} images.`);
    return;
  }
  $("main").setAttribute("aria-busy", "true");
  let file = first;
  try {
    const also = [];
    for (file of others) {
      say(`Reading ${file.name} …`);
      const { embedding } = await query(stateOf(), { file, k: 1 });
      await keep(embedding, file);
      also.push(embedding);
    }
    file = first;
    say(`Searching with ${first.name}${andMore(others.length)} …`);
    const whole = { ...wanted, also: others.length ? also : wanted.also };
    const answer = await query(whole, { file, k: PAGE });
    await keep(answer.embedding, file);
    const distinct = new Set(whole.also.filter((name) => name !== answer.embedding));
    const next = stateOf({ ...whole, image: answer.embedding, also: [...distinct] });
    answered = { address: hashOf(next), answer };
    say("");
    move(next, { replace });
  } catch (error) {
    $("main").removeAttribute("aria-busy");
    say("");
    if (error instanceof Unreachable) look();
    else {
      const name = `${file.name}: `;  // the server puts it before errors about an image only
      warn(error.message.startsWith(name) ? error.message : name + error.message);
    }
  }
}

/** Go to another search. */
async function change(next, { replace = false } = {}) {
  const anotherPart = next.image && String(next.crop) !== String(state.crop);
  const file = anotherPart ? await find(next.image) : null;
  if (file) await ask([file], next, { replace });
  else move(next, { replace });
}

function move(next, { replace }) {
  if (!replace) leave();
  go(next, { replace });
}

/** Keep the place in the list for when the user comes back. */
function leave(focus = document.activeElement?.closest?.("[data-id]")?.dataset.id) {
  keepPlace({ scroll: scrollY, count: (reviewing() ? review?.length : images.length) ?? 0, focus });
}

function act(what, image, event) {
  const mayLess = !isBrowsing(state);
  if (what === "select" || (what === "search" && selection.size)) {
    selection.toggle(image, { range: event.shiftKey });
    return;
  }
  if (what === "drag") {
    selection.drag(image, event);
    return;
  }
  if (what === "open") {
    large.open(image, images, { mayLess });
    return;
  }
  if (what === "less" && !mayLess) return;
  leave(image.id);
  go({
    search: () => stateOf({ ...refinements(state), like: [image.id] }),
    folder: () => stateOf({ folder: folderOf(image.path) }),
    more: () => withLike(state, image.id),
    less: () => withUnlike(state, image.id),
  }[what]());
  scrollTo(0, 0);
  $("heading").focus({ preventScroll: true });
}

function lose() {
  away = true;
  warn("The server does not answer. Start it again with “imgsearch serve”; this page then continues by itself.");
}

/** Update the page with the facts about the collection. */
function seen(now) {
  const before = facts;
  facts = now;
  $("total").textContent = counted(now.images);
  $("mapping").hidden = $("duplicates").hidden = !now.images && !state.view;
  $("words").hidden = !now.model.words_sha256;
  indexing.seen(now);
  offer();
  $("selected-remove").hidden = $("selected-judge").hidden = now.read_only;
  review?.allow(!now.read_only);
  panel.promised(now.settings.recall);
  if (now.images !== before?.images || (before?.indexing && !now.indexing)) describe();
  if (away) {
    away = false;
    warn("");
    show();
  } else if (isBrowsing(state) && images.done && !loading && !state.view) {
    follow(now);
  }
  if (state.view) return;
  images.of ??= now.images;
  if (!images.length && images.done && !failed) explain(nothing());
  tell();
}

/** Learn the folders and the cameras of the collection. */
async function describe() {
  try {
    const found = await facets();
    folders.offer(found.folders);
    filters.offer(found);
  } catch {
    // The server does not answer: once it does, this is repeated.
  }
}

/** Show the images that were added to those on the page. */
function follow(now) {
  if (now.images === (images.of ?? now.images) || images.length >= MOST) return;
  if (state.sort === "added" && now.images > images.of) {
    images.of = now.images;
    images.done = false;
    load();
  } else if (!now.indexing) { // anywhere among those on the page
    leave();
    kept.clear();
    show();
  }
}

const keys = () => $("keys").open || $("keys").showModal();
$("help").addEventListener("click", keys);
$("keys-close").addEventListener("click", () => $("keys").close());
document.addEventListener("keydown", (event) => {
  if (event.key === "?" && !event.target.closest("input, select, textarea")) keys();
});
$("sort").addEventListener("change", ({ target }) => {
  change(stateOf({ ...state, sort: target.value }));
  scrollTo(0, 0);
});
$("words").addEventListener("submit", (event) => {
  event.preventDefault();
  change(withText(state, $("words").elements.text.value));
  scrollTo(0, 0);
});
$("duplicates").addEventListener("click", (event) => {
  if (event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  change(stateOf({ view: "duplicates" }));
  scrollTo(0, 0);
});
$("mapping").addEventListener("click", (event) => {
  if (event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  change(stateOf({ ...state, view: mapping() ? "" : "map" }));
  scrollTo(0, 0);
});
$("logout").addEventListener("click", async () => {
  await logOut().catch(() => {}); // in any case, the page asks for the token again
  location.reload();
});
$("skip").addEventListener("click", () => (mapping() && map?.length ? map.focus() : (!reviewing() && grid.focus()) || $("heading").focus()));
$("home").addEventListener("click", (event) => {
  if (event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  change(stateOf());
  scrollTo(0, 0);
});
window.addEventListener("pagehide", () => leave());
listen({
  take: (files) => ask(files, stateOf(refinements(state))),
  refuse: warn,
});
onMove(show);
show();
const look = watch({ seen, gone: (error) => (error instanceof Unreachable ? lose() : warn(error.message)) });
