/** The making of the map, or bringing it up to date, in the background. */

import * as api from "./api.js";
import { warn } from "./notices.js";

const $ = (id) => document.getElementById(id);
const PAUSE = 500; // milliseconds between requests

export class Making {
  /** `made()` is called when there is a new map. */
  constructor({ made }) {
    this.made = made;
    $("making-cancel").addEventListener("click", async () => {
      $("making-cancel").disabled = true;
      await api.cancelMap().catch((error) => warn(error.message));
    });
  }

  /** Begin, and show how far it is. */
  async begin() {
    warn("");
    try {
      await api.makeMap();
    } catch (error) {
      if (error.status !== 409) { // somebody else has begun
        warn(error.message);
        return;
      }
    }
    await this.follow();
  }

  /** Show how far it is, if somebody has begun. */
  async follow() {
    if (this.following) return;
    this.following = true;
    try {
      let run = await api.makingMap();
      const begun = run.running;
      while (run.running) {
        this.#show(run);
        await new Promise((resolve) => setTimeout(resolve, PAUSE));
        run = await api.makingMap();
      }
      if (!begun) return;
      if (run.failure) warn(`The map was not made: ${run.failure}`);
      else this.made();
    } catch {
      // The server does not answer, which the page says elsewhere.
    } finally {
      this.following = false;
      $("making").hidden = true;
      $("making-cancel").disabled = false;
    }
  }

  #show({ done, total }) {
    $("making").hidden = false;
    $("making-what").textContent = "Making the map";
    $("making-progress").removeAttribute("value");
    if (total) Object.assign($("making-progress"), { max: total, value: done });
  }
}
