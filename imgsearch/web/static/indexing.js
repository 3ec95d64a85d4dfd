/** How far the indexing of the collection is, whoever has begun it. */

import * as api from "./api.js";
import { element, icon } from "./elements.js";
import { images as counted, say, warn } from "./notices.js";

const $ = (id) => document.getElementById(id);
const PAUSE = 1_000; // milliseconds between requests
const SOON = 4; // seconds until a rate says something

export class Indexing {
  constructor() {
    this.begun = null; // {count, at}: where a run that others have begun was first seen
    this.run = null; // how far the run is that this server has begun
    this.before = false; // whether the collection was being indexed
    $("indexing-cancel").addEventListener("click", () => this.#cancel());
  }

  /** Show whether the collection is being indexed, by the facts about it. */
  seen(now) {
    if (this.before && !now.indexing && !this.run?.running) say(`Indexing has finished: ${counted(now.images)}.`);
    this.before = now.indexing;
    this.facts = now;
    if (now.indexing && now.may_fill && !this.run) this.follow();
    this.#show();
  }

  /** Show how far the run is that this server has begun, until it ends. */
  async follow() {
    if (this.following) return;
    this.following = true;
    try {
      do {
        this.run = await api.indexing();
        this.#show();
        await new Promise((resolve) => setTimeout(resolve, PAUSE));
      } while (this.run.running);
      this.#ended(this.run);
    } catch {
      this.run = null; // the server does not answer, which the page says elsewhere
    } finally {
      this.following = false;
      this.#show();
    }
  }

  async #cancel() {
    $("indexing-cancel").disabled = true;
    await api.cancelIndexing().catch((error) => warn(error.message));
  }

  #ended({ failure, indexed, folder }) {
    if (failure) warn(`${folder} was not indexed to the end: ${failure}`);
    else if (indexed && !indexed.images) warn(`There are no images in ${folder}.`);
  }

  #show() {
    const own = this.run?.running ? this.run : null;
    $("indexing").hidden = !own && !this.facts?.indexing;
    ["indexing-progress", "indexing-cancel"].forEach((id) => ($(id).hidden = !own));
    if (own) {
      $("indexing-what").textContent = progress(own);
      $("indexing-progress").removeAttribute("value");
      if (own.total) Object.assign($("indexing-progress"), { max: own.total, value: own.done });
    } else if (this.facts) {
      $("indexing-cancel").disabled = false;
      $("indexing-what").textContent = `Indexing: ${counted(this.facts.images)} so far${this.#pace(this.facts)}`;
    }
  }

  /** Return how many images a run of others indexes, once that can be told. */
  #pace({ indexing, images: count }) {
    if (!indexing) this.begun = null;
    else this.begun ??= { count, at: performance.now() };
    const seconds = this.begun ? (performance.now() - this.begun.at) / 1000 : 0;
    return perSecond(seconds > SOON ? (count - this.begun.count) / seconds : 0);
  }
}

/** Ask for a folder, and have it indexed; `started()` is called once that has begun. */
export async function chooseFolder(started) {
  const path = element("input", { id: "filling-path", name: "path", autocomplete: "off", spellcheck: false });
  const why = element("p", { className: "note", role: "alert" });
  const list = element("ul", { className: "places", role: "list", "aria-label": "Folders" });
  const here = element("p", { className: "note", role: "status" });
  const begin = element("button", { type: "button", className: "primary", onclick: () => start() }, "Index this folder");
  const close = () => dialog.close();
  const dialog = element("dialog", { className: "asked filling", "aria-labelledby": "filling-title", onclose: () => dialog.remove() },
    element("h2", { id: "filling-title" }, "Choose the folder with your pictures"),
    element("form", { onsubmit: (event) => {
      event.preventDefault();
      go(path.value);
    } }, element("label", { htmlFor: "filling-path" }, "Folder"), path, element("button", {}, "Go")),
    why, list, here,
    element("div", { className: "tools" }, element("button", { type: "button", onclick: close }, "Cancel"), begin));
  let shown = null;

  const attempt = async (action) => {
    why.textContent = "";
    try {
      await action();
    } catch (error) {
      why.textContent = error.message;
    }
  };
  const go = (to) => attempt(async () => {
    const found = await api.folders(to);
    shown = path.value = found.path;
    begin.disabled = !found.may_index;
    here.textContent = found.images ? `${counted(found.images)} right in this folder`
      : found.folders.length ? "" : "No images right in this folder";
    const way = (text, sign, target) => element("li", {}, element("button", { type: "button",
      onclick: () => go(target) }, icon(sign), text));
    const inside = found.folders.map((name) => way(name, "folder", `${found.path}/${name}`));
    list.replaceChildren(...(found.parent ? [way("One folder up", "previous", found.parent)] : []), ...inside);
    if (dialog.open && !dialog.contains(document.activeElement)) path.focus();
  });
  const start = () => attempt(async () => {
    await api.startIndexing(path.value || shown);
    close();
    started();
  });

  document.body.append(dialog);
  await go("");
  dialog.showModal();
  path.focus();
}

function progress({ folder, done, total, seconds }) {
  const what = `Indexing ${folder}`;
  if (!total) return `${what}: ${done ? `${files(done)} so far` : "looking for images"}`;
  if (done >= total) return `${what}: ${files(total)}, getting ready to search`;
  const rate = seconds > SOON ? done / seconds : 0;
  return `${what}: ${done.toLocaleString("en")} of ${files(total)}${perSecond(rate)}${rate ? left((total - done) / rate) : ""}`;
}

function files(count) {
  return count === 1 ? "1 file" : `${count.toLocaleString("en")} files`;
}

function perSecond(rate) {
  return Math.round(rate) > 0 ? `, ${Math.round(rate).toLocaleString("en")} per second` : "";
}

function left(seconds) {
  const [count, unit] = seconds < 90 ? [seconds, "second"] : seconds < 5400 ? [seconds / 60, "minute"] : [seconds / 3600, "hour"];
  const whole = Math.max(Math.round(count), 1);
  return `, about ${whole} ${unit}${whole === 1 ? "" : "s"} left`;
}
