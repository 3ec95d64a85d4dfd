/** What is known of an image: when it was taken, with what, its size, and where it is. */

import { element, folderOf } from "./elements.js";
import { bytes, inWords, rounded } from "./numbers.js";

/** Return a list of the facts about an image; `openFolder(event)` is called to see its folder. */
export function information(image, { openFolder }) {
  const { path, taken, mtime, camera, width, height, size } = image;
  const pixels = width && height
    ? `${width} × ${height}${width * height >= 1e6 ? ` (${(width * height / 1e6).toFixed(1)} MP)` : ""}` : "";
  const rows = [
    ...similarity(image),
    ["Date", taken ? moment(new Date(taken)) : mtime ? `${moment(new Date(mtime * 1000))} (of the file)` : ""],
    ["Camera", camera],
    ["Size", [pixels, size === undefined ? "" : bytes(size)].filter(Boolean).join(", ")],
    ["Folder", element("button", { type: "button", className: "folder", title: "Show this folder",
      "aria-label": `Show this folder: ${folderOf(path)}`, onclick: openFolder }, folderOf(path))],
    ["Path", element("span", { className: "path" }, path)],
  ];
  return element("dl", { className: "information" }, ...rows.filter(([, value]) => value).map(([name, value]) =>
    element("div", {}, element("dt", {}, name), element("dd", {}, value))));
}

/** Return what the similarity of a hit means, with its numbers folded away where that is known. */
function similarity(image) {
  const { similarity: value, distance, band } = image;
  if (value === undefined) return [];
  const numbers = `similarity ${rounded(value, 4)}, distance ${distance.toFixed(4)}`;
  if (!band) return [["Similarity", numbers.replace("similarity ", "")]];
  return [["Similarity", element("details", {}, element("summary", {}, inWords(image)), numbers)]];
}

function moment(date) {
  return date.toLocaleString("en", { dateStyle: "long", timeStyle: "short" });
}
