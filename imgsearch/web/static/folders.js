/** The folders of the collection: a tree beside the images, or in a sheet where there is no room. */

import { element, icon, iconButton } from "./elements.js";
import { hashOf, isBrowsing, stateOf } from "./state.js";

const $ = (id) => document.getElementById(id);
const AT_ONCE = 300; // folders to list below another at a time
const ROOT = /^([a-z][a-z0-9+.-]*:\/\/[^/]*|)\/?/i; // of a path or a URL
const CLOSED = "imgsearch-folders-closed";

export class Folders {
  /** `changed(state)` is called when a folder is chosen. */
  constructor(changed) {
    this.changed = changed;
    this.open = new Set(); // paths of the folders whose folders are listed
    this.tree = null;
    this.several = false; // whether there is anything to choose
    this.wide = matchMedia("(min-width: 64rem)");
    this.wide.addEventListener("change", () => this.#place());
    this.closed = kept();
    $("folders-open").addEventListener("click", () => this.#toggle());
    $("sheet-close").addEventListener("click", () => $("sheet").close());
    $("sheet").addEventListener("click", (event) => event.target === $("sheet") && $("sheet").close());
    $("sheet").addEventListener("close", () => this.#place());
  }

  /** Show the state: which folder is chosen. */
  show(state) {
    this.state = state;
    if ($("sheet").open) $("sheet").close();
    this.#place();
    this.#draw();
  }

  /** Show other folders: [{path, images}, ...], without the images of the folders below. */
  offer(folders) {
    this.several = folders.length > 1;
    this.tree = treeOf(folders);
    if (this.tree.children.length === 1) this.open.add(this.tree.children[0].path);
    this.#place();
    this.#draw();
  }

  get #inline() {
    return this.wide.matches && isBrowsing(this.state);
  }

  #toggle() {
    if (this.#inline) {
      this.closed = !this.closed;
      keep(this.closed);
      this.#place();
    } else {
      $("sheet").append($("folders"));
      $("folders").hidden = false;
      $("folders-open").setAttribute("aria-expanded", "true");
      $("sheet").showModal();
    }
  }

  #place() {
    if (!this.state || $("sheet").open) return;
    const shown = this.several && this.#inline && !this.closed;
    $("folders-open").hidden = !this.several;
    $("folders-open").setAttribute("aria-expanded", String(shown));
    if ($("folders").parentElement !== $("page")) $("page").prepend($("folders"));
    $("folders").hidden = !shown;
  }

  #draw() {
    if (!this.tree || !this.state) return;
    const focused = document.activeElement?.closest?.("#folders") ? document.activeElement.dataset.path : null;
    const all = { path: "", name: "All folders", count: this.tree.count, children: [] };
    $("folders").replaceChildren(element("ul", { role: "list" }, this.#item(all),
      ...this.tree.children.map((node) => this.#item(node))));
    if (focused) $("folders").querySelector(`a[data-path="${CSS.escape(focused)}"]`)?.focus();
  }

  #item(node) {
    const { path, name, count, children } = node;
    const link = element("a", {
      href: hashOf(stateOf({ ...this.state, folder: path })),
      title: path,
      "aria-label": `${name}, ${count === 1 ? "1 image" : `${count.toLocaleString("en")} images`}`,
      onclick: (event) => {
        if (event.ctrlKey || event.metaKey || event.shiftKey) return; // another tab
        event.preventDefault();
        this.changed(stateOf({ ...this.state, folder: path }));
      },
    }, element("span", { className: "name" }, name),
    element("span", { className: "number" }, count.toLocaleString("en")));
    link.dataset.path = path;
    if (this.state.folder.replace(/(.)\/$/, "$1") === path) link.setAttribute("aria-current", "true");
    const item = element("li", {}, link);
    if (children.length) {
      const toggle = iconButton("next", `Folders in ${name}`, {
        className: "unfold", "aria-expanded": "false", onclick: () => unfold(!this.open.has(path)),
      });
      const unfold = (open) => {
        this.open[open ? "add" : "delete"](path);
        toggle.setAttribute("aria-expanded", String(open));
        item.querySelector("ul")?.remove();
        if (open) item.append(this.#list(children));
      };
      item.prepend(toggle);
      const chosen = this.state.folder.startsWith(`${path}/`);
      if (chosen || this.open.has(path)) unfold(true);
    }
    return item;
  }

  #list(nodes, most = AT_ONCE) {
    const list = element("ul", { role: "list" }, ...nodes.slice(0, most).map((node) => this.#item(node)));
    if (nodes.length > most) {
      const rest = nodes.length - most;
      list.append(element("li", {}, element("button", {
        type: "button",
        onclick: () => list.replaceWith(this.#list(nodes, most + AT_ONCE)),
      }, icon("more"), `${rest.toLocaleString("en")} more folders`)));
    }
    return list;
  }
}

/** Return the tree of some folders; one without images that has a single folder is left out. */
function treeOf(folders) {
  const top = { path: "", name: "", count: 0, own: 0, children: new Map() };
  for (const { path, images } of folders) {
    const [root, ...names] = partsOf(path);
    let node = childOf(top, root, root);
    for (const name of names) {
      node = childOf(node, name, node.path.endsWith("/") ? node.path + name : `${node.path}/${name}`);
    }
    node.own += images;
  }
  return settled(top);
}

function partsOf(path) {
  const [root] = ROOT.exec(path);
  return [root, ...path.slice(root.length).split("/").filter(Boolean)];
}

function childOf(node, name, path) {
  if (!node.children.has(name)) {
    node.children.set(name, { path, name: name || path, own: 0, children: new Map() });
  }
  return node.children.get(name);
}

function settled(node) {
  let children = [...node.children.values()].map(settled);
  if (!node.own && children.length === 1 && node.path) return children[0];
  children = children.sort((one, other) => one.name.localeCompare(other.name, "en", { numeric: true }));
  const count = children.reduce((sum, child) => sum + child.count, node.own);
  return { path: node.path, name: node.name, count, children };
}

function kept() {
  try {
    return localStorage.getItem(CLOSED) === "true";
  } catch {
    return false; // this browser stores nothing
  }
}

function keep(closed) {
  try {
    localStorage.setItem(CLOSED, String(closed));
  } catch {
    // It is open again the next time.
  }
}
