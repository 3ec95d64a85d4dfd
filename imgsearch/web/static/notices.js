/** The messages of the page. */

import { element } from "./elements.js";
import { copy } from "./lists.js";

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

/** Show why there are no images, or nothing if there are: `reason` is null then.
 *
 * It is {title, text, first, command, or, note, action}; `first` and `action` are [label, listener],
 * `or` is said between the first action and the command.
 */
export function explain(reason) {
  const state = $("state");
  state.hidden = !reason;
  if (!reason) {
    state.replaceChildren();
    return;
  }
  const { title, text, first, command, or, note, action } = reason;
  if (command && command === state.querySelector("code")?.textContent) return; // it may be selected
  state.replaceChildren(element("h2", {}, title), element("p", {}, text));
  if (first) state.append(element("button", { type: "button", className: "primary", onclick: first[1] }, first[0]));
  if (command) {
    if (or) state.append(element("p", {}, or));
    state.append(element("p", {}, element("code", {}, command)), element("button", {
      type: "button",
      onclick: async () => {
        await copy(command);
        say("The command was copied to the clipboard.");
      },
    }, "Copy the command"));
  }
  if (note) state.append(element("p", {}, note));
  if (action) {
    state.append(element("button", { type: "button", onclick: action[1] }, action[0]));
  }
}

/** Return a number of images with its noun. */
export function images(count) {
  return count === 1 ? "1 image" : `${count.toLocaleString("en")} images`;
}

/** Return a number of similar images with its noun. */
export function similar(count) {
  return `${count.toLocaleString("en")} similar ${count === 1 ? "image" : "images"}`;
}

/** Describe the images on the page: their number, and how they were searched for. */
export function summary({ length, search, done, total }, most) {
  const some = length.toLocaleString("en");
  if (!search) {
    if (done && length >= most) return `the first ${some} of ${images(total)}`;
    return images(total ?? length);
  }
  const number = done ? images(length) : `${some} most similar`;
  return search.search === "exact" ? `${number}, compared with every image` : number;
}
