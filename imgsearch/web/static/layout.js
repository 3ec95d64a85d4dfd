/** A justified grid: each row is as wide as the page, and its images have the same height. */

const WIDEST = 3; // wider images are cut to this ratio, taller ones to its inverse, to share a row

export class Rows {
  /** `width` is the width of the page, `target` the height to aim at for rows, `gap` the space
   * between images, all in pixels.
   */
  constructor({ width, target, gap }) {
    Object.assign(this, { width, target, gap });
    this.firsts = []; // number of the first image of each row
    this.tops = [];
    this.heights = [];
    this.count = 0; // images that are laid out
    this.height = 0;
    this.full = true; // whether the last row is as wide as the page
  }

  /** Lay out the images from the last row on. `ratios` are width / height of all images. */
  extend(ratios) {
    const { width, target, gap } = this;
    const heightOf = (sum, number) => (width - gap * (number - 1)) / sum;
    let first = this.firsts.pop() ?? 0; // the last row may have been short of images
    this.height = this.tops.pop() ?? 0;
    this.heights.pop();
    let sum = 0;
    const close = (end, height) => {
      this.firsts.push(first);
      this.tops.push(this.height);
      this.heights.push(Math.round(height));
      this.height += Math.round(height) + gap;
      first = end;
      sum = 0;
    };
    for (let at = first; at < ratios.length; at += 1) {
      const ratio = cut(ratios[at]);
      const number = at - first;
      const before = number ? heightOf(sum, number) : Infinity;
      const after = heightOf(sum + ratio, number + 1);
      if (after < target && before / target < target / after) {
        close(at, before); // the row is closer to the target without this image
        sum = ratio;
      } else {
        sum += ratio;
        if (after < target) close(at + 1, after);
      }
    }
    this.full = first === ratios.length;
    if (!this.full) close(ratios.length, Math.min(target, heightOf(sum, ratios.length - first)));
    this.count = ratios.length;
  }

  /** Return the boxes of the images of a row: [{at, left, top, width, height}, ...]. */
  boxes(row, ratios) {
    const [first, end] = [this.firsts[row], this.firsts[row + 1] ?? this.count];
    const [top, height] = [this.tops[row], this.heights[row]];
    const boxes = [];
    let left = 0;
    for (let at = first; at < end; at += 1) {
      const width = Math.floor(cut(ratios[at]) * height);
      boxes.push({ at, left, top, width, height });
      left += width + this.gap;
    }
    const spare = this.width - (left - this.gap); // lost or gained in rounding
    if (end < this.count || this.full) boxes[boxes.length - 1].width += spare;
    return boxes;
  }

  /** Return the row at a height; the nearest one beyond the ends. */
  rowAt(y) {
    return Math.max(lastUpTo(this.tops, y), 0);
  }

  /** Return the row of an image. */
  rowOf(at) {
    return lastUpTo(this.firsts, at);
  }
}

function cut(ratio) {
  return Math.min(Math.max(ratio, 1 / WIDEST), WIDEST);
}

/** Return the place of the last of some ascending numbers that is at most `most`; -1 if none is. */
function lastUpTo(numbers, most) {
  let [low, high] = [0, numbers.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (numbers[middle] <= most) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}
