"use strict";
// The page of one image: its picture, and all that is known of it.

let beside = false;
let scrolled = 0;
let opener = null;

function openFromAddress() {
  if (gallery.query.image === null) hideImage();
  else openImage(gallery.query.image, false);
}

function openImage(position, push) {
  if (byId("viewer").hidden) {
    scrolled = scrollY;
    opener = document.activeElement;
  }
  if (push) {
    const changed = gallery.query.image === null;
    gallery.query.image = position;
    if (changed) history.pushState({ opened: true }, "", address(gallery.query));
    else history.replaceState(history.state, "", address(gallery.query));
  }
  addressShown = location.hash;
  byId("viewer").hidden = false;
  document.body.classList.add("viewing");
  byId("viewer").scrollTop = 0;
  showImage(position);
  byId("viewer").focus({ preventScroll: true });
}

function closeImage() {
  if (history.state && history.state.opened) history.back();
  else {
    gallery.query.image = null;
    history.replaceState(null, "", address(gallery.query));
    hideImage();
  }
}

function hideImage() {
  if (byId("viewer").hidden) return;
  byId("viewer").hidden = true;
  beside = false;
  document.body.classList.remove("viewing");
  byId("stage").replaceChildren();
  scrollTo(0, scrolled);
  showTiles();
  if (opener && opener.isConnected) opener.focus({ preventScroll: true });
}

// The images in the order in which they are shown: by prompt, where they are grouped.
function sequence() {
  return gallery.groups ? gallery.groups.flat() : gallery.order;
}

function step(by) {
  const all = sequence();
  const here = all.indexOf(gallery.query.image);
  const next = Math.max(0, Math.min(all.length - 1, by === -Infinity ? 0 : by === Infinity ? all.length - 1 : here + by));
  if (here < 0 && !all.length) return;
  if (all[next] !== gallery.query.image) openImage(all[next], true);
}

function showPlace() {
  const all = sequence();
  const here = all.indexOf(gallery.query.image);
  byId("place").textContent = here < 0 ? "" : `${number(here + 1)} of ${number(all.length)}`;
  byId("previous").disabled = here <= 0;
  byId("next").disabled = here < 0 || here === all.length - 1;
}

async function showImage(position) {
  showPlace();
  const { model } = gallery;
  const variants = model.variants(position);
  byId("beside").hidden = variants.length < 2;
  byId("beside").setAttribute("aria-pressed", beside);
  let details;
  try {
    details = await gallery.details_of(position);
  } catch {
    details = {};
  }
  if (gallery.query.image !== position) return; // another was opened meanwhile
  byId("facts").replaceChildren(...facts(position, details, variants));
  byId("facts").scrollTop = 0;
  await showStage(position, details, variants);
  preload();
}

// Show a picture by its key, which never changes its meaning; by its name where the hidden folder is not served.
function setPicture(image, details) {
  const named = details.path ? `../${details.path.split("/").map(encodeURIComponent).join("/")}` : null;
  image.onerror = () => {
    image.onerror = () => image.replaceWith(make("span", { className: "none" }, "The file is not there"));
    image.src = named;
  };
  if (details.picture) image.src = `../${details.picture}`;
}

async function showStage(position, details, variants) {
  const stage = byId("stage");
  stage.classList.toggle("several", beside && variants.length > 1);
  if (beside && variants.length > 1) {
    const shownVariants = variants.slice(0, 60);
    const figures = shownVariants.map((other) => {
      const image = make("img", { alt: "" });
      gallery.details_of(other).then((found) => setPicture(image, found), ignore);
      image.onload = () => showPixels(image);
      const figure = make("figure", { className: other === position ? "this" : "" }, image, make("figcaption", {}, difference(other, variants)));
      if (!isShown(other)) image.replaceWith(make("span", { className: "none failed" }, STATUS_NAMES[gallery.model.get("status", other)]));
      figure.onclick = () => openImage(other, true);
      return figure;
    });
    stage.replaceChildren(...figures);
    return;
  }
  if (!details.picture) {
    const status = gallery.model.get("status", position);
    const error = details.error ? make("p", { className: "error", dir: "auto" }, details.error) : null;
    stage.replaceChildren(make("div", { className: "no-picture" }, make("strong", {}, STATUS_NAMES[status] || "No picture"), error));
    return;
  }
  const image = make("img", { alt: brief(gallery.model.get("prompt", position), 400), title: "Click: actual size, or fitted" });
  // The thumbnail stands there until the picture is loaded.
  const thumbnail = await gallery.thumbnail(position).catch(() => null);
  if (gallery.query.image !== position) return;
  if (thumbnail) stage.style.setProperty("--thumbnail", `url("${thumbnail}")`);
  else stage.style.removeProperty("--thumbnail");
  image.width = gallery.model.get("size", position).split("×")[0];
  image.height = gallery.model.get("size", position).split("×")[1];
  image.onload = () => {
    image.classList.add("loaded");
    showPixels(image);
  };
  image.onclick = () => stage.classList.toggle("actual");
  stage.classList.remove("actual");
  stage.replaceChildren(image);
  setPicture(image, details);
}

function isShown(position) {
  const status = gallery.model.get("status", position);
  return status !== "failed" && status !== "pending";
}

// What could not be loaded has been named by `problem`.
function ignore() {}

// Load the neighbours' pictures, so that they are there when they are asked for.
function preload() {
  const all = sequence();
  const here = all.indexOf(gallery.query.image);
  for (const neighbour of [all[here + 1], all[here - 1]]) {
    if (here >= 0 && neighbour !== undefined && isShown(neighbour)) gallery.details_of(neighbour).then((found) => setPicture(new Image(), found), ignore);
  }
}

function toggleBeside() {
  if (byId("beside").hidden) return;
  beside = !beside;
  showImage(gallery.query.image);
}

function facts(position, details, variants) {
  const { model } = gallery;
  const prompt = model.get("prompt", position) || "";
  const where = `row ${model.get("row", position)}` + (model.get("condition", position) ? `, message ${model.get("condition", position)}` : "") + `, image ${model.get("image", position)}`;
  const marks = make("p", { className: "marks" });
  const status = model.get("status", position);
  if (!isShown(position)) marks.append(make("b", { className: status }, STATUS_NAMES[status]));
  for (const flag of model.flags(position)) marks.append(make("b", { className: flag, title: FLAG_TEXTS[flag] }, FLAG_NAMES[flag]));
  const result = [
    make("p", { className: "where" }, where),
    make("h2", {}, "Prompt", copyButton(() => prompt)),
    promptElement(prompt, details.prompt_lengths),
  ];
  if (marks.children.length) result.push(marks);
  if (details.error) result.push(make("p", { className: "error", dir: "auto" }, details.error));
  if (variants.length > 1) result.push(strip(`${number(variants.length)} images of this prompt`, variants, position));
  for (const [name, text] of [["twin", "images with the same pixels"], ["alike", "images that look alike"]]) {
    const group = model.group(name, position);
    if (group.length > 1) result.push(strip(`${number(group.length)} ${text}`, group, position));
  }
  result.push(...tables(position, details));
  if (details.command_run) {
    const command = `${details.command_data}\n${details.command_run}`;
    const lacks = details.command_lacks ? make("p", { className: "where" }, `To be added: ${details.command_lacks}`) : null;
    result.push(make("h2", {}, "Make exactly this image again", copyButton(() => command)), make("pre", { className: "command", dir: "ltr" }, command));
    if (lacks) result.push(lacks);
  }
  if (details.path) {
    const file = make("a", { href: `../${details.picture}`, target: "_blank", rel: "noopener" }, details.path);
    result.push(make("h2", {}, "File"), make("p", { className: "file" }, file));
  }
  return result;
}

// The prompt, with what a text encoder did not see marked where it is the end of the prompt.
function promptElement(prompt, lengths) {
  const element = make("p", { className: "prompt", dir: "auto" });
  const cuts = (lengths || []).map((length) => length.cut).filter((cut) => cut && cut.trim() && prompt.trimEnd().endsWith(cut.trim()));
  const cut = cuts.sort((a, b) => b.length - a.length)[0];
  if (!cut) {
    element.append(prompt);
    return element;
  }
  const at = prompt.trimEnd().length - cut.trim().length;
  element.append(prompt.slice(0, at), make("mark", { title: "A text encoder did not see this" }, prompt.slice(at)));
  return element;
}

function strip(title, positions, here) {
  const element = make("div", { className: "strip" });
  for (const position of positions.slice(0, 60)) {
    const link = make("a", { className: position === here ? "this" : "", href: address({ ...gallery.query, image: position }), title: difference(position, positions) });
    link.onclick = (event) => {
      event.preventDefault();
      openImage(position, true);
    };
    const box = make("span", { className: "thumb" });
    fillThumbnail(box, position, difference(position, positions));
    link.append(box);
    element.append(link);
  }
  const more = positions.length > 60 ? make("p", { className: "where" }, `and ${number(positions.length - 60)} more: search for the prompt`) : "";
  return make("section", {}, make("h2", {}, title), element, more);
}

function tables(position, details) {
  const { model } = gallery;
  const values = { ...details };
  for (const name of gallery.head.looks) values[name] = model.get(name, position);
  for (const name of ["row", "condition", "image", "error", "path", "picture", "command_data", "command_run", "command_lacks"]) delete values[name];
  const scores = Object.keys(values).filter((name) => name.startsWith("score_"));
  const groups = { ...GROUPS, Scores: scores, Picture: gallery.head.looks };
  const known = new Set(Object.values(groups).flat());
  const result = [];
  const rest = Object.keys(values).filter((name) => !known.has(name));
  for (const [title, names] of [...Object.entries(groups), ["Identity", rest]]) {
    const table = make("dl", {});
    for (const name of names) {
      if (values[name] === null || values[name] === undefined || values[name] === "" || values[name] === "[]") continue;
      table.append(make("dt", {}, nameOf(name)), make("dd", { dir: "auto" }, ...described(name, values[name])));
    }
    if (table.children.length) result.push(make("h2", {}, title), table);
  }
  return result;
}

// Return what is shown of a value: text, or a line for each part of it.
function described(name, value) {
  if (name === "prompt_lengths") {
    return value.map((length) => make("div", {}, `${length.encoder}: ${length.tokens} of ${length.limit} tokens`, length.cut ? make("mark", {}, ` cut: ${brief(length.cut, 400)}`) : ""));
  }
  if (name === "status") return [STATUS_NAMES[value] || value];
  if (name === "file_size") return [`${number(value)} bytes`];
  if (typeof value === "string" && /^[[{]/.test(value)) {
    try {
      const parsed = JSON.parse(value);
      if (!Array.isArray(parsed)) return Object.entries(parsed).map(([key, item]) => make("div", {}, `${key}: ${shown(item)}`));
      return parsed.map((item) => make("div", {}, Array.isArray(item) ? item.map(shown).join(" × ") : shown(item)));
    } catch {
      return [value];
    }
  }
  return [shown(value)];
}

function copyButton(text) {
  const button = make("button", { className: "link copy", type: "button" }, "Copy");
  button.onclick = async () => {
    button.textContent = (await copied(text())) ? "Copied" : "Select it and press Ctrl+C";
    setTimeout(() => (button.textContent = "Copy"), 2000);
  };
  return button;
}

async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = make("textarea", { value: text, className: "offscreen" });
    byId("viewer").append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}

function listenToSwipes() {
  let start = null;
  const stage = byId("stage");
  stage.addEventListener("touchstart", (event) => (start = event.touches.length === 1 ? event.touches[0] : null), { passive: true });
  stage.addEventListener("touchend", (event) => {
    if (!start || stage.classList.contains("actual")) return;
    const end = event.changedTouches[0];
    const [x, y] = [end.clientX - start.clientX, end.clientY - start.clientY];
    if (Math.abs(x) > 60 && Math.abs(x) > 2 * Math.abs(y)) step(x > 0 ? -1 : 1);
  });
}
