/** One image in the grid: a click searches from it; holding it or its buttons do the rest. */

import { whyNot } from "./api.js";
import { element, fileName, iconButton } from "./elements.js";
import { inWords } from "./numbers.js";
import { hashOf, stateOf } from "./state.js";
import { fitting } from "./thumbnails.js";

const HOLD = 500; // milliseconds
const TOUCH = matchMedia("(hover: none)");
const KEYS = { "+": "more", "-": "less", " ": "open", x: "select" };

/** Fill the list item of an image.
 *
 * `image` has id, path and, if it is a hit, similarity; `act(what, image, event)` is called with
 * "search", "more", "less", "open", "select" or "drag", `measured(ratio)` once the thumbnail has loaded.
 */
export function fillTile(tile, image, { act, measured, mayLess }) {
  const name = fileName(image.path);
  const known = image.similarity !== undefined;
  const facts = known ? inWords(image) : "";
  const picture = makePicture(image, name, measured);
  const link = element("a", {
    className: "picture",
    href: hashOf(stateOf({ like: [image.id] })),
    title: image.path,
    draggable: false, // unless it is selected: dragging selects
    ondragstart: (event) => act("drag", image, event),
    "aria-label": `Search from ${name}${known ? `, ${image.band ? facts.toLowerCase() : `similarity ${facts}`}` : ""}${alsoThere(image)}`,
    onkeydown: (event) => {
      const what = KEYS[event.key];
      if (!what || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      act(what, image, event);
    },
  }, picture);
  tile.className = "tile";
  tile.removeAttribute("tabindex");
  tile.append(link);
  if (known && image.band !== "weak") { // which most hits are
    tile.append(element("span", { className: "similarity", "aria-hidden": "true" },
      facts));
  }
  if (image.copies?.length) tile.append(versionsOf(image));
  tile.append(iconButton("check", `Select ${name}`, {
    className: "select", "aria-pressed": "false", onclick: (event) => act("select", image, event),
  }));
  const offer = () => {
    if (!tile.querySelector(".actions")) tile.append(makeActions(image, name, act, mayLess));
  };
  if (TOUCH.matches) offer(); // nothing points there before it touches
  tile.addEventListener("pointerenter", offer, { once: true });
  tile.addEventListener("focusin", offer, { once: true });
  listen(link, image, act);
}

/** Return the buttons of a tile, which are there once it is pointed at, or focused. */
function makeActions(image, name, act, mayLess) {
  const actions = element("div", { className: "actions" });
  actions.append(iconButton("more", `More like ${name}`, { onclick: () => act("more", image) }));
  if (mayLess) {
    actions.append(iconButton("less", `Less like ${name}`, { onclick: () => act("less", image) }));
  }
  actions.append(iconButton("large", `Open ${name} large`, { className: "open", onclick: () => act("open", image) }));
  return actions;
}

/** Return how many versions of the picture there are, with the paths of the others. */
function versionsOf({ copies }) {
  const title = copies.map((copy) => copy.path).join("\n");
  const text = `${copies.length + 1} versions`;
  return element("span", { className: "versions", title, "aria-hidden": "true" }, text);
}

function alsoThere({ copies }) {
  return copies?.length ? `, ${copies.length + 1} versions` : "";
}

/** Return the placeholder for a picture that cannot be shown. */
export function lost(name, reason) {
  return element("span", { className: "lost" }, element("strong", {}, name), reason);
}

function makePicture(image, name, measured) {
  const address = fitting(image.id);
  return element("img", {
    className: "waiting",
    alt: "",
    decoding: "async",
    draggable: false,
    src: address,
    onload: (event) => {
      event.target.classList.remove("waiting");
      measured(event.target.naturalWidth / event.target.naturalHeight);
    },
    onerror: async (event) => event.target.replaceWith(lost(name, await whyNot(address))),
  });
}

/** Distinguish a click from holding. */
function listen(link, image, act) {
  let timer = null;
  let heldNow = false;
  const release = () => clearTimeout(timer);
  link.addEventListener("pointerdown", (event) => {
    heldNow = false;
    if (event.button !== 0) return;
    timer = setTimeout(() => {
      heldNow = true;
      act("open", image);
    }, HOLD);
  });
  ["pointerup", "pointercancel", "pointerleave"].forEach((kind) =>
    link.addEventListener(kind, release));
  link.addEventListener("contextmenu", (event) => {
    if (event.pointerType === "touch") event.preventDefault(); // holding opens our own view
  });
  link.addEventListener("click", (event) => {
    const selecting = document.body.classList.contains("selecting");
    if (event.ctrlKey || event.metaKey || (event.shiftKey && !selecting)) return; // another tab
    event.preventDefault();
    if (!heldNow) act("search", image, event);
    heldNow = false;
  });
}
