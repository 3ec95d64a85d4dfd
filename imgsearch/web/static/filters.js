/** The filters: a form, and a chip for each one that is in use. */

import { element, iconButton } from "./elements.js";
import { FILTERS, filtersOf, stateOf } from "./state.js";

const $ = (id) => document.getElementById(id);

const MOST = 500; // suggestions

export class Filters {
  /** `changed(state)` is called when the filters change. */
  constructor(changed) {
    this.changed = changed;
    $("filter").addEventListener("submit", (event) => {
      event.preventDefault();
      $("filtering").open = false;
      this.#set(Object.fromEntries(new FormData($("filter"))));
    });
    document.addEventListener("pointerdown", ({ target }) => {
      if (!$("filtering").contains(target)) $("filtering").open = false;
    });
    $("filtering").addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || !$("filtering").open) return;
      $("filtering").open = false;
      $("filtering").firstElementChild.focus();
    });
  }

  /** Show the filters of a state. */
  show(state) {
    this.state = state;
    Object.keys(FILTERS).forEach((name) => ($("filter").elements[name].value = state[name]));
    $("active").replaceChildren(...filtersOf(state).map(([name, value]) => this.#chip(name, value)));
  }

  /** Offer the folders and the cameras of the collection. */
  offer({ folders, cameras }) {
    $("all-folders").replaceChildren(...folders.slice(0, MOST).map(({ path }) => option(path)));
    $("all-cameras").replaceChildren(...cameras.slice(0, MOST).map(({ camera }) => option(camera)));
  }

  /** Remove all filters. */
  clear() {
    this.#set(Object.fromEntries(Object.keys(FILTERS).map((name) => [name, ""])));
  }

  #chip(name, value) {
    const text = `${FILTERS[name]}: ${value}`;
    const take = iconButton("close", `Remove the filter ${text}`, {
      onclick: () => {
        $("filtering").firstElementChild.focus(); // as the chip is about to go
        this.#set({ [name]: "" });
      },
    });
    return element("li", {}, element("span", { title: value }, text), take);
  }

  #set(filters) {
    const trimmed = Object.entries(filters).map(([name, value]) => [name, value.trim()]);
    this.changed(stateOf({ ...this.state, ...Object.fromEntries(trimmed) }));
  }
}

function option(value) {
  return element("option", { value });
}
