/** The duplicates: groups of copies, what is to go to the trash, and what is no copy. */

import * as api from "./api.js";
import { element, fileName } from "./elements.js";
import { explain, images as counted, warn } from "./notices.js";
import { bytes } from "./numbers.js";
import { manner, Pairs, whyKept } from "./pairs.js";
import { lost } from "./tile.js";

const $ = (id) => document.getElementById(id);
const PAUSE = 700; // milliseconds between questions how far the server is
const PAGE = 20; // groups
const MOST = 1_000; // groups or copies of a request
const UNDO = 8_000; // milliseconds in which a judgement can be taken back

export class Review {
  /** `say(text)` is called to tell the user. */
  constructor({ say }) {
    this.say = say;
    this.on = false;
    this.readOnly = false;
    this.status = null;
    this.groups = []; // those on the page
    this.turn = {};
    this.loading = null; // the turn that is loading groups
    this.marked = new Map(); // the sizes of the copies to discard, by their ids
    this.pairs = new Pairs($("pair"), {
      decide: (what, group, copy) => this.#decide(what, group, copy),
      beside: (copy, by) => this.#beside(copy, by),
      isMarked: (id) => this.marked.has(id),
      mayChange: () => !this.readOnly,
      closed: (id) => this.#look(id)?.focus(),
    });
    $("review-find").addEventListener("click", () => this.#begin());
    $("review-cancel").addEventListener("click", () => this.#ask(api.cancelDuplicates()));
    $("review-suggested").addEventListener("click", () => this.#markAll());
    $("marked-none").addEventListener("click", () => this.#unmark());
    $("marked-trash").addEventListener("click", () => this.#discard());
    $("trash-no").addEventListener("click", () => $("trashing").close());
    $("groups").addEventListener("keydown", (event) => this.#key(event));
    new IntersectionObserver(([seen]) => seen.isIntersecting && this.#more(), { rootMargin: "800px" })
      .observe($("groups-end"));
    document.addEventListener("visibilitychange", () => !document.hidden && this.on && this.#update());
  }

  get length() {
    return this.groups.length;
  }

  /** Show the duplicates, or no longer. */
  async show(on, { count = 0 } = {}) {
    this.on = on;
    document.body.classList.toggle("reviewing", on);
    $("review").hidden = !on;
    $("duplicates").toggleAttribute("aria-current", on);
    clearTimeout(this.timer);
    this.#bar();
    if (!on) {
      if (this.pairs.dialog.open) this.pairs.dialog.close();
      return;
    }
    $("count").textContent = "";
    explain(null);
    await this.#update(count);
  }

  /** Offer to change something, or not. */
  allow(mayChange) {
    if (this.readOnly === !mayChange) return;
    this.readOnly = !mayChange;
    if (this.readOnly) this.#unmark();
    document.body.classList.toggle("read-only", this.readOnly);
  }

  /** Ask the server how far it is, now and while it is at it. */
  async #update(count = 0) {
    clearTimeout(this.timer);
    try {
      await this.#take(await api.duplicates(), count);
    } catch (error) {
      if (this.on) warn(error.message);
      this.timer = setTimeout(() => this.on && this.#update(), 3 * PAUSE);
    }
  }

  async #ask(answering) {
    try {
      await this.#take(await answering);
      return true;
    } catch (error) {
      warn(error.message);
      if (error.status === 404 || error.status === 409) this.#update();
      return false;
    }
  }

  /** Show a status: the progress, or the groups. */
  async #take(status, count = 0) {
    if (!this.on) return;
    const before = this.status;
    this.status = status;
    const { running, result } = status;
    this.#progress();
    if (result && result.found !== this.found) {
      this.found = result.found;
      this.marked.clear();
      await this.#reload(count);
    } else if (before?.running === "discard" && !running) {
      await this.#ended(status);
    }
    this.#tell();
    if (running && this.on && !document.hidden) this.timer = setTimeout(() => this.#update(), PAUSE);
  }

  #progress() {
    const { running, done, total } = this.status;
    $("review-running").hidden = !running;
    $("review-find").hidden = Boolean(running) || !this.status.result;
    $("review-suggested").hidden = Boolean(running) || !this.status.result?.copies;
    if (!running) return;
    const bar = $("review-progress");
    if (total) Object.assign(bar, { value: done, max: total });
    else bar.removeAttribute("value");
    const [some, all] = [done, total].map((number) => number.toLocaleString("en"));
    $("review-what").textContent = running === "find"
      ? (total ? `Comparing ${some} of ${all} images` : "Comparing the images …")
      : (total ? `Moved ${some} of ${all} copies to the trash` : "Moving copies to the trash …");
  }

  /** Say what was found. */
  #tell() {
    if (!this.on) return;
    const { running, result, failure } = this.status;
    warn(failure ? `The latest search or removal failed: ${failure}` : "");
    $("count").textContent = result?.groups ? summary(result) : "";
    $("review-note").textContent = result?.unreadable
      ? `${counted(result.unreadable)} could not be compared. Run “imgsearch index”, then search again.` : "";
    if (running === "find" && !result) {
      explain({ title: "Searching for duplicates", text: "You can leave this page: the search goes on." });
    } else if (!result) {
      explain({
        title: "Find copies of the same picture",
        text: "Copies that were resized, encoded again, cropped, mirrored or turned are found among all images, and shown beside "
          + "the picture to keep. That may take minutes. Nothing is changed.",
        action: ["Find duplicates", () => this.#begin()],
      });
    } else if (!result.groups) {
      explain({ title: "No duplicates", text: `None of ${counted(result.images)} is a copy of another one.` });
    } else {
      explain(null);
    }
    this.#bar();
  }

  #begin() {
    return this.#ask(api.findDuplicates());
  }

  /** Show the groups from the first one on, at least `count` of them. */
  async #reload(count = 0) {
    this.groups = [];
    this.complete = false;
    this.turn = {}; // what is being loaded is no longer wanted
    $("groups").replaceChildren();
    await this.#more(Math.max(count, PAGE));
  }

  async #more(count = PAGE) {
    if (!this.on || !this.found || this.complete || this.loading === this.turn) return;
    const { turn } = this;
    this.loading = turn;
    const limit = Math.min(count, MOST);
    try {
      const { groups } = await api.groups(this.found, this.groups.at(-1)?.number ?? 0, limit);
      if (turn !== this.turn) return;
      this.complete = groups.length < limit;
      this.groups.push(...groups);
      $("groups").append(...groups.map((group) => this.#group(group)));
    } catch (error) {
      warn(error.message);
      return;
    } finally {
      if (this.loading === turn) this.loading = null;
    }
    if (!this.complete && $("groups-end").getBoundingClientRect().top < innerHeight + 800) this.#more();
  }

  #group(group) {
    const title = `group-${group.number}`;
    const free = group.others.filter(suggested);
    const head = element("div", { className: "head" }, element("h2", { id: title }, `Group ${group.number}`));
    if (free.length > 1) {
      head.append(element("button", { type: "button", className: "changes",
        onclick: () => this.#mark(free, !free.every(({ id }) => this.marked.has(id))) }, "Mark all copies"));
    }
    return element("li", { className: "group", "aria-labelledby": title, "data-group": group.number }, head,
      element("ul", { className: "copies", role: "list" }, this.#kept(group),
        ...group.others.map((copy) => this.#copy(group, copy))));
  }

  #kept({ keep, reason }) {
    return element("li", { className: "copy kept" }, picture(keep), element("div", { className: "told" },
      element("p", { className: "name", title: keep.path }, fileName(keep.path)),
      element("p", {}, element("strong", {}, "Kept"), reason ? `: ${reason}` : ""), element("p", {}, facts(keep))));
  }

  #copy(group, copy) {
    const name = fileName(copy.path);
    const told = element("div", { className: "told" },
      element("p", { className: "name", title: copy.path }, name),
      element("p", {}, element("strong", {}, manner(copy))), element("p", {}, facts(copy)));
    const why = whyKept(copy);
    if (why) told.append(element("p", {}, why));
    const tools = element("div", { className: "tools changes" });
    if (copy.discardable) {
      tools.append(element("button", { type: "button", className: "discard", "aria-label": `Discard ${name}`,
        "aria-pressed": String(this.marked.has(copy.id)), onclick: () => this.#mark([copy], !this.marked.has(copy.id)),
      }, "Discard"));
    }
    tools.append(element("button", { type: "button", className: "apart", "aria-label": `${name} is not the same`,
      onclick: () => this.#apart(group, copy) }, "Not the same"));
    const look = element("button", { type: "button", className: "look",
      "aria-label": `Compare ${name}, ${manner(copy)}, with the picture that is kept`,
      onclick: () => this.pairs.open({ group, copy }) }, picture(copy));
    const item = element("li", { className: "copy", "data-copy": copy.id }, look, told, tools);
    item.classList.toggle("marked", this.marked.has(copy.id));
    return item;
  }

  #key(event) {
    const looks = [...$("groups").querySelectorAll(".look")];
    const at = looks.indexOf(event.target.closest(".look"));
    if (at < 0 || event.altKey || event.ctrlKey || event.metaKey) return;
    const group = this.groups.find(({ number }) => number === Number(event.target.closest(".group").dataset.group));
    const copy = group.others.find(({ id }) => id === event.target.closest(".copy").dataset.copy);
    const groupOf = (look) => look.closest(".group");
    const other = (look) => groupOf(look) !== groupOf(looks[at]);
    const to = {
      ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: looks.length - 1,
      ArrowDown: looks.findIndex((look, place) => place > at && other(look)),
      ArrowUp: looks.findLastIndex((look, place) => place < at && other(look)),
    }[event.key];
    const what = { d: "discard", k: "keep", n: "apart" }[event.key];
    if (to !== undefined) {
      event.preventDefault();
      looks[to]?.focus();
    } else if (what && !this.readOnly) {
      this.#decide(what, group, copy);
    }
  }

  #decide(what, group, copy) {
    if (what === "apart") return this.#apart(group, copy);
    if (copy.discardable) this.#mark([copy], what === "discard");
    return null;
  }

  #mark(copies, on) {
    for (const { id, size } of copies) {
      if (on) this.marked.set(id, size);
      else this.marked.delete(id);
    }
    this.#bar();
    this.#shade();
  }

  #unmark() {
    this.marked.clear();
    this.#bar();
    this.#shade();
  }

  #shade() {
    for (const item of $("groups").querySelectorAll("[data-copy]")) {
      const on = this.marked.has(item.dataset.copy);
      item.classList.toggle("marked", on);
      item.querySelector(".discard")?.setAttribute("aria-pressed", String(on));
    }
  }

  /** Mark all copies that the command would discard, also those not on the page yet. */
  async #markAll() {
    try {
      for (let after = 0; ;) {
        const { groups } = await api.groups(this.found, after, MOST);
        groups.flatMap(({ others }) => others).filter(suggested).forEach(({ id, size }) => this.marked.set(id, size));
        if (groups.length < MOST) break;
        after = groups.at(-1).number;
      }
    } catch (error) {
      warn(error.message);
    }
    this.#bar();
    this.#shade();
  }

  #bar() {
    const count = this.marked.size;
    const on = this.on && count > 0 && !this.readOnly && !this.status?.running;
    $("marked").hidden = !on;
    document.body.classList.toggle("marking", on);
    $("marked-count").textContent = `${copies(count)} marked, ${bytes(this.#size())}`;
  }

  #size() {
    return [...this.marked.values()].reduce((sum, size) => sum + size, 0);
  }

  /** Remember that a copy is none, for which there is a while to take it back. */
  async #apart(group, copy) {
    const ids = [group.keep.id, copy.id];
    try {
      await api.judge(ids, { forget: false });
      this.marked.delete(copy.id);
      await this.#replace(group.number);
    } catch (error) {
      warn(error.message);
      return;
    }
    $("undo-judgement").onclick = async () => {
      $("judged").hidden = true;
      await api.judge(ids, { forget: true }).catch((error) => warn(error.message));
      await this.#reload(this.groups.length + 1);
      await this.#update();
      this.#look(copy.id)?.focus();
    };
    $("judged").hidden = false;
    clearTimeout(this.undo);
    this.undo = setTimeout(() => ($("judged").hidden = true), UNDO);
    await this.#update();
  }

  /** Show a group as it is now. */
  async #replace(number) {
    const item = $("groups").querySelector(`[data-group="${number}"]`);
    const at = this.groups.findIndex((group) => group.number === number);
    const { groups: [now] } = await api.groups(this.found, number - 1, 1);
    const had = item?.contains(document.activeElement);
    const next = item?.nextElementSibling?.querySelector(".look");
    if (now?.number === number) {
      this.groups[at] = now;
      const made = this.#group(now);
      item?.replaceWith(made);
      if (had) made.querySelector(".look").focus();
    } else {
      this.groups.splice(at, 1);
      item?.remove();
      if (had) (next ?? $("heading")).focus();
    }
  }

  #beside(copy, by) {
    const all = this.groups.flatMap((group) => group.others.map((each) => ({ group, copy: each })));
    const at = all.findIndex((pair) => pair.copy.id === copy.id);
    if (at + by >= all.length - 5) this.#more(); // so that there is always a next one
    return at < 0 ? undefined : all[at + by];
  }

  #look(id) {
    return $("groups").querySelector(`[data-copy="${id}"] .look`);
  }

  /** Ask whether the marked copies are to go to the trash, and move them there. */
  async #discard() {
    const [count, size] = [this.marked.size, bytes(this.#size())];
    const one = count === 1;
    $("trash-what").textContent = `Move ${copies(count)} to the trash?`;
    $("trash-why").textContent = `${one ? "One file" : `${count.toLocaleString("en")} files`} of ${size} ${one ? "goes" : "go"} to the `
      + "trash of the computer that imgsearch runs on, from where you can restore "
      + `${one ? "it" : "them"}. Before that, ${one ? "it is" : "each is"} compared once more with the picture that is kept. If anything `
      + "has changed, it stays.";
    const answer = new Promise((resolve) => {
      $("trash-yes").onclick = () => {
        resolve(true);
        $("trashing").close();
      };
      $("trashing").onclose = () => resolve(false);
    });
    $("trashing").showModal();
    if (!(await answer)) return;
    this.outcome = { count: 0, size: 0, left: 0, failures: [] };
    this.waiting = [...this.marked.keys()];
    this.marked.clear();
    $("left").hidden = true;
    $("heading").focus({ preventScroll: true });
    await this.#send();
  }

  /** Have the next of the copies discarded that wait for it. */
  async #send() {
    const these = this.waiting.splice(0, MOST);
    if (!(await this.#ask(api.trash(this.found, these)))) {
      this.waiting = [];
      this.#shade();
    }
  }

  /** Tell what became of the copies that were to be discarded. */
  async #ended({ discarded, failure }) {
    const sum = this.outcome ??= { count: 0, size: 0, left: 0, failures: [] };
    if (discarded) {
      for (const name of ["count", "size", "left"]) sum[name] += discarded[name];
      sum.failures.push(...discarded.failures);
    }
    const stopped = failure || discarded?.stopped;
    if (this.waiting?.length && !stopped) {
      await this.#send();
      return;
    }
    this.waiting = [];
    this.outcome = null;
    const moved = `${copies(sum.count)} of ${bytes(sum.size)} moved to the trash.`;
    this.say(moved);
    $("left").hidden = !sum.left && !stopped;
    $("left-what").textContent = `${moved} ${sum.left ? `${copies(sum.left)} stayed:` : ""} ${stopped ? `It ended early: ${stopped}.` : ""}`;
    $("left-why").replaceChildren(...sum.failures.map(({ path, reason }) => element("li", {}, `${path} ${reason}`)));
    await this.#reload(this.groups.length);
  }
}

/** Tell whether the command would discard a copy unasked. */
function suggested({ discardable, orientation }) {
  return discardable && !orientation;
}

function picture({ id, path }) {
  const address = api.thumbnail(id, 512);
  return element("img", { src: address, alt: "", loading: "lazy", decoding: "async",
    onerror: async ({ target }) => target.replaceWith(lost(fileName(path), await api.whyNot(address))) });
}

function facts({ width, height, size }) {
  return `${width} × ${height} · ${bytes(size)}`;
}

function copies(count) {
  return count === 1 ? "1 copy" : `${count.toLocaleString("en")} copies`;
}

function summary({ groups, copies: count, size, turned, related }) {
  const parts = [`${groups === 1 ? "1 group" : `${groups.toLocaleString("en")} groups`}`];
  if (count) parts.push(`${copies(count)} of ${bytes(size)}`);
  if (turned) parts.push(`${turned.toLocaleString("en")} mirrored or turned`);
  if (related) parts.push(`${related.toLocaleString("en")} with something of ${related === 1 ? "its" : "their"} own`);
  return parts.join(" · ");
}
