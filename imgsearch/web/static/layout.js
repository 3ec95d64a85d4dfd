/** A justified grid: rows of images, each row as wide as the page, its images equally high. */

const WIDEST = 3; // a panorama is cut to this, a tower to its inverse, or nothing would be beside it

/** Return the sizes of images laid out in rows, as a list of {width, height} in whole pixels.
 *
 * `ratios` are width / height; `width` is that of the page, `target` the height that rows are to
 * come near, `gap` the space between images. The last row is not stretched.
 */
export function justify(ratios, { width, target, gap }) {
  const sizes = [];
  let row = [];
  const close = (height) => {
    sizes.push(...sizesOfRow(row, height, width, gap));
    row = [];
  };
  for (const ratio of ratios.map((value) => Math.min(Math.max(value, 1 / WIDEST), WIDEST))) {
    const before = row.length ? heightOf(row, width, gap) : Infinity;
    const after = heightOf([...row, ratio], width, gap);
    if (after >= target) {
      row.push(ratio);
    } else if (before / target < target / after) {
      close(before); // nearer to the target without this image than with it
      row.push(ratio);
    } else {
      row.push(ratio);
      close(after);
    }
  }
  if (row.length) close(Math.min(target, heightOf(row, width, gap)));
  return sizes;
}

function heightOf(row, width, gap) {
  return (width - gap * (row.length - 1)) / row.reduce((sum, ratio) => sum + ratio, 0);
}

function sizesOfRow(row, height, width, gap) {
  const sizes = row.map((ratio) => ({
    width: Math.floor(ratio * height),
    height: Math.round(height),
  }));
  const spare = width - gap * (row.length - 1) - sizes.reduce((sum, size) => sum + size.width, 0);
  if (spare < row.length) sizes[sizes.length - 1].width += Math.floor(spare); // lost in rounding
  return sizes;
}
