/** Sources of images, loaded page by page: `next(count, signal)` returns {images, done, search}. */

import * as api from "./api.js";

/** Return the source of all images of the collection, in the order in which they were added. */
export function browsing() {
  let after = 0;
  return async (count, signal) => {
    const { images } = await api.browse(after, count, signal);
    after = images.at(-1)?.id ?? after;
    return { images, done: images.length < count, search: null };
  };
}

/** Return the source of the hits for a state; `first` is the first page, if already known. */
export function asking(state, first = null) {
  let offset = 0;
  let known = first;
  return async (count, signal) => {
    const answer = known ?? (await api.query(state, { k: count, offset, signal }));
    known = null;
    offset += answer.hits.length;
    return { images: answer.hits, done: answer.hits.length < count, search: answer };
  };
}
