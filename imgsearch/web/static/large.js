/** The large view of one image, with all actions on it. */

import * as api from "./api.js";
import { element, fileName, icon, iconButton } from "./elements.js";
import { rounded } from "./numbers.js";
import { lost } from "./tile.js";

export class Large {
  /** `act(what, image)` is called with "search", "more" or "less"; `say(text)` to tell the user. */
  constructor(dialog, { act, say, closed }) {
    this.dialog = dialog;
    this.act = act;
    this.say = say;
    dialog.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (step) this.#step(step);
    });
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
    dialog.addEventListener("close", () => closed(this.image));
  }

  /** Show one of `images`. */
  open(image, images, { mayLess }) {
    this.images = images;
    this.mayLess = mayLess;
    this.#fill(image);
    if (!this.dialog.open) this.dialog.showModal();
    this.dialog.querySelector(".close").focus();
  }

  #step(by) {
    const to = this.images[this.images.indexOf(this.image) + by];
    if (!to) return;
    const kept = document.activeElement?.className;
    this.#fill(to);
    const again = kept && this.dialog.querySelector(`.${kept.split(" ")[0]}:not([hidden])`);
    (again || this.dialog.querySelector(".close")).focus();
  }

  #fill(image) {
    this.image = image;
    const name = fileName(image.path);
    const at = this.images.indexOf(image);
    const step = (by, word) => iconButton(word, `${word === "next" ? "Next" : "Previous"} image`, {
      className: word, hidden: !this.images[at + by], onclick: () => this.#step(by),
    });
    const view = element("div", { className: "view" }, this.#picture(image, name),
      step(-1, "previous"), step(1, "next"),
      iconButton("close", "Close", { className: "close", onclick: () => this.dialog.close() }));
    const path = element("p", { className: "path" }, image.path);
    const numbers = element("p", { className: "numbers" });
    this.dialog.replaceChildren(view, element("div", { className: "facts" },
      element("h2", { id: "large-name" }, name), path, numbers, this.#tools(image, path)));
    this.#tell(image, numbers);
  }

  #picture(image, name) {
    // Show the thumbnail at once; the original replaces it if this browser can show it.
    const shown = element("img", { alt: name, src: api.thumbnail(image.id, 512) });
    shown.onerror = async () => shown.replaceWith(lost(name, await api.whyNot(shown.src)));
    const whole = new Image();
    whole.src = api.original(image.id);
    whole.decode().then(() => {
      whole.alt = name;
      shown.replaceWith(whole);
    }, () => {});
    return shown;
  }

  #tools(image, path) {
    const doing = (what, text, sign) => element("button", {
      type: "button", className: what, onclick: () => this.#do(what, image),
    }, icon(sign), text);
    const tools = element("div", { className: "tools" }, doing("search", "Search from this", "picture"),
      doing("more", "More like this", "more"));
    if (this.mayLess) tools.append(doing("less", "Less like this", "less"));
    tools.append(
      element("a", { className: "button original", href: api.original(image.id), target: "_blank",
        rel: "noopener" }, "Open the original"),
      element("button", { type: "button", className: "copy",
        onclick: () => this.#copy(image, path) }, "Copy the path"));
    return tools;
  }

  #do(what, image) {
    this.image = null; // the action decides where the focus goes
    this.dialog.close();
    this.act(what, image);
  }

  async #copy(image, path) {
    try {
      await navigator.clipboard.writeText(image.path);
    } catch { // only available to pages served from this machine or over TLS
      getSelection().selectAllChildren(path);
      document.execCommand("copy");
    }
    this.say("The path was copied to the clipboard.");
  }

  async #tell(image, numbers) {
    const parts = [];
    if (image.similarity !== undefined) {
      if (image.band) parts.push(image.band);
      parts.push(`similarity ${rounded(image.similarity, 4)}`, `distance ${image.distance.toFixed(4)}`);
    }
    numbers.textContent = parts.join(" · ");
    try {
      const { width, height } = { ...(await api.facts(image.id)), ...image };
      if (width && height) parts.unshift(`${width} × ${height}`);
      numbers.textContent = parts.join(" · ");
    } catch (error) {
      numbers.textContent = error.message;
    }
  }
}
