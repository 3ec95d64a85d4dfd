/** Navigation: the address, the history, and the place in the list at each step of it. */

import { hashOf, parse } from "./state.js";

const listeners = [];

// Lists are long and filled later, so the browser would scroll to a place that does not exist yet.
history.scrollRestoration = "manual";
window.addEventListener("popstate", () => tell());

/** Return the state in the address. */
export function here() {
  return parse(location.hash);
}

/** Return the place in the list where the user left this step: {scroll, count, focus}, or null. */
export function place() {
  return history.state?.place ?? null;
}

/** Keep the place in the list for when the user comes back to this step. */
export function keepPlace(kept) {
  history.replaceState({ place: kept }, "");
}

/** Go to a state; `replace` drops the current one from the history. */
export function go(state, { replace = false } = {}) {
  const address = hashOf(state);
  if (replace || address === (location.hash || "#")) {
    history.replaceState(null, "", address);
  } else {
    history.pushState(null, "", address);
  }
  tell();
}

/** Call `listener()` whenever the state changes. */
export function onMove(listener) {
  listeners.push(listener);
}

function tell() {
  listeners.forEach((listener) => listener());
}
