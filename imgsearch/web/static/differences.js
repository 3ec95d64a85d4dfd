/** Pictures laid over one another, and where they differ. */

import { element } from "./elements.js";

const EDGE = 1024; // pixels of the longer edge
const LEAST = 14; // levels of grey that encoders change
const FULL = 60; // levels of grey from which on a difference is lit fully
const LIT = [255, 72, 24];

/** Return a canvas with a picture, at most EDGE pixels in its longer edge. */
export function drawn(picture) {
  const scale = Math.min(EDGE / Math.max(picture.naturalWidth, picture.naturalHeight), 1);
  return turned(picture, 0, Math.max(Math.round(picture.naturalWidth * scale), 1),
    Math.max(Math.round(picture.naturalHeight * scale), 1));
}

/** Return a canvas of a size with a picture, turned as the orientation of a copy says.
 *
 * The bits are: 1 to reverse the columns, 2 to reverse the rows, 4 to transpose after that.
 */
export function turned(picture, orientation, width, height) {
  const canvas = element("canvas", { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const [across, down] = orientation & 4 ? [height, width] : [width, height];
  if (orientation & 4) context.transform(0, 1, 1, 0, 0, 0);
  if (orientation & 2) context.transform(1, 0, 0, -1, 0, down);
  if (orientation & 1) context.transform(-1, 0, 0, 1, across, 0);
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, 0, 0, across, down);
  return canvas;
}

/** Draw a line around a part of a canvas: left, top, right, bottom, 0 to 1. */
export function outline(canvas, [left, top, right, bottom]) {
  const context = canvas.getContext("2d");
  const { width, height } = canvas;
  const thin = Math.max(width, height) / 200;
  for (const [line, colour] of [[3 * thin, "#000"], [1.5 * thin, "#fff"]]) {
    Object.assign(context, { lineWidth: line, strokeStyle: colour });
    context.strokeRect(left * width, top * height, (right - left) * width, (bottom - top) * height);
  }
}

/** Return a canvas with the second of two canvases of one size in grey, and lit where it differs.
 *
 * A change of the brightness or the contrast of the whole picture is no difference.
 */
export function differences(one, other) {
  const { width, height } = one;
  const [kept, copy] = [one, other].map((canvas) =>
    greys(canvas.getContext("2d").getImageData(0, 0, width, height).data));
  const fitted = fit(copy, kept);
  const canvas = element("canvas", { width, height });
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  let lit = 0;
  for (let at = 0; at < copy.length; at += 1) {
    const apart = Math.abs(fitted(copy[at]) - kept[at]);
    const strength = Math.min(Math.max((apart - LEAST) / (FULL - LEAST), 0), 1);
    const grey = 0.55 * copy[at] + 40;
    if (apart > LEAST) lit += 1;
    for (let c = 0; c < 3; c += 1) image.data[4 * at + c] = grey + strength * (LIT[c] - grey);
    image.data[4 * at + 3] = 255;
  }
  context.putImageData(image, 0, 0);
  return { canvas, share: lit / copy.length };
}

function greys(data) {
  const grey = new Float32Array(data.length / 4);
  for (let at = 0; at < grey.length; at += 1) {
    grey[at] = 0.299 * data[4 * at] + 0.587 * data[4 * at + 1] + 0.114 * data[4 * at + 2];
  }
  return grey;
}

/** Return the line that brings the levels of one picture nearest to those of another. */
function fit(from, to) {
  const count = from.length;
  let [x, y, xx, xy] = [0, 0, 0, 0];
  for (let at = 0; at < count; at += 1) {
    x += from[at];
    y += to[at];
    xx += from[at] * from[at];
    xy += from[at] * to[at];
  }
  const spread = xx - (x * x) / count;
  const gain = spread > count ? (xy - (x * y) / count) / spread : 1;
  return (level) => (level - x / count) * gain + y / count;
}
