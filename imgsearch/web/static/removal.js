/** Take images out of the collection, after a while in which that can be undone. */

import * as api from "./api.js";
import { images as counted } from "./notices.js";

const $ = (id) => document.getElementById(id);
const AT_ONCE = 1_000; // images of a request
const WAIT = 8_000; // milliseconds in which the removal can be undone

export class Removal {
  /** `hide(ids)` is called to show the images no longer, `restore()` to show them again, `say(text)`
   * to tell the user.
   */
  constructor({ hide, restore, say }) {
    Object.assign(this, { hide, restore, say });
    this.due = null; // {ids, timer}: what has been confirmed, but not sent
    $("undo").addEventListener("click", () => this.#undo());
    $("remove-no").addEventListener("click", () => $("removing").close());
    window.addEventListener("pagehide", () => this.#send({ keepalive: true }));
  }

  /** Ask whether images are to be removed, and remove them if so. */
  async ask(ids) {
    const these = ids.length === 1 ? "This image" : `These ${counted(ids.length)}`;
    $("remove-what").textContent = `Remove ${counted(ids.length)} from the collection?`;
    $("remove-why").textContent = `${these} will no longer be found here, nor come back when their folder is `
      .replace("their", ids.length === 1 ? "its" : "their")
      + `indexed again. ${ids.length === 1 ? "Its file stays" : "Their files stay"} on the disk.`;
    const answer = new Promise((resolve) => {
      $("remove-yes").onclick = () => {
        resolve(true);
        $("removing").close();
      };
      $("removing").onclose = () => resolve(false);
    });
    $("removing").showModal();
    if (!(await answer)) return false;
    await this.#send(); // what was removed before
    this.due = { ids, timer: setTimeout(() => this.#send(), WAIT) };
    $("undo-what").textContent = `${counted(ids.length)} removed`;
    $("undoing").hidden = false;
    this.hide(ids);
    return true;
  }

  #undo() {
    clearTimeout(this.due?.timer);
    this.due = null;
    $("undoing").hidden = true;
    this.restore();
  }

  async #send({ keepalive = false } = {}) {
    if (!this.due) return;
    const { ids, timer } = this.due;
    clearTimeout(timer);
    this.due = null;
    $("undoing").hidden = true;
    try {
      for (let from = 0; from < ids.length; from += AT_ONCE) {
        const sent = api.remove(ids.slice(from, from + AT_ONCE), { keepalive });
        if (!keepalive) await sent;
      }
    } catch (error) {
      this.restore();
      this.say(`The images were not removed: ${error.message}`);
    }
  }
}
