/** The grid of images: rows of tiles that continue as the user scrolls. */

import { justify } from "./layout.js";
import { makeTile } from "./tile.js";

const UNKNOWN = 1.5; // width / height to assume until the thumbnail has loaded
const AHEAD = "900px"; // how far below the window to load images in advance

export class Grid {
  /** `act(what, image)` is called for user actions, `next()` when more images are needed. */
  constructor(list, further, { act, next }) {
    this.list = list;
    this.further = further;
    this.act = act;
    this.images = [];
    this.ratios = [];
    this.width = 0;
    further.addEventListener("click", next);
    list.addEventListener("keydown", (event) => this.#move(event));
    new ResizeObserver(() => list.clientWidth !== this.width && this.#lay()).observe(list);
    this.near = new IntersectionObserver(
      // Several entries may arrive at once, oldest first: the last one is current.
      (entries) => entries.at(-1).isIntersecting && !further.hidden && next(),
      { rootMargin: AHEAD });
  }

  /** Remove all images. */
  clear() {
    this.images = [];
    this.ratios = [];
    this.list.replaceChildren();
    this.offer(false);
  }

  /** Append images. */
  add(images, { mayLess }) {
    for (const image of images) {
      const at = this.images.push(image) - 1;
      this.ratios.push(image.width && image.height ? image.width / image.height : UNKNOWN);
      const measured = (ratio) => this.#measured(at, image, ratio);
      this.list.append(makeTile(image, { act: this.act, measured, mayLess }));
    }
    this.#lay();
  }

  /** Set whether there are more images to load. */
  offer(more) {
    this.further.hidden = !more;
    this.near.unobserve(this.further); // observing it again reports it even if it stayed in view
    if (more) this.near.observe(this.further);
  }

  /** Focus the image with an id, or else the first; return whether there was one to focus. */
  focus(id) {
    const tile = this.list.querySelector(`[data-id="${CSS.escape(id)}"]`) ?? this.list.firstElementChild;
    tile?.querySelector("a").focus({ preventScroll: Boolean(id) });
    return Boolean(tile);
  }

  #measured(at, image, ratio) {
    if (this.images[at] !== image || Math.abs(this.ratios[at] - ratio) < 0.02) return;
    this.ratios[at] = ratio;
    this.due ??= requestAnimationFrame(() => this.#lay());
  }

  #lay() {
    this.due = undefined;
    this.width = this.list.clientWidth;
    if (!this.width) return;
    const gap = parseFloat(getComputedStyle(this.list).columnGap) || 0;
    const target = this.width < 700 ? 150 : this.width < 1500 ? 210 : 250;
    justify(this.ratios, { width: this.width, target, gap }).forEach((size, at) => {
      const { style } = this.list.children[at];
      style.width = `${size.width}px`;
      style.height = `${size.height}px`;
    });
  }

  #move(event) {
    const tiles = [...this.list.children];
    const at = tiles.indexOf(event.target.closest(".tile"));
    const to = {
      ArrowRight: at + 1,
      ArrowLeft: at - 1,
      ArrowDown: vertical(tiles, at, 1),
      ArrowUp: vertical(tiles, at, -1),
      Home: 0,
      End: tiles.length - 1,
    }[event.key];
    if (to === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    tiles[to]?.querySelector("a").focus();
  }
}

/** Return the index of the tile above (-1) or below (1) another. */
function vertical(tiles, at, direction) {
  const from = tiles[at];
  const middle = from.offsetLeft + from.offsetWidth / 2;
  let found = at;
  let row = null;
  for (let to = at + direction; tiles[to]; to += direction) {
    if (tiles[to].offsetTop === from.offsetTop) continue;
    row ??= tiles[to].offsetTop;
    if (tiles[to].offsetTop !== row) break;
    if (found === at || away(tiles[to], middle) < away(tiles[found], middle)) found = to;
  }
  return found;
}

function away(tile, middle) {
  return Math.abs(tile.offsetLeft + tile.offsetWidth / 2 - middle);
}
