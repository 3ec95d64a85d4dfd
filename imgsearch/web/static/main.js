/** The page: shows the state in the address, and turns user actions into addresses. */

import { logOut, query, Refused, Unreachable } from "./api.js";
import { nameOf, remember } from "./collection.js";
import { Grid } from "./grid.js";
import { listen } from "./intake.js";
import { Large } from "./large.js";
import { explain, images, say, summary, warn } from "./notices.js";
import { limit } from "./numbers.js";
import { Panel } from "./panel.js";
import { find, keep } from "./pictures.js";
import { go, here, keepPlace, onMove, place } from "./route.js";
import { asking, browsing } from "./sources.js";
import { hashOf, isBrowsing, stateOf, withLike, withUnlike } from "./state.js";
import { watch } from "./watch.js";

const PAGE = 60; // images per request
const $ = (id) => document.getElementById(id);

let state = stateOf();
let source = null; // source of the images on the page
let list = { shown: 0, done: true, search: null };
let running = new AbortController(); // aborts the requests of the current state
let loading = false;
let failed = false; // whether the search failed
let answered = null; // {address, answer}: the first page of hits, which named an upload
let facts = null; // the facts about the collection, once they are known
let away = false; // whether the server is not responding

const grid = new Grid($("grid"), $("further"), { act, next: () => load() });
const panel = new Panel(change);
const large = new Large($("large"), {
  act, say, closed: (image) => image && grid.focus(image.id),
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
  source = isBrowsing(state) ? browsing() : asking(state, first);
  list = { shown: 0, done: false, search: null };
  loading = false;
  failed = false;
  warn("");
  if (large.dialog.open) large.dialog.close();
  panel.show(state);
  head();
  await load(to?.count);
  if (!signal.aborted && to) {
    scrollTo(0, to.scroll);
    if (to.focus) grid.focus(to.focus);
  }
}

/** Load more images until `wanted` are shown. */
async function load(wanted = list.shown + PAGE) {
  const { signal } = running;
  if (loading || list.done) return;
  loading = true;
  $("main").setAttribute("aria-busy", "true");
  try {
    while (!list.done && list.shown < wanted) {
      const page = await source(PAGE, signal);
      if (signal.aborted) return;
      add(page);
    }
  } catch (error) {
    if (!signal.aborted) await fail(error);
  } finally {
    if (!signal.aborted) {
      loading = false;
      $("main").removeAttribute("aria-busy");
      grid.offer(!list.done);
    }
  }
}

function add({ images: found, done, search }) {
  if (!list.shown) grid.clear(); // until now, the images of the previous state were shown
  remember(found);
  list = { shown: list.shown + found.length, done, search };
  explain(list.shown ? null : nothing());
  grid.add(found, { mayLess: !isBrowsing(state) });
  tell();
}

function tell() {
  $("count").textContent = list.shown ? summary({ ...list, total: facts?.images ?? 0 }) : "";
}

async function head() {
  const asked = state;
  const others = state.like.length + (state.image ? 1 : 0) - 1;
  const title = isBrowsing(state) ? "All images" : await similarTo(state, others);
  if (asked !== state) return;
  $("heading").textContent = title;
  document.title = isBrowsing(state) ? "imgsearch" : `${title} – imgsearch`;
}

async function similarTo({ image, like, unlike, crop }, others) {
  const name = image ? (await find(image))?.name ?? "your image" : await nameOf(like[0]);
  const title = `Similar to ${crop ? "a part of " : ""}${name}${andMore(others)}`;
  if (!unlike.length) return title;
  return `${title}, less like ${await nameOf(unlike[0])}${andMore(unlike.length - 1)}`;
}

function andMore(others) {
  return others > 0 ? ` and ${others} more` : "";
}

function nothing() {
  if (!isBrowsing(state)) {
    const title = "Nothing found";
    if (facts?.images === 0) return { title, text: "There are no images in the collection." };
    const other = state.like.length || state.unlike.length ? "other " : "";
    if (state.min === null) return { title, text: `There are no ${other}images in the collection.` };
    return {
      title,
      text: `No ${other}image has a similarity of ${limit(state.min)} or more.`,
      action: ["Show less similar images",
        () => change(stateOf({ ...state, min: null }), { replace: true })],
    };
  }
  return facts?.indexing
    ? { title: "The first images are on their way", text: "Each image appears here as soon as it is indexed." }
    : {
      title: "There are no images yet",
      text: "Index your pictures, and they appear here:",
      command: "imgsearch index ~/Pictures",
    };
}

/** Show what went wrong with the search. */
async function fail(error) {
  if (error instanceof Unreachable) {
    look(); // and continue once the server answers
    return;
  }
  const unknown = error instanceof Refused && [404, 410].includes(error.status);
  const file = unknown && state.image ? await find(state.image) : null;
  if (file) { // the server has forgotten the upload, but this browser has not
    await ask(file, state, { replace: true });
    return;
  }
  grid.clear();
  list = { shown: 0, done: true, search: null };
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

/** Search with a picture from outside. */
async function ask(file, wanted, { replace = false } = {}) {
  $("main").setAttribute("aria-busy", "true");
  say(`Searching with ${file.name} …`);
  try {
    const answer = await query(wanted, { file, k: PAGE });
    const next = stateOf({ ...wanted, image: answer.embedding });
    await keep(answer.embedding, file);
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
  if (file) await ask(file, next, { replace });
  else move(next, { replace });
}

function move(next, { replace }) {
  if (!replace) leave();
  go(next, { replace });
}

/** Keep the place in the list for when the user comes back. */
function leave(focus = document.activeElement?.closest?.(".tile")?.dataset.id) {
  keepPlace({ scroll: scrollY, count: list.shown, focus });
}

function act(what, image) {
  const mayLess = !isBrowsing(state);
  if (what === "open") {
    large.open(image, grid.images, { mayLess });
    return;
  }
  if (what === "less" && !mayLess) return;
  leave(image.id);
  const { min, recall } = state;
  go({
    search: () => stateOf({ like: [image.id], min, recall }),
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
  $("total").textContent = images(now.images);
  $("indexing").hidden = !now.indexing;
  $("indexing").textContent = `Indexing: ${images(now.images)} so far`;
  if (before?.indexing && !now.indexing) say(`Indexing has finished: ${images(now.images)}.`);
  panel.promised(now.settings.recall);
  if (away) {
    away = false;
    warn("");
    show();
  } else if (isBrowsing(state) && list.done && now.images > list.shown && !loading) {
    list.done = false; // images have been added
    load();
  } else if (!list.shown && list.done && !failed) {
    explain(nothing());
  }
  tell();
}

$("logout").addEventListener("click", async () => {
  await logOut().catch(() => {}); // in any case, the page asks for the token again
  location.reload();
});
$("skip").addEventListener("click", () => grid.focus() || $("heading").focus());
$("home").addEventListener("click", (event) => {
  if (event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  change(stateOf());
  scrollTo(0, 0);
});
window.addEventListener("pagehide", () => leave());
listen({
  take: (file) => ask(file, stateOf({ min: state.min, recall: state.recall })),
  refuse: warn,
});
onMove(show);
show();
const look = watch({ seen, gone: (error) => (error instanceof Unreachable ? lose() : warn(error.message)) });
