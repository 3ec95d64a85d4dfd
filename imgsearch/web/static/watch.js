/** Watch the collection: its number of images, whether it is being indexed, whether it is up. */

import { info, Unreachable } from "./api.js";

const CALM = 10_000; // milliseconds between requests
const BUSY = 1_500; // while indexing, while the collection is empty, while the server is down

/** Call `seen(facts)` after each request, `gone(error)` when the server does not answer. */
export function watch({ seen, gone }) {
  let timer = null;
  const look = async () => {
    clearTimeout(timer);
    let pause = BUSY;
    try {
      const facts = await info();
      if (facts.images && !facts.indexing) pause = CALM;
      seen(facts);
    } catch (error) {
      gone(error);
      if (!(error instanceof Unreachable)) pause = CALM;
    }
    timer = setTimeout(look, pause);
  };
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) clearTimeout(timer);
    else look();
  });
  look();
  return look;
}
