/** What is known of an image: when it was taken, with what, its size, and where it is. */

import { element, folderOf } from "./elements.js";
import { bytes, inWords, rounded } from "./numbers.js";

/** Return a list of the facts about an image, with its `exif` if that is known.
 *
 * `openFolder(event)` is called to see its folder, `locate()` to see where it was taken.
 */
export function information(image, { openFolder, locate }) {
  const { path, taken, mtime, camera, exif, width, height, size } = image;
  const pixels = width && height
    ? `${width} × ${height}${width * height >= 1e6 ? ` (${(width * height / 1e6).toFixed(1)} MP)` : ""}` : "";
  const rows = [
    ...similarity(image),
    ["Date", taken ? moment(new Date(taken)) : mtime ? `${moment(new Date(mtime * 1000))} (of the file)` : ""],
    ["Camera", camera],
    ["Lens", exif?.lens],
    ["Exposure", exif && exposure(exif)],
    ["Size", [pixels, size === undefined ? "" : bytes(size)].filter(Boolean).join(", ")],
    ["Folder", element("button", { type: "button", className: "folder", title: "Show this folder",
      "aria-label": `Show this folder: ${folderOf(path)}`, onclick: openFolder }, folderOf(path))],
    ["Path", element("span", { className: "path" }, path)],
    ["Location", exif?.located && location(exif, locate)],
  ];
  return element("dl", { className: "information" }, ...rows.filter(([, value]) => value).map(([name, value]) =>
    element("div", {}, element("dt", {}, name), element("dd", {}, value))));
}

/** Return what the similarity of a hit means, with its numbers folded away where that is known. */
function similarity(image) {
  const { similarity: value, distance, band, inliers } = image;
  if (value === undefined) return [];
  const agree = inliers ? `, ${inliers.toLocaleString("en")} details agree` : "";
  const numbers = `similarity ${rounded(value, 4)}, distance ${distance.toFixed(4)}${agree}`;
  if (!band) return [["Similarity", numbers.replace("similarity ", "")]];
  return [["Similarity", element("details", {}, element("summary", {}, inWords(image)), numbers)]];
}

/** Return how long, and how wide and far open: "1/250 s, f/2.8, ISO 100, 50 mm". */
function exposure({ exposure: seconds, aperture, iso, focal_length: length }) {
  const plain = (value) => Number(value.toFixed(1)).toLocaleString("en");
  return [
    seconds && (seconds < 0.3 ? `1/${Math.round(1 / seconds)} s` : `${plain(seconds)} s`),
    aperture && `f/${plain(aperture)}`, iso && `ISO ${iso}`, length && `${plain(length)} mm`,
  ].filter(Boolean).join(", ");
}

/** Return where an image was taken, or a button that asks for that: others may be looking on. */
function location({ latitude, longitude }, locate) {
  if (latitude === null) return element("button", { type: "button", className: "reveal", onclick: locate }, "Show the location");
  const degrees = (value, [positive, negative]) => `${Math.abs(value).toFixed(5)}° ${value < 0 ? negative : positive}`;
  return element("span", { className: "path" }, `${degrees(latitude, "NS")}, ${degrees(longitude, "EW")}`);
}

function moment(date) {
  return date.toLocaleString("en", { dateStyle: "long", timeStyle: "short" });
}
