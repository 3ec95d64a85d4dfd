/** The messages of the page. */

import { element } from "./elements.js";
import { rounded } from "./numbers.js";

const $ = (id) => document.getElementById(id);
const SHORT = 3_000; // milliseconds that a passing message stays

/** Show a passing message. */
export function say(text) {
  $("toast").textContent = text;
  clearTimeout(say.timer);
  say.timer = setTimeout(() => ($("toast").textContent = ""), SHORT);
}

/** Show a warning above the page until `warn("")` is called. */
export function warn(text) {
  $("notice").hidden = !text;
  $("notice").textContent = text;
}

/** Show why there are no images: {title, text, command, action: [label, listener]}; null for none. */
export function explain(reason) {
  const state = $("state");
  state.hidden = !reason;
  if (!reason) {
    state.replaceChildren();
    return;
  }
  const { title, text, command, action } = reason;
  state.replaceChildren(element("h2", {}, title), element("p", {}, text));
  if (command) state.append(element("p", {}, element("code", {}, command)));
  if (action) {
    state.append(element("button", { type: "button", onclick: action[1] }, action[0]));
  }
}

/** Return a number of images with its noun. */
export function images(count) {
  return count === 1 ? "1 image" : `${count.toLocaleString("en")} images`;
}

/** Describe the images on the page: their number, and how they were searched for. */
export function summary({ shown, search, done, total }) {
  if (!search) return total > shown ? `${shown.toLocaleString("en")} of ${images(total)}` : images(shown);
  const number = done ? images(shown) : `the nearest ${shown === 1 ? "image" : images(shown)}`;
  if (search.search === "exact") return `${number}, compared with every image`;
  const recall = search.recall ? `, expected recall ${rounded(search.recall)}` : "";
  return `${number}${recall}`;
}
