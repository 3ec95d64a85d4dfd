/** The rectangle that marks a part of a picture; drawn, moved and resized by pointer or keys. */

import { element } from "./elements.js";

const LEAST = 0.05; // minimum size as a fraction of width and height
const STEP = 0.02;
const PAUSE = 600; // milliseconds from the last key press to the search
const HELP = "Part to search. Arrow keys move it, Shift with arrow keys resizes it, Escape removes it.";

export class Crop {
  /** `changed(box)` is called with [left, top, right, bottom] in fractions, null for all of it. */
  constructor(stage, changed) {
    this.stage = stage;
    this.changed = changed;
    this.box = null;
    this.allowed = false;
    this.part = element("div", {
      className: "part", tabIndex: 0, role: "application", "aria-label": HELP,
      onkeydown: (event) => this.#key(event),
    }, ...["nw", "ne", "sw", "se"].map((corner) => {
      const handle = element("span", { className: `handle ${corner}` });
      handle.dataset.corner = corner;
      return handle;
    }));
    stage.addEventListener("pointerdown", (event) => this.#down(event));
  }

  /** Show a box on the picture, or no box. */
  show(box, allowed) {
    clearTimeout(this.pause);
    this.allowed = allowed;
    this.stage.classList.toggle("may-crop", allowed);
    this.#set(box);
  }

  /** Mark the middle of the picture, or remove the mark. */
  toggle() {
    const box = this.box ? null : [0.25, 0.25, 0.75, 0.75];
    this.#set(box);
    if (box) this.part.focus();
    this.changed(box);
  }

  #set(box) {
    this.box = box;
    this.stage.classList.toggle("cropping", Boolean(box));
    if (!box) {
      this.part.remove();
      return;
    }
    const [left, top, right, bottom] = box;
    const share = (value) => `${value * 100}%`;
    Object.assign(this.part.style, {
      left: share(left), top: share(top), width: share(right - left), height: share(bottom - top),
    });
    if (!this.part.isConnected) this.stage.append(this.part);
  }

  #down(event) {
    // A finger on the picture scrolls the page, unless a part is already marked.
    if (!this.allowed || event.button !== 0 || (event.pointerType === "touch" && !this.box)) return;
    event.preventDefault();
    const start = this.#at(event);
    const before = this.box;
    const corner = event.target.dataset.corner;
    const inside = event.target === this.part;
    if (inside || corner) this.part.focus({ preventScroll: true });
    this.stage.setPointerCapture(event.pointerId);
    const move = (moved) => this.#set(dragged(before, corner, inside, start, this.#at(moved)));
    const up = () => {
      this.stage.removeEventListener("pointermove", move);
      this.stage.removeEventListener("pointerup", up);
      this.stage.removeEventListener("pointercancel", up);
      if (String(this.box) !== String(before)) this.changed(this.box);
    };
    this.stage.addEventListener("pointermove", move);
    this.stage.addEventListener("pointerup", up);
    this.stage.addEventListener("pointercancel", up);
  }

  #at(event) {
    const frame = this.stage.getBoundingClientRect();
    return [
      within((event.clientX - frame.left) / frame.width, 0, 1),
      within((event.clientY - frame.top) / frame.height, 0, 1),
    ];
  }

  #key(event) {
    if (event.key === "Escape" || event.key === "Delete") {
      this.#set(null);
      clearTimeout(this.pause);
      this.changed(null);
      document.getElementById("part").focus();
    } else {
      const [x, y] = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP],
        ArrowDown: [0, STEP] }[event.key] ?? [0, 0];
      if (!x && !y) return;
      this.#set(event.shiftKey ? sized(this.box, x, y) : shifted(this.box, x, y));
      clearTimeout(this.pause);
      this.pause = setTimeout(() => this.changed(this.box), PAUSE);
    }
    event.preventDefault();
    event.stopPropagation();
  }
}

/** Return the box dragged from `start` to `end`; null if it is too small to be intended. */
function dragged(before, corner, inside, start, end) {
  if (inside) return shifted(before, end[0] - start[0], end[1] - start[1]);
  const fixed = corner
    ? [before[corner.includes("w") ? 2 : 0], before[corner.includes("n") ? 3 : 1]]
    : start;
  const [left, right] = [fixed[0], end[0]].sort((a, b) => a - b);
  const [top, bottom] = [fixed[1], end[1]].sort((a, b) => a - b);
  if (right - left >= LEAST && bottom - top >= LEAST) return [left, top, right, bottom];
  return corner ? before : null;
}

function shifted([left, top, right, bottom], x, y) {
  const across = within(x, -left, 1 - right);
  const down = within(y, -top, 1 - bottom);
  return [left + across, top + down, right + across, bottom + down];
}

function sized([left, top, right, bottom], x, y) {
  return [left, top, within(right + x, left + LEAST, 1), within(bottom + y, top + LEAST, 1)];
}

function within(value, least, most) {
  return Math.min(Math.max(value, least), most);
}
