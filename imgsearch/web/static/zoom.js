/** Zoom into a picture with wheel, fingers or keys, drag it, and swipe to the next one. */

const MOST = 8; // times the size at which a pixel of the picture is one of the screen
const STEP = 1.5;
const WHEEL = 0.002; // of the logarithm of the size, for each unit of the wheel
const PAN = 80; // pixels
const SWIPE = 50; // pixels that a finger moves sideways, or downwards

export class Zoom {
  /** `swiped(direction)` is called with "left", "right" or "down" when nothing is magnified. */
  constructor(view, { swiped }) {
    this.view = view;
    this.swiped = swiped;
    this.picture = null;
    this.touches = new Map(); // pointers on the picture: {x, y} by id
    view.addEventListener("wheel", (event) => {
      if (!this.picture) return;
      event.preventDefault();
      this.#by(Math.exp(-event.deltaY * WHEEL), event);
    }, { passive: false });
    view.addEventListener("dblclick", (event) => !event.target.closest("button") && this.actual(event));
    view.addEventListener("pointerdown", (event) => this.#down(event));
    view.addEventListener("pointermove", (event) => this.#move(event));
    ["pointerup", "pointercancel"].forEach((kind) =>
      view.addEventListener(kind, (event) => this.#up(event)));
  }

  /** Show another picture, all of it; null for something that cannot be magnified. */
  show(picture) {
    this.picture = picture;
    this.touches.clear();
    this.fit();
  }

  get magnified() {
    return this.scale > 1;
  }

  /** Show all of the picture. */
  fit() {
    [this.scale, this.x, this.y] = [1, 0, 0];
    this.#apply();
  }

  /** Show a pixel of the picture as one of the screen, or all of the picture if that is so. */
  actual(event) {
    if (!this.picture) return;
    if (this.magnified) this.fit();
    else this.#by(Math.max(this.#actual(), STEP), event);
  }

  /** Do what a key says; return whether it says anything. */
  key(key) {
    const pan = { ArrowLeft: [PAN, 0], ArrowRight: [-PAN, 0], ArrowUp: [0, PAN], ArrowDown: [0, -PAN] }[key];
    if (!this.picture || (pan && !this.magnified)) return false;
    if (pan) this.#pan(...pan);
    else if (key === "+" || key === "=") this.#by(STEP);
    else if (key === "-") this.#by(1 / STEP);
    else if (key === "0") this.fit();
    else if (key === "z") this.actual();
    else return false;
    return true;
  }

  /** Return the size of the picture at which all of it is shown, in pixels of the page. */
  #fitted() {
    const { width, height } = this.view.getBoundingClientRect();
    const ratio = this.picture.naturalWidth / this.picture.naturalHeight || 1;
    return [Math.min(width, height * ratio), Math.min(height, width / ratio)];
  }

  #actual() {
    return this.picture.naturalWidth / (this.#fitted()[0] * devicePixelRatio);
  }

  /** Magnify around a point, by default the middle. */
  #by(factor, at) {
    const box = this.view.getBoundingClientRect();
    const [x, y] = at ? [at.clientX - box.left - box.width / 2, at.clientY - box.top - box.height / 2] : [0, 0];
    const most = Math.max(this.#actual() * MOST, MOST);
    const scale = Math.min(Math.max(this.scale * factor, 1), most);
    const change = scale / this.scale;
    this.scale = scale;
    this.x = x - (x - this.x) * change;
    this.y = y - (y - this.y) * change;
    this.#apply();
  }

  #pan(x, y) {
    this.x += x;
    this.y += y;
    this.#apply();
  }

  #apply() {
    if (!this.picture) return;
    const { width, height } = this.view.getBoundingClientRect();
    const [across, down] = this.#fitted().map((edge) => edge * this.scale);
    const within = (value, spare) => Math.min(Math.max(value, -spare), spare);
    this.x = within(this.x, Math.max((across - width) / 2, 0));
    this.y = within(this.y, Math.max((down - height) / 2, 0));
    const { style } = this.picture;
    style.transform = this.magnified ? `translate(${this.x}px, ${this.y}px) scale(${this.scale})` : "";
    style.imageRendering = this.scale >= 2 * this.#actual() ? "pixelated" : "";
    this.view.classList.toggle("magnified", this.magnified);
  }

  #down(event) {
    if (!this.picture || event.button !== 0 || event.target.closest("button")) return;
    this.touches.set(event.pointerId, { x: event.clientX, y: event.clientY });
    this.start = this.touches.size === 1 ? { x: event.clientX, y: event.clientY } : null;
    if (this.magnified || this.touches.size > 1) this.view.setPointerCapture(event.pointerId);
  }

  #move(event) {
    const before = this.touches.get(event.pointerId);
    if (!before) return;
    const now = { x: event.clientX, y: event.clientY };
    const other = [...this.touches].find(([id]) => id !== event.pointerId)?.[1];
    if (other) {
      const apart = (point) => Math.hypot(point.x - other.x, point.y - other.y) || 1;
      this.#by(apart(now) / apart(before), {
        clientX: (now.x + other.x) / 2, clientY: (now.y + other.y) / 2,
      });
    } else if (this.magnified) {
      this.#pan(now.x - before.x, now.y - before.y);
    }
    this.touches.set(event.pointerId, now);
  }

  #up(event) {
    const { start } = this;
    if (!this.touches.delete(event.pointerId) || this.touches.size || !start) return;
    if (this.magnified || event.pointerType === "mouse" || event.type === "pointercancel") return;
    const [x, y] = [event.clientX - start.x, event.clientY - start.y];
    if (Math.abs(x) > SWIPE && Math.abs(x) > 2 * Math.abs(y)) this.swiped(x < 0 ? "left" : "right");
    else if (y > 2 * SWIPE && y > 2 * Math.abs(x)) this.swiped("down");
  }
}
