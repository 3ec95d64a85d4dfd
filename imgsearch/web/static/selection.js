/** The selected images, which stay selected from search to search, and what can be done with them. */

import { archive, judge } from "./api.js";
import { factsOf, known } from "./collection.js";
import { fillDrag } from "./dragging.js";
import { lasso } from "./lasso.js";
import { copy, csv, json, paths, save } from "./lists.js";
import { images as counted } from "./notices.js";

const $ = (id) => document.getElementById(id);
const MOST = 50; // images of one search
const MOST_FILES = 1_000; // of one download
const MOST_JUDGED = 100; // at a time

export class Selection {
  /** `grid` shows the images; `search(ids)` is called to search with the selected ones,
   * `remove(ids)` to take them out of the collection, `say(text)` to tell the user, `changed()` if others are selected.
   */
  constructor(grid, { search, remove, say, changed }) {
    this.grid = grid;
    this.changed = changed;
    this.chosen = new Map(); // the facts by id, null where they are not known yet
    this.last = null; // id of the image that was selected last
    $("selected-search").addEventListener("click", () => search([...this.chosen.keys()]));
    const withAll = (id, action) => $(id).addEventListener("click", async () => {
      try {
        await action(await this.#facts());
      } catch (error) {
        say(error.message);
      }
    });
    withAll("selected-copy", async (all) => {
      await copy(all.map((image) => image.path).join("\n"));
      say(all.length === 1 ? "The path was copied to the clipboard." : "The paths were copied to the clipboard.");
    });
    withAll("selected-csv", (all) => save("images.csv", csv(all)));
    withAll("selected-json", (all) => save("images.json", json(all)));
    withAll("selected-paths", (all) => save("images.txt", paths(all)));
    const judging = (id, forget, text) => withAll(id, async () => {
      await judge([...this.chosen.keys()], { forget });
      say(text);
    });
    judging("selected-apart", false, "Remembered: they are not the same picture.");
    judging("selected-same", true, "They count as copies again if they look the same.");
    document.querySelectorAll("#selection details").forEach((menu) => {
      menu.addEventListener("click", (event) => event.target.closest("button") && (menu.open = false));
      menu.addEventListener("focusout", ({ relatedTarget }) => {
        if (relatedTarget && !menu.contains(relatedTarget)) menu.open = false;
      });
      menu.addEventListener("keydown", (event) => {
        if (event.key !== "Escape" || !menu.open) return;
        event.preventDefault();
        menu.open = false;
        menu.firstElementChild.focus();
      });
    });
    $("selected-archive").addEventListener("click", (event) => {
      if (this.size > MOST_FILES) {
        event.preventDefault();
        say(`A download holds at most ${MOST_FILES.toLocaleString("en")} images.`);
      }
    });
    $("selected-remove").addEventListener("click", () => remove([...this.chosen.keys()]));
    let before = null; // what was selected when a box was begun
    lasso(grid, {
      started: () => (before = new Map(this.chosen)),
      dragged: (places) => {
        this.chosen = new Map(before);
        places.forEach((at) => this.#add(at));
        this.#tell();
      },
    });
    $("selected-none").addEventListener("click", () => this.clear());
    document.addEventListener("keydown", (event) => {
      const open = document.querySelector("dialog[open]") || event.defaultPrevented;
      if (event.key === "Escape" && !open && this.chosen.size) this.clear();
    });
  }

  has(id) {
    return this.chosen.has(id);
  }

  get size() {
    return this.chosen.size;
  }

  /** Select an image, or no longer; with `range`, all from the one that was selected last. */
  toggle(image, { range = false } = {}) {
    const { images } = this.grid;
    const [from, to] = [this.last, image.id].map((id) => images.ids.indexOf(id));
    if (range && from >= 0 && to >= 0) {
      for (let at = Math.min(from, to); at <= Math.max(from, to); at += 1) this.#add(at);
    } else if (!this.chosen.delete(image.id)) {
      this.chosen.set(image.id, image);
    }
    this.last = image.id;
    this.#tell();
  }

  /** Fill what is dragged with the selected images, among them the one that was taken hold of. */
  drag(image, { dataTransfer }) {
    const others = [...this.chosen].filter(([id]) => id !== image.id).map(([id, facts]) => facts ?? { id });
    fillDrag(dataTransfer, [image, ...others].slice(0, MOST_FILES));
  }

  /** Select images with some ids, too. */
  include(ids) {
    ids.forEach((id) => this.chosen.set(id, this.chosen.get(id) ?? known(id) ?? null));
    this.#tell();
  }

  clear() {
    this.chosen.clear();
    this.last = null;
    this.#tell();
  }

  #add(at) {
    const { images } = this.grid;
    this.chosen.set(images.ids[at], images.at(at) ?? null);
  }

  /** Return the facts about the selected images, requesting those that no tile has shown. */
  async #facts() {
    const unknown = [...this.chosen.keys()].filter((id) => !this.chosen.get(id));
    (await factsOf(unknown)).forEach((image) => this.chosen.set(image.id, image));
    return [...this.chosen.values()].filter(Boolean);
  }

  #tell() {
    this.grid.mark();
    this.changed();
    $("selection").hidden = !this.size;
    document.body.classList.toggle("selecting", this.size > 0);
    $("selected").textContent = `${counted(this.size)} selected`;
    $("selected-archive").href = archive([...this.chosen.keys()].slice(0, MOST_FILES));
    ["selected-apart", "selected-same"].forEach((id) => ($(id).disabled = this.size < 2 || this.size > MOST_JUDGED));
    $("selected-search").disabled = this.size > MOST;
    $("selected-search").title = this.size > MOST ? `A search takes at most ${MOST} images` : "";
  }
}
