/** Talk to the server; see /openapi.json. */

import { filtersOf, isPicture } from "./state.js";

const API = "api/v1"; // relative: a reverse proxy may serve the page below a path

/** Ids are kept as text, as those of Milvus are too large for JavaScript's numbers. */
const ID = /"id": ?(\d+)/g;
const IDS = /"ids": ?\[[^\]]*\]/;

/** The recall@10 that each choice asks for; null for the one that the collection promises. */
const RECALL = { fast: 0.8, promised: null, exact: null };

/** The fields of the filters whose names differ. */
const FIELDS = { after: "date_after", before: "date_before" };

/** A request that the server refused, with its reason. */
export class Refused extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

/** A server that does not answer. */
export class Unreachable extends Error {}

export const original = (id) => `${API}/images/${id}/original`;
export const thumbnail = (id, size) => `${API}/images/${id}/thumbnail?size=${size}`;
export const facts = (id, signal) => ask(`/images/${id}`, { signal });
export const exif = (id, { location = false } = {}) => ask(`/images/${id}/exif?location=${location}`);
export const archive = (ids) => `${API}/archive?ids=${ids.join(",")}`;
export const facets = () => ask("/facets", { cache: "no-store" });
export const info = () => ask("/info", { cache: "no-store" });

/** Return the first images that pass the filters of a state, in its order. */
export function browse(state, limit, signal) {
  return ask(`/images?${listing(state, { limit })}`, { signal });
}

/** Return ids and sizes of the images after one that pass the filters of a state, in its order. */
export function layout(state, after, limit, signal) {
  return ask(`/layout?${listing(state, { after, limit })}`, { signal });
}

/** Return the months of the images that pass the filters of a state, in its order. */
export function timeline(state, signal) {
  return ask(`/timeline?${listing(state, {})}`, { signal });
}

/** Return the map of the collection. */
export const map = (signal) => ask("/map", { signal });

/** Begin to make the map, or to bring it up to date, end that, or return how far it is. */
export const makeMap = () => ask("/map/job", { method: "PUT" });
export const cancelMap = () => ask("/map/job", { method: "DELETE" });
export const makingMap = () => ask("/map/job", { cache: "no-store" });

/** Return the images with some ids. */
export function byId(ids, signal) {
  return ask(`/images?ids=${ids.join(",")}`, { signal });
}

/** Take images out of the collection. */
export function remove(ids, { keepalive }) {
  return ask(`/images?ids=${ids.join(",")}`, { method: "DELETE", keepalive });
}

/** Return the folders in one below the home folder, by default in the home folder itself. */
export const folders = (path) => ask(`/folders?${new URLSearchParams({ path })}`, { cache: "no-store" });

/** Begin to index a folder, end that, or return how far it is. */
export const startIndexing = (folder) => ask(`/index?${new URLSearchParams({ folder })}`, { method: "PUT" });
export const cancelIndexing = () => ask("/index", { method: "DELETE" });
export const indexing = () => ask("/index", { cache: "no-store" });

/** Return how far the search for duplicates is, and what the latest one found. */
export const duplicates = () => ask("/duplicates", { cache: "no-store" });

/** Begin to search for duplicates, or cancel what is running. */
export const findDuplicates = () => ask("/duplicates", { method: "PUT" });
export const cancelDuplicates = () => ask("/duplicates", { method: "DELETE" });

/** Return groups of the result `found` that come after the one with a number. */
export function groups(found, after, limit) {
  return ask(`/duplicates/groups?${new URLSearchParams({ found, after, limit })}`, { cache: "no-store" });
}

/** Begin to move copies of the result `found` to the trash. */
export function trash(found, ids) {
  return ask(`/duplicates/copies?found=${found}&ids=${ids.join(",")}`, { method: "DELETE" });
}

/** Remember that no two of some images are copies, or forget it. */
export function judge(ids, { forget }) {
  return ask(`/duplicates/judgements?ids=${ids.join(",")}`, { method: forget ? "DELETE" : "PUT" });
}

/** Ask for the images most similar to the query in a state.
 *
 * `file` is the first picture; without it, the server must know the name in `state.image`.
 */
export function query(state, { file = null, k, offset = 0, signal }) {
  const form = new FormData();
  if (file) form.append("image", file, file.name || "image");
  else if (state.image) form.append("embedding", state.image);
  state.also.forEach((name) => form.append("embedding", name));
  if (state.text) form.append("text", state.text);
  state.like.forEach((id) => form.append("like", id));
  state.unlike.forEach((id) => form.append("like", `${id}:-1`));
  if (state.crop && (file || !state.image)) form.append("crop", state.crop.join(","));
  if (state.band) form.append("min_band", state.band);
  const alone = isPicture({ ...state, image: state.image ?? file });
  if (state.verify && alone && (file || !state.image)) form.append("verify", "true");
  if (state.min !== null) form.append("min_similarity", state.min);
  if (RECALL[state.recall] !== null) form.append("recall", RECALL[state.recall]);
  if (state.recall === "exact") form.append("exact", "true");
  if (state.versions === "folded") form.append("fold", "true");
  Object.entries(fieldsOf(state)).forEach(([name, value]) => form.append(name, value));
  form.append("k", k);
  form.append("offset", offset);
  return ask("/query", { method: "POST", body: form, signal });
}

/** Ask which parts make an image of the collection, `hit`, similar to a picture.
 *
 * The picture is a file, or the image with an id; `crop` is the part of it that was searched for.
 */
export function explain({ file, id, crop }, hit, signal) {
  const form = new FormData();
  if (file) form.append("image", file, file.name || "image");
  else form.append("like", id);
  if (crop) form.append("crop", crop.join(","));
  form.append("hit", hit);
  return ask("/explain", { method: "POST", body: form, signal });
}

/** Make the server forget that this browser has shown the token. */
export const logOut = () => fetch("logout", { method: "POST" });

/** Return in a sentence why the server does not deliver the file at an address. */
export async function whyNot(address) {
  try {
    const response = await fetch(address, { cache: "no-store" });
    return response.ok ? "This browser cannot show it." : await detailOf(response);
  } catch {
    return "The server does not answer.";
  }
}

function listing(state, page) {
  const reverse = state.sort.startsWith("-");
  return new URLSearchParams({ sort: state.sort.replace("-", ""), reverse, ...page, ...fieldsOf(state) });
}

function fieldsOf(state) {
  return Object.fromEntries(filtersOf(state).map(([name, value]) => [FIELDS[name] ?? name, value]));
}

async function ask(path, options) {
  let response;
  try {
    response = await fetch(API + path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Unreachable("The server does not answer.");
  }
  if (!response.ok) throw new Refused(response.status, await detailOf(response));
  const text = await response.text();
  return JSON.parse(text.replace(IDS, (ids) => ids.replace(/\d+/g, '"$&"')).replace(ID, '"id":"$1"'));
}

async function detailOf(response) {
  try {
    const problem = await response.json();
    return problem.detail || problem.title;
  } catch {
    return `The server answered with ${response.status} ${response.statusText}.`;
  }
}
