/** The picture of a search beside one of its hits, and which parts make them similar. */

import * as api from "./api.js";
import { element, fileName } from "./elements.js";
import { drawn } from "./explain.js";

const EDGE = 2048; // pixels of the longer edge of a thumbnail that shows all of an image

/** Return an element that shows a picture, as `api.explain` takes it, beside an image of its hits.
 *
 * With `marks`, the parts that make them similar are marked in both.
 */
export async function beside(query, image, { marks }) {
  const found = marks ? await api.explain(query, image.id) : null;
  const address = query.file ? URL.createObjectURL(query.file) : api.thumbnail(query.id, EDGE);
  const name = fileName(image.path);
  const labels = marks ? ["What you searched with, its parts marked", `${name}, its parts marked`] : ["What you searched with", name];
  try {
    const halves = await Promise.all([
      drawn(address, found?.query_map, { label: labels[0], crop: query.crop }),
      drawn(api.thumbnail(image.id, EDGE), found?.hit_map, { label: labels[1] }),
    ]);
    const tags = ["Searched with", "Found"].map((tag) => element("span", { className: "tag", "aria-hidden": "true" }, tag));
    return element("figure", { className: "explained" },
      ...halves.map((half, at) => element("div", {}, half, tags[at])),
      ...(marks ? [element("figcaption", {}, "The brightest parts contribute most to the similarity.")] : []));
  } catch (error) {
    throw error.name === "EncodingError" ? new Error("This browser cannot show one of the two pictures.") : error;
  } finally {
    if (query.file) URL.revokeObjectURL(address);
  }
}
