/** Sources of images, loaded page by page.
 *
 * `next(count, signal)` returns {ids, sizes(at), hits, done, search, total}; `hits` are the facts
 * about the images, null if they have to be requested.
 */

import * as api from "./api.js";
import { remember } from "./collection.js";
import { find } from "./pictures.js";

export const PAGE = 60; // hits of the first page
export const MOST = 200_000; // images in a list: browsers cannot show a higher page than theirs
const FIRST = 500; // so that the first images are there at once
const SEEN = 60; // of these, so many are seen at first
const AT_ONCE = 50_000; // ids and sizes of a response

/** Return the source of all images that pass the filters of a state. */
export function browsing(state) {
  let after = "0";
  let shown = 0;
  return async (_, signal) => {
    const limit = Math.min(shown ? AT_ONCE : FIRST, MOST - shown);
    const [page, first] = await Promise.all([
      api.layout(state, after, limit, signal),
      shown ? null : api.browse(state, SEEN, signal),
    ]);
    if (first) remember(first.images);
    const { ids, widths, heights, total } = page;
    after = ids.at(-1) ?? after;
    shown += ids.length;
    const done = ids.length < limit || shown >= MOST;
    const sizes = (at) => [widths[at], heights[at]];
    return { ids, sizes, hits: null, done, search: null, total };
  };
}

/** Return the source of the hits for a state; `first` is the first page, if already known. */
export function asking(state, first = null) {
  let offset = 0;
  let known = first;
  return async (count, signal) => {
    const k = known ? PAGE : count;
    const file = state.verify && state.image && !known ? await find(state.image) : null; // whose pixels are compared
    const answer = known ?? (await api.query(state, { file, k, offset, signal }));
    known = null;
    const { hits } = answer;
    offset += hits.length;
    remember(hits);
    const sizes = (at) => [hits[at].width, hits[at].height];
    return { ids: hits.map(({ id }) => id), sizes, hits, done: hits.length < k, search: answer, total: null };
  };
}
