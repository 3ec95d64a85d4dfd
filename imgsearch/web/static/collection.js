/** A cache of the facts about images, so that each image is requested only once. */

import * as api from "./api.js";
import { fileName } from "./elements.js";

const seen = new Map();

/** Remember the images in a response. */
export function remember(images) {
  images.forEach((image) => seen.set(image.id, image));
}

/** Return the name of an image's file; a placeholder if the image no longer exists. */
export async function nameOf(id) {
  try {
    if (!seen.has(id)) seen.set(id, await api.facts(id));
    return fileName(seen.get(id).path);
  } catch {
    return `image ${id}`;
  }
}
