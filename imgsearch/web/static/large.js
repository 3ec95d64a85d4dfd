/** The large view of one image, with all actions on it. */

import * as api from "./api.js";
import { factsOf } from "./collection.js";
import { fillDrag } from "./dragging.js";
import { element, fileName, icon, iconButton } from "./elements.js";
import { information } from "./information.js";
import { copy } from "./lists.js";
import { fitting } from "./thumbnails.js";
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
    this.comparing = { beside: false, marks: false }; // whether the query is shown, and what they share
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
    this.comparing = { beside: false, marks: false };
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
    else if (event.key === "c") this.#compare("beside");
    else if (event.key === "w") this.#compare("marks");
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
    const compared = this.#compares && this.view.firstElementChild; // which stays until the next is there
    this.view.replaceChildren(compared || this.#picture(image, name), step(-1, "previous"), step(1, "next"),
      element("div", { className: "corner" },
        iconButton("zoom", "Actual size", { className: "zoom", onclick: () => this.zoom.actual() }),
        iconButton("large", "Full screen", { className: "full", onclick: () => this.#fullScreen() }),
        iconButton("close", "Close", { className: "close", onclick: () => this.dialog.close() })));
    const known = element("div");
    this.facts.replaceChildren(element("h2", { id: "large-name" }, name), known,
      ...this.#versions(image), this.#tools(image));
    this.#tell(image, known);
    if (compared) this.#draw();
  }

  #versions({ copies }) {
    if (!copies?.length) return [];
    const items = copies.map((copy) => element("li", {}, copy.path));
    return [element("h3", {}, "Other versions of this picture"), element("ul", {}, ...items)];
  }

  #picture(image, name) {
    // Show the thumbnail at once; the original replaces it if this browser can show it.
    const shown = element("img", { alt: name, src: fitting(image.id) });
    shown.onerror = async () => shown.replaceWith(lost(name, await api.whyNot(shown.src)));
    const whole = new Image();
    const drag = (event) => (this.zoom.magnified ? event.preventDefault() : fillDrag(event.dataTransfer, [image]));
    [shown, whole].forEach((each) => each.addEventListener("dragstart", drag));
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
      const comparing = (what, text) => element("button", { type: "button", className: what,
        "aria-pressed": String(this.comparing[what]), onclick: () => this.#compare(what) }, text);
      tools.append(comparing("beside", "Side by side"), comparing("marks", "Why similar?"));
    }
    tools.append(
      element("a", { className: "button original", href: api.original(image.id), target: "_blank",
        rel: "noopener" }, "Open the original"),
      element("button", { type: "button", className: "copy-path",
        onclick: () => this.#copy(image) }, "Copy the path"));
    return tools;
  }

  get #compares() {
    return this.comparing.beside || this.comparing.marks;
  }

  /** Show the picture of the search beside the image, or no longer; with "marks", which parts make them similar. */
  #compare(what) {
    if (this.image.similarity === undefined) return;
    this.comparing[what] = !this.comparing[what];
    this.#draw();
  }

  /** Show the image, or the comparison. */
  async #draw() {
    const { image } = this;
    const { marks } = this.comparing;
    this.#press();
    try {
      const wanted = this.#compares ? await this.#compared(image, marks) : this.#picture(image, fileName(image.path));
      if (this.image !== image || !wanted) return;
      if (this.#compares) this.zoom.show(null);
      this.view.firstElementChild.replaceWith(wanted); // the original may have replaced the thumbnail meanwhile
    } catch (error) {
      if (this.image !== image) return;
      this.say(error.message);
      this.comparing = { beside: false, marks: false };
      this.#draw();
    }
  }

  /** Return the comparison, unless another is wanted by then. */
  async #compared(image, marks) {
    const query = await this.asked();
    if (!query) throw new Error("Only a search with a single picture can be compared.");
    const { beside } = await import("./beside.js");
    const made = await beside(query, image, { marks });
    return this.#compares && this.comparing.marks === marks ? made : null;
  }

  #press() {
    Object.entries(this.comparing).forEach(([what, on]) =>
      this.facts.querySelector(`.${what}`)?.setAttribute("aria-pressed", String(on)));
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

  async #tell(image, known) {
    let all = image;
    const tell = (more) => {
      const open = known.querySelector("details")?.open;
      all = { ...all, ...more };
      known.replaceChildren(information(all, { openFolder: (event) => this.#do("folder", image, event), locate }));
      if (open) known.querySelector("details").open = true;
    };
    const locate = async () => {
      try {
        tell({ exif: await api.exif(image.id, { location: true }) });
        this.dialog.querySelector(".close").focus(); // as the button is gone
      } catch (error) {
        this.say(error.message);
      }
    };
    tell({});
    try {
      const facts = await api.facts(image.id);
      const { width, height } = facts.width ? facts : image;
      tell({ ...facts, width, height });
    } catch (error) {
      known.append(element("p", {}, error.message));
      return;
    }
    const exif = await api.exif(image.id).catch(() => null); // why its file cannot be read is said beside
    if (exif) tell({ exif });
  }
}
