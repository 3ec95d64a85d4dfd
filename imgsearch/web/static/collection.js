/** What is known of the images of the collection, so that each is asked for once. */

import * as api from "./api.js";
import { fileName } from "./elements.js";

const seen = new Map();

/** Remember images that came with an answer. */
export function remember(images) {
  images.forEach((image) => seen.set(image.id, image));
}

/** Return the name of an image's file; a stand-in if the image is no longer there. */
export async function nameOf(id) {
  try {
    if (!seen.has(id)) seen.set(id, await api.facts(id));
    return fileName(seen.get(id).path);
  } catch {
    return `image ${id}`;
  }
}
