"use strict";
// Colours the text by a unit, and tells of each character what came of it. What comes from data is inserted as text.

const about = JSON.parse(document.getElementById("description").textContent);
const [layer, unit, slide, part, shown, place, told, panel] = ["layer", "unit", "slide", "part", "shown", "place", "told", "about"].map(
  (id) => document.getElementById(id),
);
const NAMES = { h: "output h", c: "cell state c", loss: "loss" };
const MOST_NATS = 6; // that a colour tells apart
const key = (row) => [row.part, row.layer, row.unit].join();
const rows = new Map(about.rows.map((row, number) => [key(row), { ...row, number }]));
const spans = [];
let arrays;
let current; // the row that is shown; null for the loss
let at = 0;

const number = (value, digits) => value.toFixed(digits).replace("-", "−");

async function unpack() {
  const text = atob(document.getElementById("data").textContent);
  const bytes = Uint8Array.from(text, (each) => each.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const buffer = await new Response(stream).arrayBuffer();
  const [count, next] = [about.characters, about.next];
  let offset = 0;
  const take = (kind, length) => {
    const found = new kind(buffer, offset, length);
    offset += found.byteLength;
    return found;
  };
  return {
    ids: take(Uint32Array, count),
    next: take(Uint32Array, count * next),
    nats: take(Float32Array, count),
    probabilities: take(Uint16Array, count * next),
    values: take(Int8Array, count * about.rows.length),
  };
}

function write() {
  for (const id of arrays.ids) {
    const span = document.createElement("span");
    span.textContent = about.shown[id];
    if (/^[↵→]/.test(span.textContent)) span.className = "mark";
    span.at = spans.length;
    spans.push(span);
  }
  shown.append(...spans);
}

// The value of the current row at a character, in parts of its scale.
const value = (where) => (current ? arrays.values[current.number * about.characters + where] / 127 : Math.min(arrays.nats[where] / MOST_NATS, 1));

function colour() {
  spans.forEach((span, where) => {
    const here = value(where);
    const strength = 0.85 * Math.abs(here);
    span.style.background = strength < 0.03 ? "" : `rgb(var(--${here < 0 ? "low" : "high"}) / ${strength.toFixed(2)})`;
  });
  const one = !current || !["h", "c"].includes(current.part);
  const least = document.getElementById("least");
  least.parentNode.classList.toggle("one", one);
  least.textContent = one ? "0" : number(-current.scale, 2);
  document.getElementById("most").textContent = current ? number(current.scale, 2) : `${MOST_NATS} nats and more`;
}

function unitsOf(wanted) {
  return about.rows.filter((row) => row.part === "h" && row.layer === wanted).map((row) => row.unit);
}

function choose(wanted) {
  const kept = unitsOf(wanted.layer);
  const index = kept.indexOf(wanted.unit);
  if (index < 0) {
    const why = about.left_out && wanted.unit >= 0 && wanted.unit < about.units ? "was left out of this page" : "does not exist";
    told.textContent = `Unit ${wanted.unit} of layer ${wanted.layer + 1} ${why}; units go from 0 to ${about.units - 1}.`;
    return;
  }
  const parts = about.rows.filter((row) => row.layer === wanted.layer && row.unit === wanted.unit).map((row) => row.part);
  const options = [...parts, "loss"].map((each) => new Option(NAMES[each] ?? `${each} gate`, each));
  part.replaceChildren(...options);
  part.value = [...parts, "loss"].includes(wanted.part) ? wanted.part : "h";
  layer.value = wanted.layer;
  if (document.activeElement !== unit || Number(unit.value) !== wanted.unit) unit.value = wanted.unit;
  slide.max = kept.length - 1;
  slide.value = index;
  slide.setAttribute("aria-valuetext", `unit ${wanted.unit}`);
  current = part.value === "loss" ? null : rows.get(key({ ...wanted, part: part.value }));
  const what = `layer ${wanted.layer + 1}, unit ${wanted.unit}, ${NAMES[part.value] ?? `${part.value} gate`}`;
  told.textContent = current ? `Shown: ${what}.` : "Shown: the loss of each character.";
  if (about.left_out) told.textContent += ` ${about.left_out.toLocaleString("en")} units that move least were left out.`;
  colour();
  tell();
}

function element(tag, text, name) {
  const found = document.createElement(tag);
  found.textContent = text;
  if (name) found.className = name;
  return found;
}

function tell() {
  const nats = arrays.nats[at];
  const title = element("h3", "");
  title.append(element("code", about.names[arrays.ids[at]]), ` character ${(at + 1).toLocaleString("en")}`);
  const lines = [element("div", `loss ${number(nats, 2)} nats, ${number(nats / Math.LN2, 2)} bits`)];
  if (current) lines.push(element("div", `unit ${current.unit}: ${number(value(at) * current.scale, 2)}`));
  const list = document.createElement("ol");
  for (let rank = 0; rank < about.next; rank += 1) {
    const where = at * about.next + rank;
    const percent = arrays.probabilities[where] / 655.35;
    const came = arrays.ids[at + 1] === arrays.next[where];
    const item = element("li", "", came ? "came" : "");
    const bar = element("i", "");
    bar.style.width = `${percent}%`;
    item.append(element("code", about.names[arrays.next[where]] + (came ? " ✓" : "")), element("span", `${number(percent, 1)} %`), bar);
    list.append(item);
  }
  panel.replaceChildren(title, ...lines, element("h3", "likeliest next"), list);
}

function move(where, scroll) {
  if (where < 0 || where >= spans.length) return;
  spans[at].classList.remove("at");
  at = where;
  spans[at].classList.add("at");
  place.value = at;
  if (scroll) spans[at].scrollIntoView({ block: "nearest", inline: "nearest" });
  tell();
}

// The character above or below: of the nearest line in that direction, the one that is nearest to this column.
function vertical(step) {
  const from = spans[at].getBoundingClientRect();
  let best = at;
  let distance = Infinity;
  let line = null;
  for (let where = at + step; where >= 0 && where < spans.length; where += step) {
    const box = spans[where].getBoundingClientRect();
    if (Math.abs(box.top - from.top) < 4) continue;
    line ??= box.top;
    if (Math.abs(box.top - line) > 4) break;
    if (Math.abs(box.left - from.left) < distance) [best, distance] = [where, Math.abs(box.left - from.left)];
  }
  return best;
}

const KEYS = {
  ArrowLeft: () => at - 1,
  ArrowRight: () => at + 1,
  ArrowUp: () => vertical(-1),
  ArrowDown: () => vertical(1),
  Home: () => 0,
  End: () => spans.length - 1,
};

function listen() {
  // Who chooses a unit while the loss is shown wants to see it.
  const asked = () => ({ part: part.value === "loss" ? "h" : part.value, layer: Number(layer.value), unit: Number(unit.value) });
  layer.addEventListener("change", () => {
    const kept = unitsOf(Number(layer.value));
    choose({ ...asked(), unit: kept.includes(Number(unit.value)) ? Number(unit.value) : kept[0] });
  });
  unit.addEventListener("input", () => unit.value !== "" && choose(asked()));
  part.addEventListener("change", () => choose({ ...asked(), part: part.value }));
  slide.addEventListener("input", () => choose({ ...asked(), unit: unitsOf(Number(layer.value))[slide.value] }));
  place.addEventListener("input", () => move(Number(place.value), true));
  document.querySelector(".choice").addEventListener("submit", (event) => event.preventDefault());
  const follow = (event) => event.target.at !== undefined && move(event.target.at, false);
  shown.addEventListener("click", follow);
  let pointer = "";
  shown.addEventListener("pointermove", (event) => {
    const here = `${event.clientX} ${event.clientY}`; // text that is scrolled under a pointer at rest moves nothing
    if (here !== pointer) follow(event);
    pointer = here;
  });
  shown.addEventListener("keydown", (event) => {
    if (!KEYS[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    move(KEYS[event.key](), true);
  });
  for (const button of document.querySelectorAll("button.show")) {
    button.addEventListener("click", () => {
      const { part, layer, unit } = button.dataset;
      choose({ part, layer: Number(layer), unit: Number(unit) });
      document.getElementById("text").scrollIntoView();
      shown.focus({ preventScroll: true });
    });
  }
}

async function start() {
  try {
    arrays = await unpack();
  } catch (error) {
    told.textContent = `This browser cannot unpack the page's data (${error.message}); use a newer one.`;
    return;
  }
  layer.replaceChildren(...Array.from({ length: about.layers }, (_, each) => new Option(each + 1, each)));
  document.getElementById("layer-choice").hidden = about.layers < 2;
  unit.max = about.units - 1;
  place.max = about.characters - 1;
  write();
  listen();
  choose(about.first);
  move(0, false);
  document.documentElement.dataset.ready = "true";
}

start();
