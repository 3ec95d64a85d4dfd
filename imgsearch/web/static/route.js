/** Where the page is: the address, the way back, and the place in the list on each step of it. */

import { hashOf, parse } from "./state.js";

const listeners = [];

// Lists are long and filled later: the browser would go to a place that is not there yet.
history.scrollRestoration = "manual";
window.addEventListener("popstate", () => tell());

/** Return the state that the address stands for. */
export function here() {
  return parse(location.hash);
}

/** Return the place in the list where this step was left: {scroll, count, focus}, or null. */
export function place() {
  return history.state?.place ?? null;
}

/** Keep the place in the list for when one comes back to this step. */
export function keepPlace(kept) {
  history.replaceState({ place: kept }, "");
}

/** Go to a state; `replace` forgets the present one. */
export function go(state, { replace = false } = {}) {
  const address = hashOf(state);
  if (replace || address === (location.hash || "#")) {
    history.replaceState(null, "", address);
  } else {
    history.pushState(null, "", address);
  }
  tell();
}

/** Have `listener()` called whenever the state is another. */
export function onMove(listener) {
  listeners.push(listener);
}

function tell() {
  listeners.forEach((listener) => listener());
}
