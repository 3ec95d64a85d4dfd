/** The thumbnails on the map, of which a limited number is held. */

import { thumbnail } from "./api.js";

const HELD = 500; // of the latest
const CALM = 120; // milliseconds without a movement, after which thumbnails are requested

export class Thumbnails {
  /** `arrived()` is called when one can be drawn. */
  constructor(arrived) {
    this.arrived = arrived;
    this.held = new Map(); // pictures by id, the latest last
  }

  /** Return a picture that can be drawn; null if it is on its way, undefined if there is none. */
  get(id) {
    const picture = this.held.get(id);
    if (!picture) return null;
    if (!picture.complete) return null;
    return picture.naturalWidth ? picture : undefined;
  }

  /** Request those of some images once these stay in view, and let others go. */
  settle(ids) {
    clearTimeout(this.timer);
    for (const id of ids.filter((each) => this.held.has(each))) {
      const picture = this.held.get(id);
      this.held.delete(id);
      this.held.set(id, picture);
    }
    this.timer = setTimeout(() => this.#request(ids), CALM);
  }

  #request(ids) {
    for (const id of ids.filter((each) => !this.held.has(each))) {
      const picture = new Image();
      picture.onload = picture.onerror = () => this.arrived();
      picture.src = thumbnail(id, 256);
      this.held.set(id, picture);
    }
    for (const [id, picture] of this.held) {
      if (this.held.size <= HELD) break;
      if (!picture.complete) picture.removeAttribute("src"); // it is not waited for
      this.held.delete(id);
    }
  }
}
