/** A copy beside the picture that is kept: side by side, flickering, or with its differences lit. */

import { thumbnail, whyNot } from "./api.js";
import { differences, drawn, outline, turned } from "./differences.js";
import { element, fileName, icon, iconButton } from "./elements.js";
import { bytes } from "./numbers.js";
import { lost } from "./tile.js";

const EDGE = 2048; // pixels of the pictures
const BEAT = 600; // milliseconds, which is slower than what harms people who are sensitive to it
const APART = ["cropped", "framed", "captioned"]; // kinds that do not lie on the picture as they are
const MODES = { side: "Side by side", flicker: "Flicker", lit: "Differences" };
const KEYS = { s: "side", f: "flicker", l: "lit" };

/** Return how a copy was made and, if it was cropped or turned, how much. */
export function manner({ kind, share, angle }) {
  if (kind === "cropped") return `cropped to ${Math.round(share * 100)} %`;
  return angle ? `turned by ${Math.round(angle)}°` : kind;
}

/** Return why nobody should discard a copy; empty if there is no reason. */
export function whyKept({ own, protected: stays }) {
  if (own) return `not discarded: it has ${own}`;
  return stays ? "not discarded: its folder is to be kept" : "";
}

export class Pairs {
  /** `decide(what, group, copy)` is called with "discard", "keep" or "apart", `beside(copy, by)` for
   * the next pair or the one before, {group, copy} or undefined; `isMarked(id)` tells what is to go.
   */
  constructor(dialog, { decide, beside, isMarked, mayChange, closed }) {
    Object.assign(this, { dialog, decide, beside, isMarked, mayChange });
    this.mode = "side";
    this.view = element("div", { className: "view" });
    this.facts = element("div", { className: "facts" });
    dialog.append(this.view, this.facts);
    dialog.addEventListener("keydown", (event) => this.#key(event));
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
    dialog.addEventListener("close", () => {
      clearInterval(this.beat);
      closed(this.pair?.copy.id);
    });
  }

  /** Show a copy beside the picture that is kept in its group. */
  async open(pair) {
    this.pair = pair;
    this.#tell();
    if (!this.dialog.open) {
      this.dialog.showModal();
      this.dialog.querySelector(".close").focus();
    }
    clearInterval(this.beat);
    this.view.setAttribute("aria-busy", "true");
    const [kept, copy] = await Promise.all([pair.group.keep, pair.copy].map(pictureOf));
    if (this.pair !== pair) return;
    this.pictures = { kept, copy };
    this.#draw();
    this.view.removeAttribute("aria-busy");
  }

  /** Return whether the copy lies on the picture that is kept, point by point. */
  get #lies() {
    const { copy, group: { keep } } = this.pair;
    const [width, height] = copy.orientation & 4 ? [copy.height, copy.width] : [copy.width, copy.height];
    const ratio = (width * keep.height) / (height * keep.width);
    return !APART.includes(copy.kind) && !copy.angle && Math.abs(ratio - 1) < 0.02;
  }

  #key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const what = { d: "discard", k: "keep", n: "apart" }[event.key];
    if (step) this.#step(step);
    else if (what) this.#do(what);
    else if (KEYS[event.key]) this.#show(KEYS[event.key]);
  }

  #step(by) {
    const next = this.beside(this.pair.copy, by);
    if (next) this.open(next);
    return Boolean(next);
  }

  /** Decide about the copy, and go on to the next one. */
  async #do(what) {
    const { group, copy } = this.pair;
    if (!this.mayChange() || (what === "discard" && !copy.discardable)) return;
    const next = this.beside(copy, 1) ?? (what === "apart" ? this.beside(copy, -1) : null);
    await this.decide(what, group, copy);
    if (!this.dialog.open) return; // it was closed meanwhile
    if (next) this.open(next);
    else if (what === "apart") this.dialog.close();
    else this.#tell();
  }

  #show(mode) {
    if (mode !== "side" && !this.#lies) return;
    this.mode = mode;
    this.#tell();
    this.#draw();
  }

  #draw() {
    clearInterval(this.beat);
    const { kept, copy } = this.pictures ?? {};
    if (!kept) return;
    const { group, copy: facts } = this.pair;
    const names = [`Kept: ${fileName(group.keep.path)}`, `Copy: ${fileName(facts.path)}`];
    if (kept.lost || copy.lost || this.#mode === "side") {
      const sides = [kept, copy].map((each) => each.lost ?? drawn(each));
      if (facts.region && !copy.lost) outline(sides[1], facts.region);
      this.#put(...sides.map((side, at) => figure(side, names[at])));
      return;
    }
    const under = drawn(kept);
    const over = turned(copy, facts.orientation, under.width, under.height);
    if (this.#mode === "lit") {
      const { canvas, share } = differences(under, over);
      this.#put(figure(canvas, "Differences between the copy and the picture that is kept",
        share ? `${percent(share)} of the picture differs.` : "No difference is visible."));
      return;
    }
    const figures = [figure(under, names[0]), figure(over, names[1])];
    let at = 0;
    const swap = () => this.#put(figures[at = 1 - at]);
    figures.forEach((each) => each.addEventListener("click", swap));
    this.#put(figures[0]);
    if (!matchMedia("(prefers-reduced-motion: reduce)").matches) this.beat = setInterval(swap, BEAT);
  }

  get #mode() {
    return this.#lies ? this.mode : "side";
  }

  #put(...figures) {
    this.view.querySelector(".sides").replaceChildren(...figures);
  }

  /** Say which copy it is, and what can be done. */
  #tell() {
    const { group, copy } = this.pair;
    const focused = document.activeElement?.dataset.what;
    const step = (by, word) => iconButton(word, `${by > 0 ? "Next" : "Previous"} copy`, {
      className: word, hidden: !this.beside(copy, by), onclick: () => this.#step(by), "data-what": word,
    });
    const sides = this.view.querySelector(".sides") ?? element("div", { className: "sides" });
    this.view.replaceChildren(sides, step(-1, "previous"), step(1, "next"), element("div", { className: "corner" },
      iconButton("close", "Close", { className: "close", onclick: () => this.dialog.close(), "data-what": "close" })));
    const modes = Object.entries(MODES).map(([mode, text]) => element("button", {
      type: "button", "aria-pressed": String(this.#mode === mode), disabled: mode !== "side" && !this.#lies,
      onclick: () => this.#show(mode), "data-what": mode,
    }, text));
    const tools = element("div", { className: "tools", role: "group", "aria-label": "How to compare" }, ...modes);
    const reason = group.reason ? ` (${group.reason})` : "";
    this.facts.replaceChildren(tools,
      element("h2", { id: "pair-title" }, `Group ${group.number}: ${manner(copy)}`),
      told("Kept", group.keep, reason), told("Copy", copy, ""));
    const why = whyKept(copy);
    if (why) this.facts.append(element("p", {}, `${why[0].toUpperCase()}${why.slice(1)}.`));
    if (this.mayChange()) this.facts.append(this.#decisions(copy));
    const again = this.dialog.querySelector(`[data-what="${focused}"]:not([hidden], :disabled)`);
    if (this.dialog.open) (again ?? this.dialog.querySelector(".close")).focus();
  }

  #decisions(copy) {
    const marked = this.isMarked(copy.id);
    const button = (what, text, sign, pressed) => element("button", {
      type: "button", "aria-pressed": String(pressed), onclick: () => this.#do(what), "data-what": what,
    }, icon(sign), text);
    const tools = element("div", { className: "tools decisions" });
    if (copy.discardable) {
      tools.append(button("discard", "Discard", "trash", marked), button("keep", "Keep", "check", !marked));
    }
    tools.append(element("button", { type: "button", onclick: () => this.#do("apart"), "data-what": "apart" },
      "Not the same"));
    return tools;
  }
}

/** Return a picture that has loaded; `lost` is what to show instead if it cannot be. */
async function pictureOf({ id, path }) {
  const picture = new Image();
  picture.src = thumbnail(id, EDGE);
  try {
    await picture.decode();
  } catch {
    picture.lost = lost(fileName(path), await whyNot(picture.src));
  }
  return picture;
}

function figure(picture, name, told = name) {
  if (picture.tagName === "CANVAS") {
    picture.setAttribute("role", "img");
    picture.setAttribute("aria-label", name);
  }
  return element("figure", {}, picture, element("figcaption", {}, told));
}

function told(word, { path, width, height, size, mtime }, reason) {
  const day = mtime === null ? "" : ` · ${new Date(mtime * 1000).toISOString().slice(0, 10)}`;
  return element("p", {}, element("strong", {}, word), `${reason}: `, element("span", { className: "path" }, path),
    ` · ${width} × ${height} · ${bytes(size)}${day}`);
}

function percent(share) {
  return share < 0.001 ? "Less than 0.1 %" : `${(share * 100).toFixed(1)} %`;
}
