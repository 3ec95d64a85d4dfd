/** A gallery in a folder: all images, or those most similar to one. It also works from file://,
 * where modules do not load. images.js has the data: see imgsearch/cli/gallery_page.py. */

"use strict";

(() => {
  const STEP = 200; // tiles to add at a time
  const { title, images } = window.gallery;
  const part = (id) => document.getElementById(id);
  const grid = part("grid");
  const further = part("further");
  let shown = []; // pairs of an image's number and its similarity, or null

  const counted = (count) => `${count.toLocaleString("en")} image${count === 1 ? "" : "s"}`;

  function element(name, properties = {}, ...children) {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  }

  function picture(number) {
    const { name, width, lost } = images[number];
    if (width) return element("img", { alt: name, loading: "lazy", src: `images/${number}.jpg` });
    return element("span", { className: "lost" }, element("strong", {}, name), lost);
  }

  function tile([number, similarity]) {
    const { name, folder, width, height } = images[number];
    const link = element(
      "a",
      { className: "picture", href: `#${number + 1}`, title: folder ? `${folder}/${name}` : name },
      picture(number));
    if (similarity !== null) {
      const unseen = element("span", { className: "unseen" }, ", similarity ");
      link.append(element("span", { className: "similarity" }, unseen, similarity.toFixed(3)));
    }
    const made = element("li", { className: "tile" }, link);
    const ratio = Math.min(Math.max(width / height || 1.5, 0.4), 3);
    made.style.aspectRatio = ratio;
    made.style.flex = `${ratio} 1 calc(${ratio} * var(--row))`;
    return made;
  }

  function more() {
    const from = grid.childElementCount;
    grid.append(...shown.slice(from, from + STEP).map(tile));
    further.hidden = grid.childElementCount >= shown.length;
  }

  function show(pairs, heading, count) {
    shown = pairs;
    part("heading").textContent = heading;
    part("count").textContent = count;
    grid.replaceChildren();
    more();
  }

  function choose(number) {
    const { name, folder, near } = images[number];
    const caption = element("figcaption", {}, element("strong", {}, name));
    if (folder) caption.append(element("span", { className: "folder" }, ` in ${folder}`));
    part("chosen").replaceChildren(element("figure", {}, picture(number), caption));
    show(near, `Most similar to ${name}`, near.length ? counted(near.length) : "There are none");
  }

  /** Show what the address asks for: `#17`, the images most similar to the 17th, or all of them. */
  function route() {
    const number = Number(location.hash.slice(1)) - 1;
    const chosen = Number.isInteger(number) && images[number] !== undefined;
    part("chosen").hidden = !chosen;
    if (chosen) {
      part("find").value = "";
      choose(number);
    } else {
      find();
    }
    document.title = chosen ? `${images[number].name} – ${title}` : title;
  }

  function find() {
    const words = part("find").value.toLowerCase().split(/\s+/).filter(Boolean);
    const found = [];
    images.forEach(({ name, folder, similarity }, number) => {
      const text = `${folder}/${name}`.toLowerCase();
      if (words.every((word) => text.includes(word))) found.push([number, similarity ?? null]);
    });
    show(found, title, words.length ? `${found.length ? counted(found.length) : "None"} found` : "");
  }

  function move(event) {
    const tiles = [...grid.children];
    const at = tiles.indexOf(event.target.closest(".tile"));
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: tiles.length - 1 }[event.key];
    if (to === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    tiles[to]?.querySelector("a").focus();
  }

  part("total").textContent = counted(images.length);
  part("find").addEventListener("input", () => {
    if (location.hash.length > 1) history.pushState(null, "", "#");
    part("chosen").hidden = true;
    document.title = title;
    find();
  });
  grid.addEventListener("keydown", move);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && location.hash.length > 1) location.hash = "";
  });
  further.addEventListener("click", more);
  new IntersectionObserver(
    (entries) => entries.at(-1).isIntersecting && more(), { rootMargin: "900px" }).observe(further);
  window.addEventListener("hashchange", () => {
    route();
    scrollTo(0, 0);
    part("heading").focus({ preventScroll: true });
  });
  route();
})();
