/** What the page shows: a value that lives in the address, so that it can be kept and gone back to.
 *
 * #image=NAME     an image that was uploaded, by the name that the server gave it
 * #like=12        more like this image of the collection; may stand several times
 * #unlike=40      less like this one; may stand several times
 * #crop=l,t,r,b   the part of the first image that is meant, in fractions of its width and height
 * #min=0.8        leave out what is less similar
 * #recall=exact   or fast; what the collection promises unless given
 */

export const RECALLS = ["fast", "promised", "exact"];

const NOTHING = { image: null, like: [], unlike: [], crop: null, min: null, recall: "promised" };

/** Return a state: the start, with what is given in `facts` instead. */
export function stateOf(facts = {}) {
  return Object.freeze({ ...NOTHING, ...facts });
}

/** Return whether nothing is searched for, so that the collection is to be browsed. */
export function isBrowsing(state) {
  return !state.image && !state.like.length;
}

/** Return the state that an address's hash stands for; what makes no sense in it is left out. */
export function parse(hash) {
  const given = new URLSearchParams(hash.replace(/^#/, ""));
  const recall = given.get("recall");
  return stateOf({
    image: given.get("image") || null,
    like: idsIn(given.getAll("like")),
    unlike: idsIn(given.getAll("unlike")),
    crop: cropIn(given.get("crop")),
    min: numberIn(given.get("min")),
    recall: RECALLS.includes(recall) ? recall : NOTHING.recall,
  });
}

/** Return the hash of a state: the opposite of `parse`. */
export function hashOf(state) {
  const parts = new URLSearchParams();
  if (state.image) parts.append("image", state.image);
  state.like.forEach((id) => parts.append("like", id));
  state.unlike.forEach((id) => parts.append("unlike", id));
  if (state.crop) parts.append("crop", state.crop.map(rounded).join(","));
  if (state.min !== null) parts.append("min", state.min);
  if (state.recall !== NOTHING.recall) parts.append("recall", state.recall);
  return `#${parts.toString().replaceAll("%2C", ",")}`;
}

/** Return the state for more images like this one, or for a search from it if there is none. */
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

/** Return the state without an image of the collection in the question. */
export function withoutImage(state, id) {
  const rest = {
    ...state,
    like: state.like.filter((other) => other !== id),
    unlike: state.unlike.filter((other) => other !== id),
  };
  if (state.like[0] === id && !state.image) rest.crop = null;
  return settled(rest);
}

/** Return the state without the image that was uploaded. */
export function withoutUpload(state) {
  return settled({ ...state, image: null, crop: null });
}

/** Return whether a part of the first image may be asked for. */
export function mayCrop(state) {
  return Boolean(state.image) || (state.like.length === 1 && !state.unlike.length);
}

function settled(state) {
  return isBrowsing(state) ? stateOf({ recall: state.recall, min: state.min }) : stateOf(state);
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
