"use strict";
// The data of the gallery, without the page: columns of all images, which the scripts in data/ fill chunk by chunk;
// what is searched, filtered and sorted in them. An image goes by its position in the data set, from 0.

class TextColumn {
  // Each text is held once: `codes` has its number for every image, -1 where there is none.
  constructor(length) {
    this.codes = new Int32Array(length).fill(-1);
    this.values = [];
    this.numbers = new Map();
  }
  codeOf(value) {
    if (value === null || value === undefined) return -1;
    let code = this.numbers.get(value);
    if (code === undefined) {
      code = this.values.length;
      this.values.push(value);
      this.numbers.set(value, code);
    }
    return code;
  }
  fill(start, count, packed) {
    if (Array.isArray(packed)) {
      for (let i = 0; i < count; i++) this.codes[start + i] = this.codeOf(packed[i]);
    } else if ("codes" in packed) {
      const codes = packed.values.map((value) => this.codeOf(value));
      for (let i = 0; i < count; i++) this.codes[start + i] = packed.codes[i] < 0 ? -1 : codes[packed.codes[i]];
    } else {
      this.codes.fill(this.codeOf(packed.same), start, start + count);
    }
  }
  get(position) {
    const code = this.codes[position];
    return code < 0 ? null : this.values[code];
  }
}

class NumberColumn {
  constructor(length) {
    this.numbers = new Float64Array(length).fill(NaN);
  }
  fill(start, count, packed) {
    for (let i = 0; i < count; i++) {
      const value = unpack(packed, i);
      this.numbers[start + i] = value === null ? NaN : value;
    }
  }
  get(position) {
    const value = this.numbers[position];
    return Number.isNaN(value) ? null : value;
  }
}

// Return one value of a column in the form that `packing.py` wrote.
function unpack(packed, i) {
  if (Array.isArray(packed)) return packed[i];
  if ("codes" in packed) return packed.codes[i] < 0 ? null : packed.values[packed.codes[i]];
  return packed.same;
}

// Return what is searched for: words and "phrases" that a prompt has, those that it has not (-word), rows and seeds.
function parseSearch(text) {
  const search = { words: [], without: [], rows: [], seeds: [] };
  for (const match of text.matchAll(/(-?)(?:"([^"]*)"?|(\S+))/g)) {
    const [, minus, phrase, word] = match;
    const exact = /^(row|seed):(\d+)$/.exec(word || "");
    if (exact && !minus) search[exact[1] + "s"].push(exact[2]);
    else {
      const wanted = (phrase !== undefined ? phrase : word).toLowerCase();
      if (wanted) (minus ? search.without : search.words).push(wanted);
    }
  }
  return search;
}

class Model {
  // `head` is what index.html says of the gallery: how many images, which columns, which flags.
  constructor(head) {
    this.head = head;
    this.total = head.images;
    this.loaded = 0;
    this.here = new Uint8Array(this.total);
    this.text = Object.fromEntries(head.text.map((name) => [name, new TextColumn(this.total)]));
    this.numbers = Object.fromEntries(head.numbers.map((name) => [name, new NumberColumn(this.total)]));
    this.lowerCase = [];
  }
  add(start, count, columns) {
    for (const [name, packed] of Object.entries(columns)) {
      const column = this.text[name] || this.numbers[name];
      if (column) column.fill(start, count, packed);
    }
    this.here.fill(1, start, start + count);
    this.loaded += count;
  }
  get(name, position) {
    const column = this.text[name] || this.numbers[name];
    return column ? column.get(position) : null;
  }
  flags(position) {
    const bits = this.numbers.flags.numbers[position];
    return this.head.flags.filter((name, bit) => (bits >> bit) & 1);
  }
  // Return the positions that `query` asks for, in its order.
  select(query) {
    const tests = this.tests(query);
    const found = new Int32Array(this.total);
    let count = 0;
    next: for (let i = 0; i < this.total; i++) {
      if (!this.here[i]) continue;
      for (const test of tests) if (!test(i)) continue next;
      found[count++] = i;
    }
    return this.sorted(found.slice(0, count), query.sort, query.descending);
  }
  tests(query) {
    const tests = [];
    const search = parseSearch(query.search || "");
    if (search.words.length || search.without.length) {
      const matching = this.matchingPrompts(search);
      const codes = this.text.prompt.codes;
      tests.push((i) => codes[i] >= 0 && matching[codes[i]] === 1);
    }
    if (search.rows.length) tests.push((i) => search.rows.includes(String(this.get("row", i))));
    const seeds = query.seed ? [query.seed] : search.seeds;
    if (seeds.length) tests.push((i) => seeds.includes(String(this.get("seed", i))));
    for (const [name, value] of Object.entries(query.equal || {})) tests.push((i) => String(this.get(name, i)) === value);
    if (query.flag) {
      const bit = 1 << this.head.flags.indexOf(query.flag);
      const flags = this.numbers.flags.numbers;
      tests.push((i) => (flags[i] & bit) !== 0);
    }
    const range = query.by && this.numbers[query.by];
    if (range) {
      if (query.least !== null) tests.push((i) => range.numbers[i] >= query.least);
      if (query.most !== null) tests.push((i) => range.numbers[i] <= query.most);
    }
    return tests;
  }
  // Return, for each different prompt, 1 where it has all the words and none of the others.
  matchingPrompts(search) {
    const prompts = this.text.prompt.values;
    const matching = new Uint8Array(prompts.length);
    for (let code = 0; code < prompts.length; code++) {
      if (this.lowerCase[code] === undefined) this.lowerCase[code] = prompts[code].toLowerCase();
      const prompt = this.lowerCase[code];
      const found = search.words.every((word) => prompt.includes(word));
      matching[code] = found && !search.without.some((word) => prompt.includes(word)) ? 1 : 0;
    }
    return matching;
  }
  // Sort positions by a column of numbers; images without a number come last, whichever the direction.
  sorted(positions, name, descending) {
    const column = name && this.numbers[name];
    if (!column) return descending ? positions.reverse() : positions;
    const values = column.numbers;
    const sign = descending ? -1 : 1;
    return positions.sort((a, b) => {
      const x = values[a];
      const y = values[b];
      if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y) || a - b;
      return sign * (x - y) || a - b;
    });
  }
  // Return positions grouped by prompt, in the order in which the prompts first come.
  grouped(positions) {
    const codes = this.text.prompt.codes;
    const groups = new Map();
    for (const position of positions) {
      const group = groups.get(codes[position]);
      if (group) group.push(position);
      else groups.set(codes[position], [position]);
    }
    return [...groups.values()];
  }
  // Return the images with the same prompt, this one among them.
  variants(position) {
    return this.equals(this.text.prompt.codes, position, -1);
  }
  // Return the images with the same number as this one, this one among them; none where it has no number. "twin": they
  // have the same pixels; "alike": they look nearly the same.
  group(name, position) {
    const numbers = this.numbers[name].numbers;
    return Number.isNaN(numbers[position]) ? [] : this.equals(numbers, position, NaN);
  }
  equals(values, position, none) {
    const found = [];
    const wanted = values[position];
    if (Object.is(wanted, none)) return [position];
    for (let i = 0; i < this.total; i++) if (values[i] === wanted && this.here[i]) found.push(i);
    return found;
  }
  // Return the different values of a column with how many images have each, the most frequent first.
  facets(name, most) {
    const counts = new Map();
    const column = this.text[name];
    for (let i = 0; i < this.total; i++) {
      const value = column ? column.codes[i] : this.numbers[name].numbers[i];
      if (!this.here[i] || (column ? value < 0 : Number.isNaN(value))) continue;
      counts.set(value, (counts.get(value) || 0) + 1);
      if (counts.size > most) return [];
    }
    const named = [...counts].map(([value, count]) => [column ? column.values[value] : String(value), count]);
    return named.sort((a, b) => b[1] - a[1]);
  }
}
