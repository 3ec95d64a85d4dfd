/** The dates beside the images: drag along them, or use the keys, to go to a month. */

import * as api from "./api.js";
import { element } from "./elements.js";

const $ = (id) => document.getElementById(id);
const APART = 20; // pixels between the years that are named
const LEAST = 2; // windows of images, below which there is nothing to scrub through

export class Scrubber {
  /** `grid` shows the images. */
  constructor(grid) {
    this.grid = grid;
    this.slider = $("scrubber");
    this.thumb = element("span", { className: "thumb", "aria-hidden": "true" });
    this.months = []; // [{month, first}]: the place of the first image of each
    this.slider.addEventListener("pointerdown", (event) => this.#drag(event));
    this.slider.addEventListener("keydown", (event) => this.#key(event));
    window.addEventListener("scroll", () => this.#tell(), { passive: true });
    new ResizeObserver(() => this.#draw()).observe(grid.list);
  }

  /** Show the months of the images of a state, which are sorted by date; none for null. */
  async show(state, signal) {
    this.months = [];
    this.slider.hidden = true;
    if (!state) return;
    try {
      const { months } = await api.timeline(state, signal);
      let first = 0;
      this.months = months.map(({ month, images }) => {
        first += images;
        return { month, first: first - images };
      });
      this.#draw();
    } catch {
      // Images are shown without it.
    }
  }

  #draw() {
    const { rows, images } = this.grid;
    const ready = images.done && rows.firsts.length > 0;
    this.slider.hidden = this.months.length < 2 || !ready || rows.height < LEAST * innerHeight;
    if (this.slider.hidden) return;
    let [last, year] = [-Infinity, null];
    const ticks = [];
    for (const { month, first } of this.months) {
      const at = rows.tops[rows.rowOf(first)] / rows.height;
      const from = this.slider.clientHeight * at;
      if (month.slice(0, 4) !== year && from - last >= APART) {
        const tick = element("span", { "aria-hidden": "true" }, month.slice(0, 4) || "–");
        tick.style.top = `${100 * at}%`;
        ticks.push(tick);
        last = from;
      }
      year = month.slice(0, 4);
    }
    this.slider.replaceChildren(...ticks, this.thumb);
    this.slider.setAttribute("aria-valuemax", this.months.length - 1);
    this.#tell();
  }

  /** Show which month is in view. */
  #tell() {
    if (this.slider.hidden) return;
    const { rows, images } = this.grid;
    const above = Math.max(this.#above(), 0);
    const { scrollHeight } = document.documentElement;
    const at = scrollY > 0 && scrollY + innerHeight >= scrollHeight - 2 ? this.months.length - 1
      : this.#monthOf(Math.min(rows.firsts[rows.rowAt(above + 1)], images.length - 1));
    const name = nameOf(this.months[at].month);
    this.thumb.style.top = `${100 * Math.min(above / Math.max(rows.height - innerHeight / 2, 1), 1)}%`;
    this.thumb.textContent = name;
    this.slider.setAttribute("aria-valuenow", at);
    this.slider.setAttribute("aria-valuetext", name);
  }

  /** Return how much of the images is above what the header leaves of the window. */
  #above() {
    return $("bar").getBoundingClientRect().bottom - this.grid.list.getBoundingClientRect().top;
  }

  #monthOf(place) {
    let at = this.months.findIndex(({ first }) => first > place);
    if (at < 0) at = this.months.length;
    return Math.max(at - 1, 0);
  }

  #to(top) {
    scrollBy(0, top - this.#above());
    this.#tell(); // before the event of scrolling, as the next key may come first
  }

  #drag(event) {
    if (event.button !== 0) return;
    event.preventDefault();
    this.slider.focus();
    this.slider.setPointerCapture(event.pointerId);
    const move = ({ clientY }) => {
      const { top, height } = this.slider.getBoundingClientRect();
      const share = Math.min(Math.max((clientY - top) / height, 0), 1);
      this.#to(share * Math.max(this.grid.rows.height - innerHeight / 2, 0));
    };
    move(event);
    this.slider.addEventListener("pointermove", move);
    const end = () => this.slider.removeEventListener("pointermove", move);
    ["pointerup", "pointercancel"].forEach((kind) => this.slider.addEventListener(kind, end, { once: true }));
  }

  #key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const { months } = this;
    const now = Number(this.slider.getAttribute("aria-valuenow"));
    const otherYear = (by) => {
      let at = now;
      while (months[at + by] && months[at].month.slice(0, 4) === months[now].month.slice(0, 4)) at += by;
      return at;
    };
    let to = {
      ArrowDown: () => now + 1,
      ArrowRight: () => now + 1,
      ArrowUp: () => now - 1,
      ArrowLeft: () => now - 1,
      PageDown: () => otherYear(1),
      PageUp: () => otherYear(-1),
      Home: () => 0,
      End: () => months.length - 1,
    }[event.key]?.();
    if (to === undefined) return;
    event.preventDefault();
    const { rows } = this.grid;
    to = Math.min(Math.max(to, 0), months.length - 1);
    const isHere = () => rows.tops[rows.rowOf(months[to].first)] >= this.#above() - 1;
    while (to < now && to > 0 && isHere()) to -= 1; // at the end, several months are in view
    const { first } = months[to];
    let row = rows.rowOf(first);
    // Down to a row that begins with that month; up to the one with its first image.
    if (to > now && rows.firsts[row] < first && row + 1 < rows.firsts.length) row += 1;
    this.#to(rows.tops[row]);
  }
}

function nameOf(month) {
  if (!month) return "No date";
  const [year, number] = month.split("-").map(Number);
  return new Date(Date.UTC(year, number - 1, 1)).toLocaleString("en", { month: "long", year: "numeric", timeZone: "UTC" });
}
