"use strict";
// The controls of the page: the address, filters, keys and colours.

// ---- The address: what is shown is in it, so that it can be kept and sent, and the browser's own buttons work.

const DEFAULTS = {
  view: "images", search: "", flag: "", seed: "", by: "", least: null, most: null, sort: "", descending: false, group: false,
  page: 0, image: null,
};

function isPlain(query) {
  return !query.search && !query.flag && !query.seed && !query.by && !query.sort && !query.group && !Object.keys(query.equal).length;
}

function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  const query = { ...DEFAULTS, equal: {} };
  for (const name of ["view", "search", "flag", "seed", "by", "sort"]) query[name] = given.get(name) || DEFAULTS[name];
  for (const name of ["least", "most", "image"]) query[name] = asNumber(given.get(name));
  for (const name of ["descending", "group"]) query[name] = given.get(name) === "1";
  query.page = asNumber(given.get("page")) || 0;
  for (const name of [...Object.keys(FACETS), "status"]) if (given.get(name)) query.equal[name] = given.get(name);
  if (query.image !== null && !(Number.isInteger(query.image) && query.image >= 0 && query.image < gallery.head.images)) {
    query.image = null;
  }
  gallery.query = query;
  showControls();
}

function asNumber(text) {
  return text === null || text.trim() === "" || Number.isNaN(Number(text)) ? null : Number(text);
}

function address(query) {
  const result = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (name === "equal" || value === DEFAULTS[name] || value === null) continue;
    result.set(name, value === true ? "1" : String(value));
  }
  for (const [name, value] of Object.entries(query.equal)) result.set(name, value);
  return "#" + result.toString();
}

// Change what is asked for; `push`: the browser's back button leads back to what was before.
function ask(changes, push = false) {
  gallery.query = { ...gallery.query, page: 0, ...changes };
  history[push ? "pushState" : "replaceState"](null, "", address(gallery.query));
  showControls();
  refresh();
}

// ---- Controls

function buildControls() {
  const head = gallery.head;
  const sort = byId("sort");
  sort.append(make("option", { value: "" }, "as in the data set"));
  const scores = make("optgroup", { label: "Scores" });
  const others = make("optgroup", { label: "Picture and making" });
  for (const name of head.sortable) {
    (name.startsWith("score_") ? scores : others).append(make("option", { value: name }, nameOf(name)));
  }
  if (scores.children.length) sort.append(scores);
  sort.append(others);
  buildPills();
  const filters = byId("filters");
  for (const [name, label] of Object.entries(FACETS)) {
    filters.append(make("label", { id: `facet-${name}`, hidden: true }, label, " ", make("select", { name })));
  }
  filters.append(make("label", {}, "Seed ", make("input", { name: "seed", inputMode: "numeric", size: 12, autocomplete: "off" })));
  const by = make("select", { name: "by" }, make("option", { value: "" }, "any score"));
  for (const name of head.sortable) by.append(make("option", { value: name }, nameOf(name)));
  filters.append(
    make("label", {}, "Range ", by),
    make("label", {}, "from ", make("input", { name: "least", inputMode: "decimal", size: 6, autocomplete: "off" })),
    make("label", {}, "to ", make("input", { name: "most", inputMode: "decimal", size: 6, autocomplete: "off" })),
  );
}

function buildPills() {
  const counts = gallery.head.counts;
  const pills = [["", "", "All", counts.images, ""]];
  for (const [name, label] of Object.entries(STATUS_NAMES)) {
    const some = name === "failed" || name === "pending" ? counts[name] > 0 : counts.generated > 0 && counts.reused > 0;
    if (some) pills.push(["status", name, label, counts[name], ""]);
  }
  for (const [name, label] of Object.entries(FLAG_NAMES)) {
    if (counts[name] > 0) pills.push(["flag", name, label, counts[name], FLAG_TEXTS[name]]);
  }
  for (const [kind, value, label, count, title] of pills) {
    const pill = make("button", { className: "pill", title }, label, " ", make("span", {}, number(count)));
    pill.dataset.kind = kind;
    pill.dataset.value = value;
    pill.onclick = () => {
      const equal = { ...gallery.query.equal };
      delete equal.status;
      if (kind === "status") equal.status = value;
      ask({ flag: kind === "flag" ? value : "", equal });
    };
    byId("pills").append(pill);
  }
}

// Filters for columns with more than one value; known once all images are loaded.
function buildFacets() {
  for (const name of Object.keys(FACETS)) {
    const values = gallery.model.facets(name, 100);
    const label = byId(`facet-${name}`);
    label.hidden = values.length < 2;
    const select = label.querySelector("select");
    select.replaceChildren(make("option", { value: "" }, "any"));
    for (const [value, count] of values) select.append(make("option", { value }, `${value} (${number(count)})`));
  }
  showControls();
}

function showControls() {
  const query = gallery.query;
  if (byId("search").value !== query.search) byId("search").value = query.search;
  byId("sort").value = query.sort;
  byId("direction").textContent = query.descending ? "↓" : "↑";
  byId("direction").title = query.descending ? "Largest first" : "Smallest first";
  byId("group").checked = query.group;
  for (const pill of byId("pills").children) {
    const { kind, value } = pill.dataset;
    const pressed = kind === "flag" ? query.flag === value : kind === "status" ? query.equal.status === value : !query.flag && !query.equal.status;
    pill.setAttribute("aria-pressed", pressed);
  }
  let active = 0;
  for (const field of byId("filters").elements) {
    const value = field.name in FACETS ? query.equal[field.name] : query[field.name];
    const text = value === undefined || value === null ? "" : String(value);
    if (document.activeElement !== field && field.value !== text) field.value = text;
    if (text) active++;
  }
  byId("active").textContent = active ? ` (${active})` : "";
  byId("clear").hidden = isPlain({ ...query, sort: "", group: false });
  const report = query.view === "report";
  byId("images").hidden = report;
  byId("report").hidden = !report;
  byId("show-images").setAttribute("aria-pressed", !report);
  byId("show-report").setAttribute("aria-pressed", report);
}

function showFilters(shown) {
  byId("filters").hidden = !shown;
  byId("more").setAttribute("aria-expanded", shown);
  layOut();
}

function listen() {
  let typing;
  byId("search").oninput = (event) => {
    clearTimeout(typing);
    typing = setTimeout(() => ask({ search: event.target.value }), 200);
  };
  byId("bar").onsubmit = (event) => {
    event.preventDefault();
    clearTimeout(typing);
    ask({ search: byId("search").value });
  };
  byId("filters").onsubmit = (event) => event.preventDefault();
  byId("filters").oninput = (event) => {
    const field = event.target;
    if (field.name in FACETS) {
      const equal = { ...gallery.query.equal };
      if (field.value) equal[field.name] = field.value;
      else delete equal[field.name];
      ask({ equal });
    } else ask({ [field.name]: field.name === "least" || field.name === "most" ? asNumber(field.value) : field.value.trim() });
  };
  byId("more").onclick = () => showFilters(byId("filters").hidden);
  if (byId("active").textContent) showFilters(true); // of the address that the page was opened with
  byId("sort").onchange = (event) => ask({ sort: event.target.value, descending: event.target.value.startsWith("score_") });
  byId("direction").onclick = () => ask({ descending: !gallery.query.descending });
  byId("group").onchange = (event) => ask({ group: event.target.checked });
  byId("clear").onclick = () => ask({ ...DEFAULTS, sort: gallery.query.sort, descending: gallery.query.descending, group: gallery.query.group, equal: {} });
  byId("page-back").onclick = () => turnPage(-1);
  byId("page-on").onclick = () => turnPage(1);
  byId("show-images").onclick = () => ask({ view: "images", page: gallery.query.page }, true);
  byId("show-report").onclick = () => ask({ view: "report", page: gallery.query.page }, true);
  byId("theme").onclick = nextTheme;
  byId("tile").value = remembered("tile") || 184;
  byId("tile").oninput = () => {
    remember("tile", byId("tile").value);
    layOut();
  };
  byId("back").onclick = closeImage;
  byId("previous").onclick = () => step(-1);
  byId("next").onclick = () => step(1);
  byId("beside").onclick = toggleBeside;
  addEventListener("scroll", () => requestAnimationFrame(showTiles), { passive: true });
  new ResizeObserver(layOut).observe(byId("grid"));
  addEventListener("hashchange", cameByAddress);
  addEventListener("popstate", cameByAddress);
  addEventListener("keydown", onKey);
  listenToSwipes();
}

let addressShown = null;
function cameByAddress() {
  if (addressShown === location.hash) return; // both events come for one change
  addressShown = location.hash;
  readAddress();
  refresh();
  openFromAddress();
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
  if (!byId("viewer").hidden) {
    const actions = { Escape: closeImage, ArrowLeft: () => step(-1), ArrowRight: () => step(1), Home: () => step(-Infinity), End: () => step(Infinity), v: toggleBeside };
    if (actions[event.key] && !typing) {
      event.preventDefault();
      actions[event.key]();
    }
  } else if (event.key === "/" && !typing) {
    event.preventDefault();
    ask({ view: "images", page: gallery.query.page });
    byId("search").focus();
  } else if (event.key === "Escape" && event.target === byId("search")) {
    ask({ search: "" });
  } else if (event.target.classList.contains("tile")) {
    moveFocus(event);
  }
}

// ---- Colours: as the system, light or dark

const THEMES = ["", "light", "dark"];

function restoreTheme() {
  document.documentElement.dataset.theme = remembered("theme") || "";
}

function nextTheme() {
  const now = document.documentElement.dataset.theme || "";
  const next = THEMES[(THEMES.indexOf(now) + 1) % THEMES.length];
  document.documentElement.dataset.theme = next;
  remember("theme", next);
  byId("theme").title = `Colours: ${next || "as the system"}`;
}

// A browser may refuse to keep anything for a page from disk.
function remembered(name) {
  try {
    return localStorage.getItem(`text2image-${name}`);
  } catch {
    return null;
  }
}

function remember(name, value) {
  try {
    localStorage.setItem(`text2image-${name}`, value);
  } catch {
    // Then it is as before when the page is opened again.
  }
}
