/** Pictures that show which parts make two images similar. */

import { element } from "./elements.js";

const EDGE = 1024; // pixels of the longer edge
const OPACITY = 0.7; // of the colour of the strongest cell
const RAMP = [[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]];

/** Return a canvas with the picture at an address, or the part `crop` of it, marked by a map if there is one.
 *
 * The map has a number for each cell, row by row: the brighter the mark, the larger its number.
 */
export async function drawn(address, map, { label, crop = null }) {
  const picture = new Image();
  picture.src = address;
  await picture.decode();
  const [left, top, right, bottom] = crop ?? [0, 0, 1, 1];
  const part = [left * picture.naturalWidth, top * picture.naturalHeight,
    (right - left) * picture.naturalWidth, (bottom - top) * picture.naturalHeight];
  const scale = Math.min(EDGE / Math.max(part[2], part[3]), 1);
  const [width, height] = [part[2], part[3]].map((edge) => Math.max(Math.round(edge * scale), 1));
  const canvas = element("canvas", { width, height, role: "img", "aria-label": label });
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  if (map) context.filter = "grayscale(60%)"; // so that the colours stand out
  context.drawImage(picture, ...part, 0, 0, width, height);
  if (!map) return canvas;
  context.filter = "none";
  context.drawImage(heat(map), 0, 0, width, height);
  return canvas;
}

/** Return a canvas with a pixel for each cell of a map; negative cells stay clear. */
function heat(map) {
  const [rows, columns] = [map.length, map[0].length];
  const canvas = element("canvas", { width: columns, height: rows });
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns, rows);
  const most = Math.max(...map.flat(), 1e-12);
  map.flat().forEach((value, at) => {
    const strength = Math.max(value, 0) / most;
    image.data.set([...colour(strength), 255 * OPACITY * strength], 4 * at);
  });
  context.putImageData(image, 0, 0);
  return canvas;
}

function colour(strength) {
  const place = strength * (RAMP.length - 1);
  const from = Math.min(Math.floor(place), RAMP.length - 2);
  return RAMP[from].map((value, n) => value + (place - from) * (RAMP[from + 1][n] - value));
}
