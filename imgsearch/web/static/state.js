/** The state of the page, which is kept in the address so that users can bookmark or go back to it.
 *
 * #image=NAME     an uploaded image, by the name that the server gave it; may be repeated
 * #text=snow      words to search for, if the network of the collection knows words
 * #like=12        more like this image of the collection; may be repeated
 * #unlike=40      less like this one; may be repeated
 * #crop=l,t,r,b   the part of the first image to search for, in fractions of width and height
 * #band=similar   leave out what is less similar; or "same thing"
 * #verify=true    compare details, so that the very picture comes first
 * #min=0.8        leave out images whose similarity is a lower number
 * #recall=exact   or fast; by default, the recall that the collection promises
 * #versions=all   show every version of a picture; by default, one stands for all
 * #sort=-date     the order in which the collection is shown; - reverses it
 * #view=duplicates   the duplicates, instead of the images
 * #view=map       the images as a map, on which hits and those that pass the filters are lit
 * #name=, #folder=, #after=, #before=, #format=, #size=, #camera=   filters, as in /openapi.json
 */

export const RECALLS = ["fast", "promised", "exact"];
export const BANDS = ["similar", "same thing"];

/** The filters, with what the page calls them. */
export const FILTERS = {
  name: "Name", folder: "Folder", after: "From", before: "Before",
  format: "Format", size: "Size", camera: "Camera",
};

const VIEWS = ["duplicates", "map"];
const SORT = /^-?(added|date|name|path|size)$/;

const REFINEMENTS = {
  band: "", min: null, recall: "promised", versions: "folded", sort: "added",
  ...Object.fromEntries(Object.keys(FILTERS).map((name) => [name, ""])),
};
const MOST = 50; // uploads of a search, as the server accepts
const MOST_TEXT = 1_000; // characters, as on the server
const NOTHING = { view: "", text: "", image: null, also: [], like: [], unlike: [], crop: null, verify: false, ...REFINEMENTS };

/** Return the initial state, with the properties in `facts` replaced. */
export function stateOf(facts = {}) {
  return Object.freeze({ ...NOTHING, ...facts });
}

/** Return whether there is no query, so that the page browses the collection. */
export function isBrowsing(state) {
  return !state.image && !state.like.length && !state.text;
}

/** Return what a search keeps when the next one begins: its filters and options, and the map. */
export function refinements(state) {
  const view = state.view === "map" ? "map" : "";
  return { view, ...Object.fromEntries(Object.keys(REFINEMENTS).map((name) => [name, state[name]])) };
}

/** Return the filters of a state that are in use: [[name, value], ...]. */
export function filtersOf(state) {
  return Object.keys(FILTERS).filter((name) => state[name]).map((name) => [name, state[name]]);
}

/** Parse the state from an address's hash, ignoring parts that make no sense. */
export function parse(hash) {
  const given = new URLSearchParams(hash.replace(/^#/, ""));
  const recall = given.get("recall");
  const [image = null, ...also] = [...new Set(given.getAll("image").filter(Boolean))].slice(0, MOST);
  return stateOf({
    view: VIEWS.includes(given.get("view")) ? given.get("view") : "",
    text: (given.get("text") ?? "").trim().slice(0, MOST_TEXT),
    image,
    also,
    like: idsIn(given.getAll("like")),
    unlike: idsIn(given.getAll("unlike")),
    crop: cropIn(given.get("crop")),
    band: BANDS.includes(given.get("band")) ? given.get("band") : NOTHING.band,
    verify: given.get("verify") === "true",
    min: numberIn(given.get("min")),
    recall: RECALLS.includes(recall) ? recall : NOTHING.recall,
    versions: given.get("versions") === "all" ? "all" : NOTHING.versions,
    sort: SORT.test(given.get("sort")) ? given.get("sort") : NOTHING.sort,
    ...Object.fromEntries(Object.keys(FILTERS).map((name) => [name, given.get(name) ?? ""])),
  });
}

/** Return the hash of a state: the inverse of `parse`. */
export function hashOf(state) {
  const parts = new URLSearchParams();
  if (state.view) parts.append("view", state.view);
  if (state.text) parts.append("text", state.text);
  uploadsOf(state).forEach((name) => parts.append("image", name));
  state.like.forEach((id) => parts.append("like", id));
  state.unlike.forEach((id) => parts.append("unlike", id));
  if (state.crop) parts.append("crop", state.crop.map(rounded).join(","));
  if (state.band) parts.append("band", state.band);
  if (state.verify) parts.append("verify", "true");
  if (state.min !== null) parts.append("min", state.min);
  if (state.recall !== NOTHING.recall) parts.append("recall", state.recall);
  if (state.versions !== NOTHING.versions) parts.append("versions", state.versions);
  if (state.sort !== NOTHING.sort) parts.append("sort", state.sort);
  filtersOf(state).forEach(([name, value]) => parts.append(name, value));
  return `#${parts.toString().replaceAll("%2C", ",")}`;
}

/** Return the state for more images like this one; it starts a search if there is none. */
export function withLike(state, id) {
  const without = withoutImage(state, id);
  return stateOf({ ...without, like: [...without.like, id], crop: cropIfAlone(without) });
}

/** Return the state for fewer images like this one. */
export function withUnlike(state, id) {
  const without = withoutImage(state, id);
  if (isBrowsing(without)) return without;
  return stateOf({ ...without, unlike: [...without.unlike, id], crop: cropIfAlone(without) });
}

/** Return the state with an image of the collection removed from the query. */
export function withoutImage(state, id) {
  const rest = {
    ...state,
    like: state.like.filter((other) => other !== id),
    unlike: state.unlike.filter((other) => other !== id),
  };
  if (state.like[0] === id && !state.image) rest.crop = null;
  return settled(rest);
}

/** Return the state with other words; without any, they are no longer searched for. */
export function withText(state, text) {
  return settled({ ...state, view: "", text: text.trim(), crop: cropIfAlone(state) });
}

/** Return the names of the uploaded images of a state. */
export function uploadsOf({ image, also }) {
  return image ? [image, ...also] : [];
}

/** Return the state without an uploaded image. */
export function withoutUpload(state, name) {
  const [image = null, ...also] = uploadsOf(state).filter((other) => other !== name);
  return settled({ ...state, image, also, crop: name === state.image ? null : state.crop });
}

/** Return whether the query is a single picture, or a part of one. */
export function isPicture(state) {
  const { like, unlike, text } = state;
  return !text && !unlike.length && like.length + uploadsOf(state).length === 1;
}

/** Return whether the query may be limited to a part of the first image. */
export function mayCrop(state) {
  return Boolean(state.image) || (state.like.length === 1 && !state.unlike.length && !state.text);
}

function settled(state) {
  return stateOf(isBrowsing(state) ? refinements(state) : state);
}

function cropIfAlone(state) {
  return state.image ? state.crop : null;
}

function rounded(value) {
  return Number(value.toFixed(4));
}

function idsIn(texts) {
  return [...new Set(texts.filter((text) => /^\d{1,19}$/.test(text)))];
}

function numberIn(text) {
  const value = text ? Number(text) : NaN;
  return value >= -1 && value <= 1 ? value : null;
}

function cropIn(text) {
  const box = (text ?? "").split(",").map(Number);
  const [left, top, right, bottom] = box;
  const sound = box.length === 4 && left >= 0 && top >= 0 && right <= 1 && bottom <= 1;
  return sound && left < right && top < bottom ? box : null;
}
