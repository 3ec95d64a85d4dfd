/** Take lists of images out of the page. */

import { element } from "./elements.js";

const FIELDS = ["id", "path", "similarity", "band"];

/** Return images as CSV (RFC 4180). */
export function csv(images) {
  const rows = [...images].map((image) => FIELDS.map((field) => cell(image[field] ?? "")));
  return [FIELDS, ...rows].map((row) => `${row.join(",")}\r\n`).join("");
}

/** Return images as JSON; ids are text, as they may be too large for a number. */
export function json(images) {
  const items = [...images].map((image) =>
    Object.fromEntries(FIELDS.map((field) => [field, image[field] ?? null])));
  return `${JSON.stringify(items, null, 2)}\n`;
}

/** Return the paths of images, one a line. */
export function paths(images) {
  return [...images].map(({ path }) => `${path}\n`).join("");
}

/** Copy a text to the clipboard. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch { // only available to pages served from this machine or over TLS
    const field = element("textarea", { value: text });
    (document.querySelector("dialog[open]") ?? document.body).append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
  }
}

/** Save a text as a file. */
export function save(name, text) {
  const address = URL.createObjectURL(new Blob([text]));
  element("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address)); // once the browser has begun to save it
}

function cell(value) {
  const text = String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
