/** One image in the grid: a click searches from it; holding it or its buttons do the rest. */

import { thumbnail, whyNot } from "./api.js";
import { element, fileName, iconButton } from "./elements.js";
import { rounded } from "./numbers.js";
import { hashOf, stateOf } from "./state.js";

const HOLD = 500; // milliseconds
const KEYS = { "+": "more", "-": "less", " ": "open" };

/** Return the list item of an image.
 *
 * `image` has id, path and, if it is a hit, similarity; `act(what, image)` is called with "search",
 * "more", "less" or "open", `measured(ratio)` once the thumbnail has loaded.
 */
export function makeTile(image, { act, measured, mayLess }) {
  const name = fileName(image.path);
  const known = image.similarity !== undefined;
  const ranked = known && image.score !== null; // in an order of its own: see docs/answers.md
  const facts = ranked ? image.band ?? "" : known ? rounded(image.similarity) : "";
  const picture = makePicture(image, name, measured);
  const link = element("a", {
    className: "picture",
    href: hashOf(stateOf({ like: [image.id] })),
    title: image.path,
    draggable: false,
    "aria-label": `Search from ${name}${known ? `, ${ranked ? "" : "similarity "}${facts}` : ""}`,
    onkeydown: (event) => {
      const what = KEYS[event.key];
      if (!what || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      act(what, image);
    },
  }, picture);
  const tile = element("li", { className: "tile" }, link);
  tile.dataset.id = image.id;
  if (known) {
    tile.append(element("span", { className: "similarity", "aria-hidden": "true" },
      facts));
  }
  const actions = element("div", { className: "actions" });
  actions.append(iconButton("more", `More like ${name}`, { onclick: () => act("more", image) }));
  if (mayLess) {
    actions.append(iconButton("less", `Less like ${name}`, { onclick: () => act("less", image) }));
  }
  actions.append(iconButton("large", `Open ${name} large`, { onclick: () => act("open", image) }));
  tile.append(actions);
  listen(link, image, act);
  return tile;
}

/** Return the placeholder for a picture that cannot be shown. */
export function lost(name, reason) {
  return element("span", { className: "lost" }, element("strong", {}, name), reason);
}

function makePicture(image, name, measured) {
  const address = thumbnail(image.id, 512);
  return element("img", {
    className: "waiting",
    alt: "",
    loading: "lazy",
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
    if (event.ctrlKey || event.metaKey || event.shiftKey) return; // opens another tab or window
    event.preventDefault();
    if (!heldNow) act("search", image);
    heldNow = false;
  });
}
