/** Watch the collection: how many images, whether indexing is under way, whether it is there. */

import { info, Unreachable } from "./api.js";

const CALM = 10_000; // milliseconds between looks
const BUSY = 1_500; // while indexing, while there is nothing yet, while the server is gone

/** Have `seen(facts)` called at each look, `gone(error)` when the server cannot be asked. */
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
