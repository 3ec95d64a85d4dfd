/** The grid of images. Only the tiles in and near the window are elements of the page. */

import { factsOf } from "./collection.js";
import { element } from "./elements.js";
import { Images } from "./images.js";
import { Rows } from "./layout.js";
import { Ahead, rowHeight } from "./thumbnails.js";
import { fillTile } from "./tile.js";

const PATIENCE = 1_000; // milliseconds to wait for pictures
const FLING = 2.5; // pixels a millisecond, at which nobody sees what passes
const PAUSE = 80; // milliseconds until a fling counts as over
const AHEAD = 900; // pixels above and below the window in which there are tiles
const NEXT = 100; // images below, whose thumbnails are requested while the page is idle

export class Grid {
  /** `act(what, image, event)` is called for user actions, `next()` when more images are needed,
   * `isSelected(id)` to mark tiles, `failed(error)` when images cannot be requested.
   */
  constructor(list, { act, next, isSelected, failed }) {
    Object.assign(this, { list, act, next, isSelected, failed });
    this.tiles = new Map(); // the elements, by the places of their images
    this.ahead = new Ahead(() => this.settled());
    this.show(new Images(), {});
    list.addEventListener("keydown", (event) => this.#move(event));
    new ResizeObserver(() => list.clientWidth !== this.rows.width && this.#lay()).observe(list);
    window.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    window.addEventListener("resize", () => this.#draw());
  }

  /** Show other images. */
  show(images, { mayLess }) {
    this.asking?.abort();
    this.asking = null;
    this.ahead.want(null);
    this.images = images;
    this.mayLess = mayLess;
    this.#remove(() => true);
    this.#lay({ anchored: false });
  }

  /** Show the images that were added to those on the page. */
  extend() {
    if (this.list.clientWidth !== this.rows.width) {
      this.#lay({ anchored: false });
      return;
    }
    this.rows.extend(this.images.ratios);
    this.#resize();
    this.#draw();
  }

  /** Mark the tiles of the selected images. */
  mark() {
    this.tiles.forEach((tile) => this.#mark(tile));
  }

  /** Focus the image with an id, or else the first; return whether there was one to focus.
   *
   * If `still`, nothing is scrolled, and only an image near the window is focused.
   */
  focus(id, { still = false } = {}) {
    const at = Math.max(id === undefined ? 0 : this.images.ids.indexOf(id), 0);
    if (!this.images.length) return false;
    if (!still) this.#reveal(at);
    this.#draw(); // as of the present place; what scrolling calls comes later
    if (!this.tiles.has(at)) return false;
    const tile = this.tiles.get(at);
    (tile.querySelector("a") ?? tile).focus({ preventScroll: true });
    return true;
  }

  /** Wait for the pictures in and near the window, but not for ever. */
  async settled() {
    const loading = [...this.list.querySelectorAll("img")].filter((image) => !image.complete);
    const loaded = loading.map((image) => new Promise((resolve) => {
      ["load", "error"].forEach((kind) => image.addEventListener(kind, resolve, { once: true }));
    }));
    await Promise.race([Promise.all(loaded), new Promise((resolve) => setTimeout(resolve, PATIENCE))]);
  }

  /** Return the places of the images that touch a box: {left, top, right, bottom} in the list. */
  within({ left, top, right, bottom }) {
    const places = [];
    if (!this.rows.firsts.length || bottom < 0) return places;
    for (let row = this.rows.rowAt(top); row <= this.rows.rowAt(bottom); row += 1) {
      for (const box of this.rows.boxes(row, this.images.ratios)) {
        const apart = box.left > right || box.left + box.width < left
          || box.top > bottom || box.top + box.height < top;
        if (!apart) places.push(box.at);
      }
    }
    return places;
  }

  /** Lay out all images, as the width of the page or the shape of an image is another. */
  #lay({ anchored = true } = {}) {
    this.due = undefined;
    const seen = anchored ? this.#anchor() : null;
    const width = this.list.clientWidth;
    const gap = parseFloat(getComputedStyle(this.list).columnGap) || 0;
    this.rows = new Rows({ width, target: rowHeight(width), gap });
    if (width) this.rows.extend(this.images.ratios);
    this.#resize();
    if (seen) scrollBy(0, this.rows.tops[this.rows.rowOf(seen.at)] - seen.top);
    this.tiles.forEach((tile) => (tile.row = null)); // has to be placed again
    this.#draw();
  }

  /** Return an image in view, and its place in the list, if the user has scrolled to it. */
  #anchor() {
    const above = -this.list.getBoundingClientRect().top;
    if (above <= 0 || !this.rows?.firsts.length) return null;
    const row = this.rows.rowAt(above);
    return { at: this.rows.firsts[row], top: this.rows.tops[row] };
  }

  #resize() {
    this.list.style.height = `${Math.max(this.rows.height - this.rows.gap, 0)}px`;
  }

  /** Draw; while pictures fly past too quickly to be seen, without filling their tiles. */
  #scrolled() {
    const now = performance.now();
    const before = this.scroll ?? { at: 0, y: 0, fast: false };
    const fast = Math.abs(scrollY - before.y) > FLING * (now - before.at);
    this.scroll = { at: now, y: scrollY, fast: fast && now - before.at < PAUSE };
    this.flung = this.scroll.fast && before.fast; // a single jump is no fling
    clearTimeout(this.calm);
    if (this.flung) {
      this.calm = setTimeout(() => {
        this.flung = false;
        this.#draw();
      }, PAUSE);
    }
    this.#draw();
  }

  /** Make the elements of the page those in and near the window. */
  #draw() {
    if (!this.rows.firsts.length) return;
    const above = -this.list.getBoundingClientRect().top;
    const from = this.rows.rowAt(above - AHEAD);
    const to = this.rows.rowAt(above + innerHeight + AHEAD);
    const places = [this.rows.firsts[from], this.rows.firsts[to + 1] ?? this.images.length];
    this.#remove((tile, at) =>
      (at < places[0] || at >= places[1]) && !tile.contains(document.activeElement));
    let next = this.list.firstElementChild;
    const unknown = [];
    for (let row = from; row <= to; row += 1) {
      for (const box of this.rows.boxes(row, this.images.ratios)) {
        while (next && next.at < box.at) next = next.nextElementSibling;
        let tile = this.tiles.get(box.at);
        if (!tile) {
          tile = this.#make(box.at);
          this.list.insertBefore(tile, next);
        }
        if (tile.row !== this.rows) this.#place(tile, box);
        if (!this.flung && !tile.childElementCount && !this.#fill(tile)) unknown.push(this.images.ids[box.at]);
      }
    }
    if (unknown.length) this.#request(unknown);
    const { ids } = this.images;
    this.ahead.want(() => ids.slice(places[1], places[1] + NEXT));
    if (to === this.rows.firsts.length - 1 && !this.images.done) this.next();
  }

  #remove(isUnwanted) {
    this.tiles.forEach((tile, at) => {
      if (!isUnwanted(tile, at)) return;
      tile.querySelector("img")?.removeAttribute("src"); // so that it is not waited for
      tile.remove();
      this.tiles.delete(at);
    });
  }

  #make(at) {
    const tile = element("li", { className: "blank", at, tabIndex: -1 });
    tile.dataset.id = this.images.ids[at];
    this.tiles.set(at, tile);
    return tile;
  }

  #place(tile, { left, top, width, height }) {
    tile.row = this.rows;
    Object.assign(tile.style, {
      left: `${left}px`, top: `${top}px`, width: `${width}px`, height: `${height}px`,
    });
  }

  /** Fill a tile with what is known of its image; return whether that is known. */
  #fill(tile) {
    const image = this.images.at(tile.at);
    if (!image) return false;
    const focused = document.activeElement === tile;
    fillTile(tile, image, {
      act: this.act,
      mayLess: this.mayLess,
      measured: (ratio) => this.#measured(tile.at, image, ratio),
    });
    tile.setAttribute("aria-posinset", tile.at + 1);
    tile.setAttribute("aria-setsize", this.images.done ? this.images.length : -1);
    this.#mark(tile);
    if (focused) tile.querySelector("a").focus({ preventScroll: true });
    return true;
  }

  #mark(tile) {
    const button = tile.querySelector(".select");
    if (!button) return;
    const selected = this.isSelected(tile.dataset.id);
    tile.classList.toggle("selected", selected);
    button.setAttribute("aria-pressed", String(selected));
  }

  /** Request the facts about images in view, unless others are awaited: then, once these are here. */
  async #request(ids) {
    if (this.asking) return;
    const asking = new AbortController();
    this.asking = asking;
    try {
      const found = await factsOf(ids, asking.signal);
      if (this.asking === asking) this.asking = null;
      if (found.length < ids.length) this.#lose(ids, found);
      this.#draw();
    } catch (error) {
      if (asking.signal.aborted) return;
      this.asking = null;
      this.failed(error);
    }
  }

  /** Mark the images that are no longer in the collection. */
  #lose(ids, found) {
    const there = new Set(found.map(({ id }) => id));
    this.tiles.forEach((tile) => {
      const { id } = tile.dataset;
      if (!tile.childElementCount && ids.includes(id) && !there.has(id)) {
        tile.append(element("span", { className: "lost" }, "This image is no longer in the collection."));
      }
    });
  }

  #measured(at, image, ratio) {
    if (this.images.at(at) !== image || Math.abs(this.images.ratios[at] - ratio) < 0.02) return;
    this.images.ratios[at] = ratio;
    this.due ??= requestAnimationFrame(() => this.#lay());
  }

  /** Scroll as far as it takes to see an image. */
  #reveal(at) {
    const row = this.rows.rowOf(at);
    const above = -this.list.getBoundingClientRect().top;
    const [top, height] = [this.rows.tops[row], this.rows.heights[row]];
    const bar = parseFloat(getComputedStyle(document.documentElement).scrollPaddingTop) || 0;
    if (top < above + bar) scrollBy(0, top - above - bar);
    else if (top + height > above + innerHeight) scrollBy(0, top + height + this.rows.gap - above - innerHeight);
  }

  #move(event) {
    const at = event.target.closest("[data-id]")?.at;
    if (at === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
    const to = {
      ArrowRight: () => at + 1,
      ArrowLeft: () => at - 1,
      ArrowDown: () => this.#vertical(at, 1),
      ArrowUp: () => this.#vertical(at, -1),
      Home: () => 0,
      End: () => this.images.length - 1,
    }[event.key]?.();
    if (to === undefined) return;
    event.preventDefault();
    if (to >= 0 && to < this.images.length) this.focus(this.images.ids[to]);
  }

  /** Return the place of the image above (-1) or below (1) another; the same at the edge. */
  #vertical(at, direction) {
    const row = this.rows.rowOf(at);
    if (!this.rows.firsts[row + direction] && row + direction !== 0) return at;
    const from = this.rows.boxes(row, this.images.ratios).find((box) => box.at === at);
    const away = (box) => Math.abs(box.left + box.width / 2 - from.left - from.width / 2);
    return this.rows.boxes(row + direction, this.images.ratios)
      .reduce((nearest, box) => (away(box) < away(nearest) ? box : nearest)).at;
  }
}
