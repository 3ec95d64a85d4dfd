/** Create elements. Text is never parsed as HTML, as a file may have any name. */

/** Return a new element: `element("a", {href: "#"}, "text", child)`.
 *
 * A key of `properties` that begins with "on" adds a listener, one with a hyphen, or "role", sets
 * an attribute, any other a property.
 */
export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key.includes("-") || key === "role") made.setAttribute(key, value);
    else made[key] = value;
  }
  made.append(...children);
  return made;
}

/** Return an icon of the sprite in index.html. */
export function icon(name) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(space, "use");
  use.setAttribute("href", `#icon-${name}`);
  svg.append(use);
  return svg;
}

/** Return a button with an icon, named by `label`. */
export function iconButton(name, label, properties = {}) {
  return element("button", { type: "button", title: label, "aria-label": label, ...properties },
    icon(name));
}

/** Return the folder of a path. */
export function folderOf(path) {
  return path.slice(0, Math.max(path.lastIndexOf("/"), 1));
}

/** Return the last part of a path. */
export function fileName(path) {
  return path.split(/[\\/]/).pop();
}
