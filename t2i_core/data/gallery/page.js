"use strict";
// The page of the gallery: what is shown of the model, and what is done with mouse, fingers and keys. Texts from the
// data set reach the page as text only, never as HTML.

let PAGE_IMAGES = 50000; // one page of tiles: browsers limit how tall a page may be
const KEPT_THUMBNAILS = 96; // chunks of thumbnails in memory
const KEPT_DETAILS = 24;
const LOADING = 4; // scripts that are loaded at a time
const GAP = 10;
const CAPTION = 40;
const HEADING = 34;
const FACETS = { size: "Size", model_name: "Model", steps: "Steps", guidance_scale: "Guidance", scheduler: "Scheduler" };
const FLAG_NAMES = {
  cut: "Cut", duplicate: "Duplicate", alike: "Alike", blank: "Blank", low_detail: "Low detail", replaced: "New seed", unread: "Not understood",
};
const FLAG_TEXTS = {
  cut: "The prompt is longer than a text encoder takes", duplicate: "Another image has the same pixels",
  alike: "Another image looks nearly the same",
  blank: "Nearly of one colour", low_detail: "Hardly an edge in it",
  replaced: "The image failed, and this one with a new seed stands for it", unread: "A text encoder does not know much of the prompt",
};
const STATUS_NAMES = { generated: "New", reused: "Reused", failed: "Failed", pending: "Not made yet" };
const NAMES = {
  row: "Row", condition: "Message", image: "Image", seed: "Seed", tokens: "Prompt length", seconds: "Seconds",
  brightness: "Brightness", contrast: "Contrast", colour: "Colour", detail: "Detail", guidance_scale: "Guidance scale",
  true_cfg_scale: "True CFG scale", max_sequence_length: "Text length", negative_prompt: "Negative prompt",
  source_prompt: "Prompt before the template", scheduler_options: "Scheduler options", model: "Model identity",
  model_name: "Model", dtype: "Data type", tf32: "TF32", pixels_sha256: "Pixels (SHA-256)", file_size: "Bytes",
  vae_tiling: "Decoded in tiles", prompt_lengths: "Prompt length", replaces: "Stands for", batch_size: "Images in the call",
};
// What the image page shows, in groups; what no group names comes last. Null values are left out.
const GROUPS = {
  Settings: ["seed", "width", "height", "steps", "guidance_scale", "true_cfg_scale", "negative_prompt", "scheduler",
    "scheduler_options", "max_sequence_length", "model_name", "adapters", "dtype", "quantization", "attention", "step_cache"],
  Scores: [], // every column of a score
  Picture: [], // what the thumbnails tell
  Text: ["source_prompt", "prompt_lengths"],
  "How it was made": ["status", "run", "created", "seconds", "device", "batch_size", "versions", "tuning"],
};

function nameOf(column) {
  if (NAMES[column]) return NAMES[column];
  const words = column.replace(/^score_/, "").replaceAll("_", " ");
  return words.charAt(0).toUpperCase() + words.slice(1);
}

function number(value) {
  return value.toLocaleString("en");
}

function shown(value) {
  if (typeof value === "number") return Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(5)));
  if (typeof value === "boolean") return value ? "yes" : "no";
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

// Make an element; `children` are elements or text.
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name in element && name !== "list") element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

function byId(id) {
  return document.getElementById(id);
}

// Scripts as files of data: each is loaded once while it is kept, and the oldest are forgotten.
class Scripts {
  constructor(folder, kept) {
    this.folder = folder;
    this.kept = kept;
    this.loading = new Map();
    this.values = new Map();
  }
  get(name) {
    if (this.values.has(name)) {
      const value = this.values.get(name);
      this.values.delete(name);
      this.values.set(name, value); // the newest again
      return Promise.resolve(value);
    }
    if (!this.loading.has(name)) this.loading.set(name, this.load(name));
    return this.loading.get(name);
  }
  load(name) {
    return new Promise((resolve, reject) => {
      const script = make("script", { src: `${this.folder}/${name}.js` });
      script.onload = () => {
        script.remove();
        this.loading.delete(name);
        resolve(this.values.get(name));
      };
      script.onerror = () => {
        script.remove();
        this.loading.delete(name);
        problem(`${this.folder}/${name}.js could not be loaded. Keep the folder of this page whole, or write it again.`);
        reject(new Error(name));
      };
      document.head.append(script);
    });
  }
  keep(name, value) {
    this.values.set(name, value);
    while (this.values.size > this.kept) this.values.delete(this.values.keys().next().value);
  }
}

function problem(text) {
  byId("problem").textContent = text;
  byId("problem").hidden = false;
}

const gallery = {
  model: null,
  head: null,
  order: new Int32Array(0), // the positions that are asked for
  groups: null, // the same by prompt, where that is asked for
  thumbnailScripts: new Scripts("thumbnails", KEPT_THUMBNAILS),
  detailScripts: new Scripts("details", KEPT_DETAILS),
  query: null,

  // Called by the scripts in data/, thumbnails/ and details/.
  images(start, count, columns) {
    this.model.add(start, count, columns);
  },
  thumbnails(name, list) {
    this.thumbnailScripts.keep(name, list);
  },
  details(start, columns) {
    this.detailScripts.keep(this.head.details[start / this.head.details_chunk], columns);
  },

  start(head) {
    this.head = head;
    this.model = new Model(head);
    restoreTheme();
    buildControls();
    readAddress();
    listen();
    this.loadAll();
  },
  // Load the columns of all images, those of the first chunk before the others, and show what is there meanwhile.
  async loadAll() {
    const scripts = new Scripts("data", 0);
    const names = [...this.head.data];
    let next = 0;
    const worker = async () => {
      while (names.length) {
        await scripts.get(names.shift());
        // What is shown meanwhile costs a tenth of the time at most.
        const before = performance.now();
        if (before < next) continue;
        refresh();
        next = performance.now() + 300 + 10 * (performance.now() - before);
      }
    };
    try {
      if (names.length) await scripts.get(names.shift());
      refresh();
      await Promise.all(Array.from({ length: LOADING }, worker));
    } catch {
      return;
    }
    document.body.dataset.loaded = "all";
    buildFacets();
    refresh();
    openFromAddress();
  },
  async thumbnail(position) {
    const name = this.model.get("thumbnails", position);
    if (name === null) return null;
    const list = await this.thumbnailScripts.get(name);
    return list ? "data:image/jpeg;base64," + list[this.model.get("slot", position)] : null;
  },
  async details_of(position) {
    const chunk = Math.floor(position / this.head.details_chunk);
    const columns = await this.detailScripts.get(this.head.details[chunk]);
    const at = position % this.head.details_chunk;
    return Object.fromEntries(Object.entries(columns).map(([name, packed]) => [name, unpack(packed, at)]));
  },
};
