/** Select images by dragging a box around them with the mouse. */

import { element } from "./elements.js";

const LEAST = 6; // pixels that the pointer moves before it is a drag
const EDGE = 60; // pixels from the edge of the window within which the page scrolls
const SPEED = 0.4; // pixels of scrolling a frame, for each pixel beyond that

/** Call `started()` when the user begins to drag, and `dragged(places)` with what the box holds. */
export function lasso(grid, { started, dragged }) {
  const { list } = grid;
  list.addEventListener("pointerdown", (event) => {
    if (event.pointerType !== "mouse" || event.button !== 0 || event.target.closest("button")) return;
    const picture = event.target.closest(".picture");
    if (picture) picture.draggable = Boolean(picture.closest(".selected")); // it is dragged out: see dragging.js
    if (picture?.draggable) return;
    const start = placeOf(list, event);
    let [last, box, timer] = [event, null, null];
    const draw = () => {
      const end = placeOf(list, last);
      const [left, right] = [start.x, end.x].sort((one, other) => one - other);
      const [top, bottom] = [start.y, end.y].sort((one, other) => one - other);
      Object.assign(box.style, {
        left: `${list.offsetLeft + left}px`, top: `${list.offsetTop + top}px`, width: `${right - left}px`, height: `${bottom - top}px`,
      });
      dragged(grid.within({ left, top, right, bottom }));
    };
    const scroll = () => {
      const beyond = Math.max(last.clientY - (innerHeight - EDGE), 0) - Math.max(EDGE - last.clientY, 0);
      if (beyond) {
        scrollBy(0, beyond * SPEED);
        draw();
      }
      timer = requestAnimationFrame(scroll);
    };
    const move = (moved) => {
      last = moved;
      if (!box) {
        if (Math.hypot(moved.clientX - event.clientX, moved.clientY - event.clientY) < LEAST) return;
        box = element("div", { className: "lasso" });
        list.parentElement.append(box); // not a child of the list, which has only items
        started();
        scroll();
      }
      draw();
    };
    const end = () => {
      window.removeEventListener("pointermove", move);
      cancelAnimationFrame(timer);
      if (!box) return;
      box.remove();
      const swallow = (click) => {
        click.preventDefault();
        click.stopPropagation();
      };
      window.addEventListener("click", swallow, { capture: true, once: true });
      setTimeout(() => window.removeEventListener("click", swallow, { capture: true }));
    };
    window.addEventListener("pointermove", move);
    ["pointerup", "pointercancel"].forEach((kind) => window.addEventListener(kind, end, { once: true }));
  });
}

/** Return the place of a pointer in a list. */
function placeOf(list, { clientX, clientY }) {
  const { left, top } = list.getBoundingClientRect();
  return { x: clientX - left, y: clientY - top };
}
