/** Format numbers without ever overstating them. */

/** Round a number of at most 1, with more decimals where it would become 1 otherwise. */
export function rounded(value, decimals = 2) {
  for (let more = decimals; more < 7; more += 1) {
    const text = value.toFixed(more);
    if (Number(text) !== 1) return text;
  }
  return value.toFixed(decimals);
}

const BANDS = {
  "same picture": "Same picture", "same thing": "Same thing", similar: "Similar", weak: "Less similar",
};

/** Return what the similarity of a hit means in words; its number where that is not known. */
export function inWords({ similarity, band }) {
  return band ? BANDS[band] ?? band : rounded(similarity);
}

/** Format a limit exactly, with at least two decimals. */
export function limit(value) {
  return Number(value.toFixed(2)) === value ? value.toFixed(2) : String(value);
}

/** Format a fraction as a percentage. */
export function percent(share) {
  return `${Number((share * 100).toFixed(6))} %`;
}

/** Return a number of bytes in MB or kB. */
export function bytes(size) {
  const [unit, of] = size >= 100_000 ? ["MB", 1e6] : ["kB", 1e3];
  return `${(size / of).toLocaleString("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 })} ${unit}`;
}
