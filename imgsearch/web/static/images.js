/** The images of a search, or of the collection: their order and shapes, and what is known of them. */

import { known } from "./collection.js";

const UNKNOWN = 1.5; // width / height to assume until the thumbnail has loaded

export class Images {
  /** `source(count, signal)` returns the next images: see sources.js. */
  constructor(source) {
    this.source = source;
    this.ids = [];
    this.ratios = []; // width / height
    this.hits = []; // the facts, if they came with the images
    this.done = false;
    this.search = null;
    this.total = null; // number of images once all are here, if that is known
  }

  get length() {
    return this.ids.length;
  }

  /** Return the facts about the image at a place, if they are known. */
  at(place) {
    return this.hits[place] ?? known(this.ids[place]);
  }

  /** Show some images no longer; `ids` is a set. */
  drop(ids) {
    const stay = this.ids.map((id) => !ids.has(id));
    for (const name of ["ids", "ratios", "hits"]) {
      this[name] = this[name].filter((_, at) => stay[at]);
    }
    if (this.total !== null) this.total -= stay.length - this.ids.length;
  }

  /** Request about `count` more images. */
  async more(count, signal) {
    const { ids, sizes, hits, done, search, total } = await this.source(count, signal);
    if (signal.aborted) return;
    ids.forEach((id, at) => {
      const [width, height] = sizes(at);
      this.ids.push(id);
      this.ratios.push(width && height ? width / height : UNKNOWN);
    });
    if (hits) this.hits.push(...hits);
    Object.assign(this, { done, search, total });
  }
}
