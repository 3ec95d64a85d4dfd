/** The large view of one image, with all actions on it. */

import * as api from "./api.js";
import { factsOf } from "./collection.js";
import { element, fileName, icon, iconButton } from "./elements.js";
import { marked } from "./explain.js";
import { copy } from "./lists.js";
import { rounded } from "./numbers.js";
import { lost } from "./tile.js";
import { Zoom } from "./zoom.js";

export class Large {
  /** `act(what, image)` is called with "search", "more", "less", "select" or "folder"; `say(text)` to
   * tell the user; `asked()` for the picture of the search, as for `api.explain`, or null if there is not one.
   */
  constructor(dialog, { act, say, closed, asked }) {
    this.dialog = dialog;
    this.act = act;
    this.say = say;
    this.asked = asked;
    this.view = element("div", { className: "view" }); // which stays, as it may fill the screen
    this.facts = element("div", { className: "facts" });
    dialog.append(this.view, this.facts);
    this.zoom = new Zoom(this.view, {
      swiped: (to) => (to === "down" ? dialog.close() : this.#step(to === "left" ? 1 : -1)),
    });
    dialog.addEventListener("keydown", (event) => this.#key(event));
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
    dialog.addEventListener("close", () => {
      if (document.fullscreenElement) document.exitFullscreen();
      closed(this.image);
    });
  }

  /** Show one of some `images`: see images.js. */
  open(image, images, { mayLess }) {
    this.images = images;
    this.mayLess = mayLess;
    this.#fill(image);
    if (!this.dialog.open) this.dialog.showModal();
    this.dialog.querySelector(".close").focus();
  }

  #key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (this.zoom.key(event.key)) event.preventDefault();
    else if (step) this.#step(step);
    else if (event.key === "f") this.#fullScreen();
    else if (event.key === "x") this.#do("select", this.image, event);
  }

  #fullScreen() {
    if (document.fullscreenElement) document.exitFullscreen();
    else this.view.requestFullscreen?.().catch(() => this.say("This browser does not allow full screen."));
  }

  async #step(by) {
    const { image } = this;
    const [to] = await factsOf([this.#beside(by)].filter(Boolean));
    if (!to || this.image !== image) return;
    const kept = document.activeElement?.className;
    this.#fill(to);
    const again = kept && this.dialog.querySelector(`.${kept.split(" ")[0]}:not([hidden])`);
    (again || this.dialog.querySelector(".close")).focus();
  }

  /** Return the id of the next image, or of the one before. */
  #beside(by) {
    return this.images.ids[this.images.ids.indexOf(this.image.id) + by];
  }

  #fill(image) {
    this.image = image;
    const name = fileName(image.path);
    const step = (by, word) => iconButton(word, `${word === "next" ? "Next" : "Previous"} image`, {
      className: word, hidden: !this.#beside(by), onclick: () => this.#step(by),
    });
    this.view.replaceChildren(this.#picture(image, name), step(-1, "previous"), step(1, "next"),
      element("div", { className: "corner" },
        iconButton("zoom", "Actual size", { className: "zoom", onclick: () => this.zoom.actual() }),
        iconButton("large", "Full screen", { className: "full", onclick: () => this.#fullScreen() }),
        iconButton("close", "Close", { className: "close", onclick: () => this.dialog.close() })));
    const path = element("p", { className: "path" }, image.path);
    const numbers = element("p", { className: "numbers" });
    this.facts.replaceChildren(element("h2", { id: "large-name" }, name), path, numbers,
      ...this.#versions(image), this.#tools(image));
    this.#tell(image, numbers);
  }

  #versions({ copies }) {
    if (!copies?.length) return [];
    const items = copies.map((copy) => element("li", {}, copy.path));
    return [element("h3", {}, "Other versions of this picture"), element("ul", {}, ...items)];
  }

  #picture(image, name) {
    // Show the thumbnail at once; the original replaces it if this browser can show it.
    const shown = element("img", { alt: name, src: api.thumbnail(image.id, 512) });
    shown.onerror = async () => shown.replaceWith(lost(name, await api.whyNot(shown.src)));
    const whole = new Image();
    whole.draggable = shown.draggable = false;
    whole.src = api.original(image.id);
    whole.decode().then(() => {
      whole.alt = name;
      shown.replaceWith(whole);
      if (this.image === image && whole.isConnected && !this.zoom.magnified) this.zoom.show(whole);
    }, () => {});
    this.zoom.show(shown);
    return shown;
  }

  #tools(image) {
    const doing = (what, text, sign) => element("button", {
      type: "button", className: what, onclick: (event) => this.#do(what, image, event),
    }, icon(sign), text);
    const tools = element("div", { className: "tools" }, doing("search", "Search from this", "picture"),
      doing("more", "More like this", "more"));
    if (this.mayLess) tools.append(doing("less", "Less like this", "less"));
    tools.append(doing("select", "Select", "check"));
    if (image.similarity !== undefined) {
      tools.append(element("button", { type: "button", className: "why", "aria-pressed": "false",
        onclick: ({ currentTarget }) => this.#why(image, currentTarget) }, "Why similar?"));
    }
    tools.append(
      element("a", { className: "button original", href: api.original(image.id), target: "_blank",
        rel: "noopener" }, "Open the original"),
      element("button", { type: "button", className: "folder",
        onclick: (event) => this.#do("folder", image, event) }, "Show this folder"),
      element("button", { type: "button", className: "copy",
        onclick: () => this.#copy(image) }, "Copy the path"));
    return tools;
  }

  /** Show which parts make the image similar to the query, or the image again. */
  async #why(image, button) {
    if (button.getAttribute("aria-pressed") === "true") {
      button.setAttribute("aria-pressed", "false");
      this.view.firstElementChild.replaceWith(this.#picture(image, fileName(image.path)));
      return;
    }
    button.disabled = true;
    try {
      const query = await this.asked();
      if (!query) throw new Error("Only a search with a single picture can be explained.");
      const found = await api.explain(query, image.id);
      const address = query.file ? URL.createObjectURL(query.file) : api.thumbnail(query.id, 512);
      const pictures = await Promise.all([
        marked(address, found.query_map, { label: "The query, its parts marked", crop: query.crop }),
        marked(api.thumbnail(image.id, 512), found.hit_map, { label: "The hit, its parts marked" }),
      ]);
      if (query.file) URL.revokeObjectURL(address);
      if (this.image !== image) return;
      this.zoom.show(null);
      // The original may have replaced the thumbnail meanwhile.
      this.view.firstElementChild.replaceWith(element("figure", { className: "explained" }, ...pictures,
        element("figcaption", {}, "The brightest parts contribute most to the similarity.")));
      button.setAttribute("aria-pressed", "true");
    } catch (error) {
      this.say(error.message);
    } finally {
      button.disabled = false;
    }
  }

  #do(what, image, event) {
    this.image = null; // the action decides where the focus goes
    this.dialog.close();
    this.act(what, image, event);
  }

  async #copy(image) {
    await copy(image.path);
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
