/** The search panel: the picture, its part, further images, and search options. */

import { thumbnail, whyNot } from "./api.js";
import { nameOf } from "./collection.js";
import { Crop } from "./crop.js";
import { element, iconButton } from "./elements.js";
import { limit, percent } from "./numbers.js";
import { find } from "./pictures.js";
import { isBrowsing, isPicture, mayCrop, stateOf, withoutImage, withoutUpload } from "./state.js";
import { lost } from "./tile.js";

const $ = (id) => document.getElementById(id);
const PAUSE = 250; // milliseconds from the last change of the slider to the search

export class Panel {
  /** `changed(state, {replace})` is called when the search changes. */
  constructor(changed) {
    this.changed = changed;
    this.subject = null;
    this.promise = null;
    this.crop = new Crop($("stage"), (crop) => this.#change({ crop }, Boolean(this.state.crop)));
    $("part").addEventListener("click", () => this.crop.toggle());
    $("clear").addEventListener("click", () => this.#clear());
    $("least").addEventListener("input", () => this.#slide());
    $("folded").addEventListener("change", ({ target }) =>
      this.#change({ versions: target.checked ? "folded" : "all" }, true));
    $("verify").addEventListener("change", ({ target }) => this.#change({ verify: target.checked }, true));
    ["band", "recall"].forEach((name) => document.querySelectorAll(`[name=${name}]`).forEach((radio) =>
      radio.addEventListener("change", () => this.#change({ [name]: radio.value }, true))));
    const wide = matchMedia("(min-width: 56rem)");
    const unfold = () => ($("refine").open = wide.matches);
    wide.addEventListener("change", unfold);
    unfold();
  }

  /** Show the search in a state. */
  async show(state) {
    this.state = state;
    $("panel").hidden = isBrowsing(state);
    if (isBrowsing(state)) {
      this.subject = null;
      return;
    }
    const [first, ...others] = state.image ? [null, ...state.like] : state.like;
    this.#settings(state);
    this.#chips("more", [...state.also.map((name) => this.#upload(name)), ...others.map((id) => this.#chip(id))], "Also like");
    this.#chips("less", state.unlike.map((id) => this.#chip(id)), "Less like");
    $("subject").hidden = !first && !state.image;
    if ($("subject").hidden) this.subject = null;
    else await this.#picture(first, state);
  }

  /** Show the recall that the collection promises. */
  promised(recall) {
    this.promise = recall;
    if (this.state) this.#note(this.state.recall);
  }

  /** Tell whether the hits have bands: not those of words, or of a collection with few images. */
  banded(known) {
    $("bands").hidden = !known && !this.state.band;
  }

  async #picture(id, state) {
    // A part of an upload has a different name, but it is the same file, and stays in view.
    const subject = state.image ? (await find(state.image)) ?? state.image : id;
    if (this.state !== state) return; // superseded by another state meanwhile
    if (this.subject !== subject) {
      this.subject = subject;
      this.shown = false;
      $("stage").replaceChildren();
      this.#crop();
      const { title, address } = await subjectOf(subject);
      if (this.subject !== subject) return;
      const image = element("img", { alt: `Query: ${title}`, draggable: false });
      image.onerror = async () => {
        const why = state.image ? "This browser cannot show it." : await whyNot(address);
        image.replaceWith(lost(title, address ? why : "Its picture is no longer in this browser."));
        this.shown = false;
        this.#crop();
      };
      this.shown = true;
      $("caption").textContent = title;
      image.src = address ?? "data:,";
      $("stage").replaceChildren(image);
    }
    this.#crop();
  }

  #crop() {
    const may = this.shown && mayCrop(this.state);
    this.crop.show(may ? this.state.crop : null, may);
    $("part").hidden = !may;
    $("part").setAttribute("aria-pressed", String(Boolean(this.state.crop)));
    $("part").lastElementChild.textContent = this.state.crop ? "Whole image" : "Crop to search";
  }

  #chips(kind, chips, title) {
    $("chips").querySelector(`.${kind}`)?.remove();
    if (!chips.length) return;
    chips.forEach((chip) => chip.classList.add("chip", kind));
    const list = element("ul", { role: "list" }, ...chips);
    $("chips").append(element("section", { className: kind }, element("h2", {}, title), list));
  }

  #chip(id) {
    return chipOf(nameOf(id), thumbnail(id, 256), () => this.changed(withoutImage(this.state, id)));
  }

  #upload(name) {
    const subject = find(name).then((file) => subjectOf(file ?? name));
    const chip = chipOf(subject.then(({ title }) => title), null, () => this.changed(withoutUpload(this.state, name)));
    subject.then(({ address }) => address && (chip.querySelector("img").src = address));
    return chip;
  }

  #clear() {
    const { state } = this;
    this.changed(state.image ? withoutUpload(state, state.image) : withoutImage(state, state.like[0]));
  }

  #settings(state) {
    const { band, min, recall, verify, versions } = state;
    $("folded").checked = versions === "folded";
    $("verify").checked = verify;
    $("verifying").hidden = !isPicture(state);
    document.querySelector(`[name=band][value="${band}"]`).checked = true;
    $("least").value = min ?? 0;
    this.#least(min);
    document.querySelector(`[name=recall][value=${recall}]`).checked = true;
    this.#note(recall);
  }

  #note(recall) {
    const share = this.promise === null ? "nearly all" : `at least ${percent(this.promise)}`;
    $("recall-note").textContent = {
      fast: "Finds at least 80 % of the ten best matches on average, in the shortest time.",
      promised: `Finds ${share} of the ten best matches on average.`,
      exact: "Compares with every image, so that nothing is missed.",
    }[recall];
  }

  #least(min) {
    $("least-shown").textContent = min === null ? "any" : `${limit(min)} or more`;
  }

  #slide() {
    const min = Number($("least").value) || null;
    this.#least(min);
    clearTimeout(this.pause);
    this.pause = setTimeout(() => this.#change({ min }, true), PAUSE);
  }

  #change(facts, replace) {
    this.changed(stateOf({ ...this.state, ...facts }), { replace });
  }
}

/** Return a small picture with a button that takes it away; `naming` is a promise of its name. */
function chipOf(naming, address, takeAway) {
  const take = iconButton("close", "Remove", { onclick: takeAway });
  const image = element("img", { alt: "", ...(address && { src: address }) });
  naming.then((name) => {
    image.alt = name;
    take.title = `Remove ${name}`;
    take.setAttribute("aria-label", take.title);
  });
  return element("li", {}, image, take);
}

/** Return {title, address} of an id, a file, or the name of an upload without its picture. */
async function subjectOf(subject) {
  if (/^\d{1,19}$/.test(subject)) {
    return { title: await nameOf(subject), address: thumbnail(subject, 512) };
  }
  if (typeof subject === "string") return { title: "your image", address: null };
  return { title: subject.name, address: URL.createObjectURL(subject) };
}
