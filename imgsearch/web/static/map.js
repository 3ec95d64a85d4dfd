/** The map of the collection: all images in a plane, those that look alike near each other. */

import * as api from "./api.js";
import { factsOf } from "./collection.js";
import { element, icon, iconButton } from "./elements.js";
import { images as counted } from "./notices.js";
import { Thumbnails } from "./map-thumbnails.js";

const EDGE = 65_535; // of the server's square
const STEP = 1.5; // of a zoom by a key or a button
const WHEEL = 0.002; // of the logarithm of the scale, for each unit of the wheel
const PAN = 80; // pixels
const MOST_ZOOM = 4_000; // times the scale at which all is shown
const NEAR = 12; // pixels from a point at which it is meant
const DRAG = 5; // pixels until a press is a drag
const CELL = 84; // pixels, at least, for each thumbnail
const CROWDED = 8; // images for each thumbnail: beyond, there are only points, and the middle of each cluster
const BESIDE = 200; // images around one, through which the large view steps
const HUES = 12;

export class MapView {
  /** `select(ids)` is called to select images, `isSelected(id)` and `isSelecting()` tell of the selection,
   * `press(image)` is called for a click while selecting, `open(image, ids)` to show one large, of some in order,
   * `grow()` to add the images that are missing, if `mayGrow()`.
   */
  constructor(before, { select, isSelected, isSelecting, press, open, grow, mayGrow, failed }) {
    Object.assign(this, { select, isSelected, isSelecting, press, open, mayGrow, failed });
    this.canvas = element("canvas", { tabIndex: 0, role: "application", "aria-describedby": "map-hint" });
    this.context = this.canvas.getContext("2d", { alpha: false, willReadFrequently: true });
    this.lassoButton = element("button", { type: "button", "aria-pressed": "false", title: "Select by drawing a line around images",
      onclick: () => this.#lassoing(!this.lassoing) }, icon("lasso"), "Select");
    const zoom = (name, label, act) => iconButton(name, label, { onclick: act });
    this.plane = element("div", { className: "plane" }, this.canvas, element("div", { className: "controls" },
      zoom("more", "Zoom in", () => this.#by(STEP)), zoom("less", "Zoom out", () => this.#by(1 / STEP)),
      zoom("large", "Show the whole map", () => this.fit()), this.lassoButton));
    this.clusters = element("ul", { className: "clusters", role: "list", "aria-labelledby": "map-clusters" });
    this.note = element("p", { className: "note", id: "map-hint" });
    this.missing = element("p", { className: "missing", hidden: true }, element("span"),
      element("button", { type: "button", onclick: grow }, "Add to the map"));
    this.section = element("section", { className: "map", "aria-labelledby": "heading", hidden: true }, this.missing, this.plane, this.note,
      element("h2", { id: "map-clusters" }, "Clusters"), this.clusters);
    before.before(this.section);
    const style = element("link", { rel: "stylesheet", href: "static/map.css" });
    this.styled = new Promise((resolve) => (style.onload = style.onerror = resolve));
    document.head.append(style);
    this.thumbnails = new Thumbnails(() => this.draw());
    this.pointers = new Map();
    this.#take({ ids: [], x: [], y: [], of: [], clusters: [] });
    this.#listen();
  }

  get length() {
    return this.ids.length;
  }

  /** Show the map as it is now, or no longer. Throws what `api.map` does. */
  async show(on, signal) {
    if (!on) {
      this.section.hidden = true;
      return;
    }
    const [found] = await Promise.all([api.map(signal), this.styled]);
    if (signal.aborted) return;
    const same = found.ids.length === this.ids.length && found.ids.every((id, at) => id === this.ids[at])
      && found.x.every((x, at) => x / EDGE === this.x[at]);
    if (!same) this.#take(found);
    this.#tell(found.missing);
    this.section.hidden = false;
    this.#resize();
  }

  /** Light up some images; null for none. */
  light(ids) {
    const lit = ids && new Set(ids);
    this.lit = lit && Uint8Array.from(this.ids, (id) => Number(lit.has(id)));
    this.draw();
  }

  /** Show some images no longer; `gone` is a set of ids. */
  drop(gone) {
    const stay = (_, at) => !gone.has(this.ids[at]);
    for (const name of ["x", "y", "of"]) this[name] = this[name].filter(stay);
    this.ids = this.ids.filter((id) => !gone.has(id));
    this.#index();
    this.draw();
  }

  /** Show all of the map. */
  fit() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    this.least = Math.min(width, height) * 0.94;
    this.#view(this.least, (width - this.least) / 2, (height - this.least) / 2);
    this.whole = true; // until something else is shown
  }

  focus() {
    this.canvas.focus();
  }

  /** Tell how many images are not on the map yet. */
  #tell(missing) {
    const may = this.mayGrow();
    this.missing.hidden = !missing;
    this.missing.lastElementChild.hidden = !may;
    this.missing.firstElementChild.textContent = `${counted(missing)} ${missing === 1 ? "is" : "are"} not on the map yet`
      + (may ? "." : `: “imgsearch map” adds ${missing === 1 ? "it" : "them"}.`);
  }

  #take({ ids, x, y, of, clusters }) {
    Object.assign(this, { ids, whole: true, central: clusters.map(({ id }) => id) });
    this.x = Float64Array.from(x, (value) => value / EDGE);
    this.y = Float64Array.from(y, (value) => value / EDGE);
    this.of = Uint8Array.from(of);
    this.#index();
    this.canvas.setAttribute("aria-label", `Map of ${counted(ids.length)}`);
    this.note.textContent = "Images that look alike are near each other. Drag to move, scroll or pinch to zoom, hold Shift and drag to select; or use "
      + "the arrow keys, +, − and 0.";
    this.clusters.replaceChildren(...clusters.map((cluster, number) => this.#cluster(cluster, number)));
  }

  /** Compute what depends on the places of the images in the columns. */
  #index() {
    Object.assign(this, { lit: null, hovered: -1 });
    this.leaders = new Map(); // by level: see `#leaders`
    const rows = new Map(this.ids.map((id, at) => [id, at]));
    this.middles = this.central.map((id) => rows.get(id));
  }

  #cluster({ id, images, folder }, number) {
    const where = folder ? `mostly in ${folder.split("/").slice(-2).join("/") || folder}` : "from several folders";
    const members = () => this.ids.filter((_, at) => this.of[at] === number);
    return element("li", {},
      element("button", { type: "button", className: "go", title: folder ?? "", onclick: () => this.#goTo(number) },
        element("img", { alt: "", loading: "lazy", src: api.thumbnail(id, 256) }),
        element("span", {}, element("strong", {}, counted(images)), element("small", {}, where))),
      element("button", { type: "button", className: "all", "aria-label": `Select the ${counted(images)} of this cluster, ${where}`,
        onclick: () => this.select(members()) }, "Select"));
  }

  /** Show a cluster as large as it fits. */
  #goTo(number) {
    const at = [...this.of.keys()].filter((row) => this.of[row] === number);
    const range = (values) => {
      const sorted = at.map((row) => values[row]).sort((one, other) => one - other);
      const cut = Math.floor(at.length / 50); // those far out do not count
      return [sorted[cut], sorted[at.length - 1 - cut]];
    };
    if (!at.length) return;
    const [[left, right], [top, bottom]] = [range(this.x), range(this.y)];
    const { clientWidth: width, clientHeight: height } = this.canvas;
    const scale = 0.85 * Math.min(width / Math.max(right - left, 0.01), height / Math.max(bottom - top, 0.01));
    this.#view(scale, width / 2 - scale * (left + right) / 2, height / 2 - scale * (top + bottom) / 2);
    this.plane.scrollIntoView({ block: "nearest" });
    this.focus();
  }

  #resize() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    if (!width || !height) return;
    const [across, down] = [width, height].map((edge) => Math.round(edge * devicePixelRatio));
    if (this.canvas.width !== across || this.canvas.height !== down || !this.pixels) {
      Object.assign(this.canvas, { width: across, height: down });
      this.image = this.context.createImageData(across, down);
      this.pixels = new Uint32Array(this.image.data.buffer);
    }
    this.#colour();
    if (this.whole) this.fit();
    this.draw();
  }

  /** Read the colours of the page, which may be light or dark. */
  #colour() {
    const style = getComputedStyle(document.documentElement);
    const name = (text) => {
      this.context.fillStyle = text;
      return this.context.fillStyle; // as #rrggbb
    };
    const packed = (text) => {
      const value = parseInt(name(text).slice(1), 16);
      return (0xff000000 | ((value & 0xff) << 16) | (value & 0xff00) | (value >> 16)) >>> 0;
    };
    const dark = matchMedia("(prefers-color-scheme: dark)").matches;
    [this.mark, this.ink] = ["--mark", "--ink"].map((key) => name(style.getPropertyValue(key).trim()));
    this.ground = packed(style.getPropertyValue("--ground").trim());
    this.faint = packed(style.getPropertyValue("--line").trim());
    this.strong = packed(this.mark);
    this.chosen = packed(dark ? "#ffb454" : "#c2410c");
    this.palette = Uint32Array.from({ length: 256 }, (_, number) =>
      packed(`hsl(${(number * 5 % HUES) * 360 / HUES} ${number % 24 < 12 ? 48 : 24}% ${dark ? 62 : 46}%)`));
  }

  #view(scale, left, top) {
    Object.assign(this, { scale, left, top, whole: false });
    this.draw();
  }

  /** Zoom around a point of the canvas, by default the middle. */
  #by(factor, at) {
    const [x, y] = at ?? [this.canvas.clientWidth / 2, this.canvas.clientHeight / 2];
    const scale = Math.min(Math.max(this.scale * factor, this.least / 2), this.least * MOST_ZOOM);
    const change = scale / this.scale;
    this.#view(scale, x - (x - this.left) * change, y - (y - this.top) * change);
  }

  /** Draw the map with the next frame. */
  draw() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      if (!this.section.hidden && this.pixels) this.#draw();
    });
  }

  #draw() {
    const { context, canvas } = this;
    const ratio = devicePixelRatio;
    const some = this.#points(ratio);
    context.putImageData(this.image, 0, 0);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.boxes = [];
    const shown = this.#shown(some);
    for (const at of shown) this.#picture(at, shown.size);
    if (this.hovered >= 0 && !this.boxes.some((box) => box.at === this.hovered)) this.#preview(this.hovered);
    if (this.line) this.#outline();
    context.setTransform(1, 0, 0, 1, 0, 0);
    canvas.setAttribute("aria-busy", String(this.boxes.some(({ at }) => this.thumbnails.get(this.ids[at]) === null)));
    const wanted = this.boxes.map(({ at }) => this.ids[at]);
    this.thumbnails.settle(this.hovered < 0 ? wanted : [...wanted, this.ids[this.hovered]]);
  }

  /** Draw the points, and return how many are in view. */
  #points(ratio) {
    const { pixels, x, y, of, lit, palette } = this;
    const { width, height } = this.canvas;
    const [scale, left, top] = [this.scale, this.left, this.top].map((value) => value * ratio);
    const grown = Math.log2(Math.max(this.scale / this.least, 1));
    const side = Math.round(Math.min((x.length > 20_000 ? 2 : 3) + grown / 2, 7) * ratio);
    const put = (at, colour, edge) => {
      const from = Math.round(x[at] * scale + left - edge / 2);
      const above = Math.round(y[at] * scale + top - edge / 2);
      if (from < 0 || above < 0 || from + edge >= width || above + edge >= height) return false;
      for (let row = above * width + from, last = row + edge * width; row < last; row += width) {
        for (let pixel = row; pixel < row + edge; pixel += 1) pixels[pixel] = colour;
      }
      return true;
    };
    pixels.fill(this.ground);
    const bright = [];
    let some = 0;
    for (let at = 0; at < x.length; at += 1) {
      if (lit?.[at]) bright.push(at);
      else some += Number(put(at, lit ? this.faint : palette[of[at]], side));
    }
    for (const at of bright) some += Number(put(at, this.strong, side + Math.round(3 * ratio)));
    if (this.isSelecting()) {
      this.ids.forEach((id, at) => this.isSelected(id) && put(at, this.chosen, side + Math.round(3 * ratio)));
    }
    return some;
  }

  /** Return the images to show as thumbnails: those that are lit first, one for each cell of a grid. */
  #shown(some) {
    const found = new Set();
    const add = (at) => at !== undefined && this.#inView(at) && found.add(at);
    const lit = [];
    this.lit?.forEach((on, at) => on && lit.push(at));
    if (lit.length <= 1_000) lit.forEach(add);
    const level = Math.max(Math.floor(Math.log2(this.scale / CELL)), 0);
    const leaders = this.#leaders(level).filter((at) => this.#inView(at));
    if (this.lit) return found;
    if (some > CROWDED * leaders.length) this.middles.forEach(add);
    else leaders.forEach(add);
    return found;
  }

  #inView(at) {
    const [x, y] = [this.x[at] * this.scale + this.left, this.y[at] * this.scale + this.top];
    return x > 0 && y > 0 && x < this.canvas.clientWidth && y < this.canvas.clientHeight;
  }

  /** Return the first image of each cell of a grid of 2 ** level cells a side: they stay as the map moves. */
  #leaders(level) {
    if (!this.leaders.has(level)) {
      const [seen, found] = [new Set(), []];
      for (let at = 0; at < this.x.length; at += 1) {
        const cell = Math.floor(this.x[at] * 2 ** level) * 2 ** 26 + Math.floor(this.y[at] * 2 ** level);
        if (!seen.has(cell)) found.push(at);
        seen.add(cell);
      }
      this.leaders.set(level, Int32Array.from(found));
    }
    return this.leaders.get(level);
  }

  /** Draw a thumbnail unless another one is in its place. */
  #picture(at, count) {
    const room = Math.min(this.canvas.clientWidth, this.canvas.clientHeight) / 9;
    const most = Math.min(Math.max(room, 40), this.scale > 2 * this.least && count < 40 ? 112 : 76);
    const [x, y] = [this.x[at] * this.scale + this.left, this.y[at] * this.scale + this.top];
    const box = { at, left: x - most / 2, top: y - most / 2, edge: most };
    const apart = 0.92 * most;
    const taken = this.boxes.some((other) => Math.abs(other.left - box.left) < apart && Math.abs(other.top - box.top) < apart);
    if (!taken && this.#put(at, box)) this.boxes.push(box);
  }

  #preview(at) {
    const edge = 160;
    const within = (value, room) => Math.min(Math.max(value, 4), room - edge - 4);
    const [x, y] = [this.x[at] * this.scale + this.left, this.y[at] * this.scale + this.top];
    this.#put(at, { left: within(x + 12, this.canvas.clientWidth), top: within(y + 12, this.canvas.clientHeight), edge });
  }

  #put(at, { left, top, edge }) {
    const { context } = this;
    const picture = this.thumbnails.get(this.ids[at]);
    if (picture === null) return true; // it is on its way
    if (!picture) return false;
    const share = edge / Math.max(picture.naturalWidth, picture.naturalHeight);
    const [width, height] = [picture.naturalWidth * share, picture.naturalHeight * share];
    const [x, y] = [left + (edge - width) / 2, top + (edge - height) / 2];
    context.drawImage(picture, x, y, width, height);
    const selected = this.isSelected(this.ids[at]);
    context.lineWidth = selected ? 4 : this.lit?.[at] ? 3 : 1;
    context.strokeStyle = selected || this.lit?.[at] ? this.mark : "rgb(128 128 128 / 60%)";
    context.strokeRect(x, y, width, height);
    return true;
  }

  #outline() {
    const { context } = this;
    context.beginPath();
    this.line.forEach(([x, y]) => context.lineTo(x, y));
    context.closePath();
    context.globalAlpha = 0.16;
    context.fillStyle = this.mark;
    context.fill();
    context.globalAlpha = 1;
    context.lineWidth = 2;
    context.strokeStyle = this.mark;
    context.stroke();
  }

  /** Return the image at a point of the canvas, -1 for none. */
  #at([x, y]) {
    const within = (box) => x >= box.left && y >= box.top && x <= box.left + box.edge && y <= box.top + box.edge;
    const box = this.boxes?.findLast(within);
    if (box) return box.at;
    let [nearest, least] = [-1, NEAR ** 2];
    for (let at = 0; at < this.x.length; at += 1) {
      const [across, down] = [this.x[at] * this.scale + this.left - x, this.y[at] * this.scale + this.top - y];
      const away = across * across + down * down;
      if (away < least) [nearest, least] = [at, away];
    }
    return nearest;
  }

  async #press(at) {
    try {
      const [image] = await factsOf([this.ids[at]]);
      if (!image) return;
      if (this.isSelecting()) this.press(image);
      else this.open(image, this.#around(at));
    } catch (error) {
      this.failed(error);
    }
  }

  /** Return the ids of the images around one, the nearest first. */
  #around(at) {
    const away = this.x.map((x, other) => (x - this.x[at]) ** 2 + (this.y[other] - this.y[at]) ** 2);
    away[at] = -1;
    return [...away.keys()].sort((one, other) => away[one] - away[other]).slice(0, BESIDE).map((row) => this.ids[row]);
  }

  #lassoing(on) {
    this.lassoing = on;
    this.lassoButton.setAttribute("aria-pressed", String(on));
    this.plane.classList.toggle("lassoing", on);
  }

  /** Select the images within the line. */
  #close() {
    const { line } = this;
    this.line = null;
    const [across, down] = [line.map(([x]) => x), line.map(([, y]) => y)];
    const [left, right, top, bottom] = [Math.min(...across), Math.max(...across), Math.min(...down), Math.max(...down)];
    const found = this.ids.filter((_, at) => {
      const [x, y] = [this.x[at] * this.scale + this.left, this.y[at] * this.scale + this.top];
      return x >= left && x <= right && y >= top && y <= bottom && isWithin(x, y, line);
    });
    this.#lassoing(false);
    if (found.length) this.select(found);
    this.draw();
  }

  #listen() {
    const { canvas } = this;
    const where = (event) => [event.offsetX, event.offsetY];
    new ResizeObserver(() => this.#resize()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#resize());
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.#by(Math.exp(-event.deltaY * WHEEL), where(event));
    }, { passive: false });
    canvas.addEventListener("keydown", (event) => this.#key(event));
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      canvas.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, where(event));
      this.start = this.pointers.size === 1 ? where(event) : null;
      this.line = null;
      if (this.start && (this.lassoing || event.shiftKey)) this.line = [this.start];
    });
    canvas.addEventListener("pointermove", (event) => this.#moved(event, where(event)));
    canvas.addEventListener("pointerleave", () => this.#hover(-1));
    ["pointerup", "pointercancel"].forEach((kind) => canvas.addEventListener(kind, (event) => {
      if (!this.pointers.delete(event.pointerId)) return;
      if (this.line) this.#close();
      else if (this.start && kind === "pointerup") {
        const at = this.#at(this.start);
        if (at >= 0) this.#press(at);
      }
      this.start = null;
    }));
  }

  #moved(event, now) {
    const before = this.pointers.get(event.pointerId);
    if (!before) {
      if (event.pointerType === "mouse") this.#hover(this.#at(now));
      return;
    }
    const [x, y] = [now[0] - before[0], now[1] - before[1]];
    const other = [...this.pointers].find(([id]) => id !== event.pointerId)?.[1];
    if (this.line) {
      this.line.push(now);
      this.draw();
    } else if (other) {
      const apart = (point) => Math.hypot(point[0] - other[0], point[1] - other[1]) || 1;
      this.#by(apart(now) / apart(before), [(now[0] + other[0]) / 2, (now[1] + other[1]) / 2]);
    } else if (this.start && Math.hypot(now[0] - this.start[0], now[1] - this.start[1]) < DRAG) {
      return; // it may become a click
    } else {
      this.start = null;
      this.#view(this.scale, this.left + x, this.top + y);
    }
    this.pointers.set(event.pointerId, now);
  }

  #hover(at) {
    if (at === this.hovered) return;
    this.hovered = at;
    this.canvas.classList.toggle("picking", at >= 0);
    this.draw();
  }

  #key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const pan = { ArrowLeft: [PAN, 0], ArrowRight: [-PAN, 0], ArrowUp: [0, PAN], ArrowDown: [0, -PAN] }[event.key];
    if (pan) this.#view(this.scale, this.left + pan[0], this.top + pan[1]);
    else if (event.key === "+" || event.key === "=") this.#by(STEP);
    else if (event.key === "-") this.#by(1 / STEP);
    else if (event.key === "0") this.fit();
    else return;
    event.preventDefault();
  }
}

/** Tell whether a point is within a closed line: it is if a ray from it crosses the line an odd number of times. */
function isWithin(x, y, line) {
  let within = false;
  line.forEach(([x1, y1], at) => {
    const [x2, y2] = line[(at + 1) % line.length];
    if ((y1 > y) !== (y2 > y) && x < ((x2 - x1) * (y - y1)) / (y2 - y1) + x1) within = !within;
  });
  return within;
}
