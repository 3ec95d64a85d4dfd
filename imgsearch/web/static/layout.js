/** A justified grid: each row is as wide as the page, and its images have the same height. */

const WIDEST = 3; // wider images are cut to this ratio, taller ones to its inverse, to share a row

/** Return the sizes of images laid out in rows, as a list of {width, height} in whole pixels.
 *
 * `ratios` are width / height; `width` is the width of the page, `target` the
 * height to aim at for rows, `gap` the space between images. The last row is not stretched.
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
      close(before); // the row is closer to the target without this image
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
