/** Thumbnails of the grid: in one size, fit for the screen, and made ahead while the page is idle. */

import { thumbnail } from "./api.js";

const EDGES = [256, 512, 768]; // pixels of the longer edge, as the server makes them
const WIDE = 1.5; // width / height of most images
const SOFT = 1.2; // times that a thumbnail may be enlarged
const CALM = 400; // milliseconds without scrolling
const MOST = 2_000; // images to remember

/** Return the height to aim at for rows of a grid of some width, in pixels of the page. */
export function rowHeight(width) {
  return width < 700 ? 150 : width < 1500 ? 210 : 250;
}

/** Return the address of the thumbnail of an image that is sharp in the grid on this screen. */
export function fitting(id) {
  const wanted = rowHeight(innerWidth) * WIDE * devicePixelRatio / SOFT;
  return thumbnail(id, EDGES.find((edge) => edge >= wanted) ?? EDGES.at(-1));
}

/** Requests thumbnails that are likely to be seen next, so that the server makes them and the browser has them. */
export class Ahead {
  /** `ready()` is a promise that there is nothing more urgent. */
  constructor(ready) {
    this.ready = ready;
    this.done = new Set(); // addresses
    document.addEventListener("visibilitychange", () => (document.hidden ? this.stop() : this.want(this.ids)));
  }

  /** Request the thumbnails of some images, in their order, instead of others; `ids()` returns them. */
  want(ids) {
    this.stop();
    this.ids = ids;
    if (ids && !document.hidden && !navigator.connection?.saveData) this.timer = setTimeout(() => this.#request(ids()), CALM);
  }

  /** Begin no other request; the current one goes on, as what it has cost would be lost. */
  stop() {
    clearTimeout(this.timer);
    this.turn = null;
  }

  async #request(ids) {
    const turn = (this.turn = {});
    await this.ready();
    for (const address of ids.map(fitting)) {
      if (this.turn !== turn) return;
      if (this.done.has(address)) continue;
      if (this.done.size >= MOST) this.done.clear();
      try {
        await (await fetch(address, { priority: "low" })).blob();
        this.done.add(address);
      } catch {
        return; // the server does not answer
      }
    }
  }
}
