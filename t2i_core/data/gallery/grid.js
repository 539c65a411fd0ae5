"use strict";
// The grid: only the tiles that are seen are in the page

let lines = []; // of the page: { y, heading } or { y, positions }
let tiles = new Map(); // key of a line -> its elements
let measures = { columns: 1, width: 100, height: 140 };

function refresh() {
  const { model, query } = gallery;
  gallery.order = model.select(query);
  gallery.groups = query.group ? model.grouped(gallery.order) : null;
  const some = gallery.order.length;
  const all = model.total;
  let text = some === all ? `${number(all)} images` : `${number(some)} of ${number(all)} images`;
  if (gallery.groups) text += `, ${number(gallery.groups.length)} prompts`;
  if (model.loaded < all) text += ` (${Math.floor((100 * model.loaded) / all)} % loaded)`;
  byId("count").textContent = text;
  layOut();
  if (!byId("viewer").hidden) showPlace();
}

// Return the groups of images on each page, or the images, as [first, behind the last].
function pages() {
  if (!gallery.groups) {
    const count = Math.max(1, Math.ceil(gallery.order.length / PAGE_IMAGES));
    return Array.from({ length: count }, (_, i) => [i * PAGE_IMAGES, Math.min((i + 1) * PAGE_IMAGES, gallery.order.length)]);
  }
  const result = [];
  let start = 0;
  let images = 0;
  gallery.groups.forEach((group, i) => {
    // A prompt takes the room of two tiles at least: its heading, and a line of its own.
    images += Math.max(group.length, measures.columns);
    if (images >= PAGE_IMAGES) {
      result.push([start, i + 1]);
      start = i + 1;
      images = 0;
    }
  });
  if (start < gallery.groups.length || !result.length) result.push([start, gallery.groups.length]);
  return result;
}

function layOut() {
  const grid = byId("grid");
  const width = grid.clientWidth;
  if (!width) return;
  const wanted = Number(byId("tile").value);
  const columns = Math.max(2, Math.floor((width + GAP) / (wanted + GAP)));
  const tile = Math.floor((width - GAP * (columns - 1)) / columns);
  measures = { columns, width: tile, height: tile + (gallery.groups ? CAPTION / 2 : CAPTION) };
  const all = pages();
  const page = Math.min(gallery.query.page, all.length - 1);
  const [start, end] = all[page];
  lines = [];
  let y = 0;
  const add = (positions, variants) => {
    for (let i = 0; i < positions.length; i += columns) {
      lines.push({ y, positions: positions.slice(i, i + columns), variants });
      y += measures.height + GAP;
    }
  };
  if (gallery.groups) {
    for (const group of gallery.groups.slice(start, end)) {
      lines.push({ y, heading: group });
      y += HEADING;
      add(group, group);
      y += GAP;
    }
  } else add(gallery.order.subarray(start, end));
  grid.style.height = `${y}px`;
  byId("pager").hidden = all.length < 2;
  byId("page-text").textContent = `page ${page + 1} of ${all.length}`;
  byId("page-back").disabled = page === 0;
  byId("page-on").disabled = page === all.length - 1;
  for (const elements of tiles.values()) for (const element of elements) element.remove();
  tiles.clear();
  showTiles();
}

function turnPage(by) {
  ask({ page: gallery.query.page + by }, true);
  scrollTo(0, 0);
}

// Return the index of the first line that ends below `y`.
function lineAt(y) {
  let low = 0;
  let high = lines.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (lines[middle].y + measures.height < y) low = middle + 1;
    else high = middle;
  }
  return low;
}

function showTiles() {
  const grid = byId("grid");
  if (grid.offsetParent === null) return;
  const top = -grid.getBoundingClientRect().top;
  const first = lineAt(top - innerHeight / 2);
  const last = lineAt(top + 1.5 * innerHeight);
  for (const [number, elements] of tiles) {
    if (number < first || number > last) {
      for (const element of elements) element.remove();
      tiles.delete(number);
    }
  }
  for (let i = first; i <= last && i < lines.length; i++) {
    if (tiles.has(i)) continue;
    const elements = lines[i].heading ? [heading(lines[i])] : tilesOf(lines[i]);
    tiles.set(i, elements);
    grid.append(...elements);
  }
}

function heading({ y, heading: group }) {
  const prompt = gallery.model.get("prompt", group[0]);
  const count = group.length > 1 ? `${number(group.length)} images` : "1 image";
  const element = make("h2", { className: "prompt-heading", title: brief(prompt, 1000) }, make("bdi", {}, brief(prompt, 300)), make("span", {}, count));
  element.style.top = `${y}px`;
  return element;
}

function tilesOf({ y, positions, variants }) {
  return Array.from(positions, (position, column) => {
    const element = tile(position, variants);
    element.style.cssText = `left:${column * (measures.width + GAP)}px;top:${y}px;width:${measures.width}px;height:${measures.height}px`;
    return element;
  });
}

function brief(text, length) {
  const line = (text || "").slice(0, 2 * length).replace(/\s+/g, " ").trim();
  return line.length > length ? line.slice(0, length) + "…" : line;
}

function tile(position, variants) {
  const { model, query } = gallery;
  const prompt = brief(model.get("prompt", position), 160);
  const element = make("a", { className: "tile", href: address({ ...query, image: position }), title: prompt });
  element.dataset.position = position;
  element.onclick = (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    openImage(position, true);
  };
  const box = make("span", { className: "thumb" });
  fillThumbnail(box, position, prompt);
  const marks = make("span", { className: "marks" });
  for (const flag of model.flags(position)) marks.append(make("b", { className: flag, title: FLAG_TEXTS[flag] }, FLAG_NAMES[flag]));
  box.append(marks);
  const by = query.sort || query.by;
  const value = by ? model.get(by, position) : null;
  if (value !== null) box.append(make("span", { className: "value" }, shown(value)));
  const caption = variants ? difference(position, variants) : prompt;
  element.append(box, make("span", { className: "caption", dir: "auto" }, caption));
  return element;
}

// Return the seed of an image, and the settings in which images of one prompt differ.
function difference(position, variants) {
  const { model } = gallery;
  const parts = [`seed ${model.get("seed", position)}`];
  const named = { steps: (steps) => `${steps} steps`, guidance_scale: (scale) => `guidance ${shown(scale)}` };
  for (const name of ["size", "steps", "guidance_scale", "scheduler"]) {
    const value = model.get(name, position);
    if (value === null || variants.every((other) => model.get(name, other) === value)) continue;
    parts.push(named[name] ? named[name](value) : value);
  }
  return parts.join(" · ");
}

// Pixels of a small picture that is much enlarged stay pixels: smoothing would make it look like a bad large one.
function showPixels(image) {
  image.classList.toggle("small", 2.5 * image.naturalWidth < image.clientWidth);
}

function fillThumbnail(box, position, alt) {
  const { model } = gallery;
  const status = model.get("status", position);
  if (status === "failed" || status === "pending") {
    box.append(make("span", { className: `none ${status}` }, STATUS_NAMES[status]));
    return;
  }
  const image = make("img", { alt, decoding: "async", draggable: false });
  box.append(image);
  image.onload = () => showPixels(image);
  gallery.thumbnail(position).then(
    async (data) => {
      if (data === null) setPicture(image, await gallery.details_of(position));
      else image.src = data;
    },
    () => box.append(make("span", { className: "none" }, "?")),
  );
}

function moveFocus(event) {
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -measures.columns, ArrowDown: measures.columns }[event.key];
  if (!steps) return;
  const all = [...document.querySelectorAll(".tile")].sort((a, b) => a.offsetTop - b.offsetTop || a.offsetLeft - b.offsetLeft);
  const next = all[all.indexOf(event.target) + steps];
  if (!next) return;
  event.preventDefault();
  next.focus({ preventScroll: true });
  next.scrollIntoView({ block: "nearest" });
}
