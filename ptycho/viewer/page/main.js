// The page: a picture of the object, the probe, the patterns, the curves, and how far the work is.

import { drawCharts, short } from "./charts.js";
import { colour, complexColour, cyclic, keepMaps, sequential } from "./colours.js";
import { PatternPanel } from "./pattern.js";
import { ImageView } from "./view.js";
import { client, json } from "./wire.js";

const find = (id) => document.getElementById(id);
const PACE = { visible: 0.5, hidden: 5 };

const page = {
  about: null,
  picture: null, // header of the picture in sight
  version: -1,
  chosen: null,
  places: new Float32Array(),
  known: null,
  maps: { phase: null, amplitude: "gray" }, // chosen by the reader; null takes what suits the phase
  ranges: {}, // limits typed by the reader, by image and quantity
  ticking: null,
};
const view = new ImageView(find("view"), { cursor: (value) => read(value, "readout", true), pick });
const probe = new ImageView(find("probe-view"), { cursor: (value) => read(value, "probe-readout", false) });
const pattern = new PatternPanel({ choose });

function read(value, id, absolute) {
  find(id).textContent = value ? described(value, absolute) : "\u00a0";
}

function described({ row, column, re, im, step }, absolute) {
  const [top, left] = absolute ? page.picture.origin : [0, 0];
  const place = `row ${+(row + top).toFixed(2)}, column ${+(column + left).toFixed(2)}`;
  const mean = step > 1 ? ` (mean of ${step} × ${step})` : "";
  if (re !== re) return `${place}: nothing is known here`;
  return `${place}: amplitude ${short(Math.hypot(re, im))}, phase ${Math.atan2(im, re).toFixed(3)} rad${mean}`;
}

// ---- what is shown, and in which colours

const quantity = () => find("quantity").value;
const imageName = () => find("image").value || "object";

function automatic(limits, kind) {
  if (kind === "complex") return { quantity: kind, map: "gray", low: 0, high: limits.amplitude[1] };
  if (kind === "amplitude") return { quantity: kind, map: page.maps.amplitude, low: limits.amplitude[0], high: limits.amplitude[1] };
  const wraps = limits.phase[1] - limits.phase[0] > 1.6 * Math.PI;
  const map = page.maps.phase ?? (wraps ? "twilight" : "viridis");
  const [low, high] = cyclic.includes(map) ? [-Math.PI, Math.PI] : limits.phase;
  return { quantity: kind, map, low, high };
}

function recolour() {
  if (!page.picture) return;
  const header = page.picture.images[imageName()] ?? page.picture.images.object;
  const settings = { ...automatic(header.limits, quantity()), ...page.ranges[`${imageName()} ${quantity()}`] };
  view.paintWith(settings);
  const options = quantity() === "phase" ? [...cyclic, ...sequential] : sequential;
  choices(find("colours"), options.map((name) => [name, name]), settings.map);
  find("colours").disabled = quantity() === "complex";
  for (const [id, value] of [["low", settings.low], ["high", settings.high]]) {
    if (document.activeElement !== find(id)) find(id).value = +value.toPrecision(4);
  }
  for (const id of ["least", "most"]) find(id).hidden = quantity() !== "complex";
  find("from").hidden = quantity() === "complex";
  find("unit").textContent = quantity() === "phase" ? "rad" : "";
  drawScale(settings);
  const mode = page.picture.images[find("mode").value];
  if (mode) probe.paintWith({ ...automatic(mode.limits, find("probe-quantity").value), ...probeRange(mode) });
}

function probeRange(mode) {
  const kind = find("probe-quantity").value;
  return kind === "phase" ? { map: "twilight", low: -Math.PI, high: Math.PI } : { map: "viridis", low: 0, high: mode.limits.amplitude[1] };
}

function drawScale(settings) {
  const context = find("scale").getContext("2d");
  const image = context.createImageData(256, 14);
  const pixels = new Uint32Array(image.data.buffer);
  for (let k = 0; k < pixels.length; k++) {
    const share = (k % 256) / 255;
    const bright = 1 - Math.floor(k / 256) / 14;
    const angle = 2 * Math.PI * (share - 0.5);
    pixels[k] = settings.quantity === "complex"
      ? complexColour(bright * Math.cos(angle), bright * Math.sin(angle), 1)
      : colour(settings.map, share);
  }
  context.putImageData(image, 0, 0);
}

function choices(select, options, chosen) {
  const wanted = JSON.stringify(options);
  if (select.dataset.options !== wanted) {
    select.replaceChildren(...options.map(([value, text]) => new Option(text, value)));
    select.dataset.options = wanted;
  }
  if (chosen !== undefined && options.some(([value]) => value === chosen)) select.value = chosen;
}

function showSources() {
  const { picture, version } = page;
  const flat = find("flat").checked;
  const source = (name, pixelSize) => ({ version, name, flat, ...picture.images[name], tile: picture.tile, pixelSize });
  view.show(source(imageName(), picture.pixel_size));
  probe.show(source(find("mode").value, picture.pixel_size));
  recolour();
}

function mark() {
  const side = page.picture ? page.picture.images["probe 1"].shape[0] : 0;
  view.mark({ places: page.places, known: page.known, chosen: page.chosen, side, visible: find("dots").checked });
}

// ---- pictures and patterns

async function load(version) {
  const flat = find("flat").checked ? 1 : 0;
  try {
    const [picture, { arrays }] = await Promise.all([json("picture", { version, flat }), framed("places", { version })]);
    Object.assign(page, { picture, version, places: arrays.places.data });
    page.known = picture.at_hand === null ? null : new Set(picture.at_hand);
  } catch (error) {
    if (error.status === 404) return false; // a newer one has taken its place
    throw error;
  }
  const images = Object.entries(page.picture.images);
  choices(find("image"), images.filter(([name]) => !name.startsWith("probe")).map(([name]) => [name, name]), imageName());
  const modes = images.filter(([name]) => name.startsWith("probe"));
  choices(find("mode"), modes.map(([name, each]) => [name, modes.length > 1 ? `${name.slice(6)}: ${(100 * each.share).toPrecision(3)} %` : name.slice(6)]), find("mode").value);
  find("object-title").textContent = page.picture.label ? `Object: ${page.picture.label}` : "Object";
  pattern.expect(page.picture.positions);
  find("waiting").hidden = true;
  showSources();
  mark();
  if (page.chosen !== null) pattern.show(version, page.chosen);
  return true;
}

const framed = async (name, query) => (await import("./wire.js")).frame(name, query);

function choose(index) {
  page.chosen = index;
  mark();
  view.centre(page.places[4 * index], page.places[4 * index + 1]);
  pattern.show(page.version, index);
}

function pick(row, column) {
  let [best, nearest] = [Infinity, null];
  for (let k = 0; 4 * k < page.places.length; k++) {
    const apart = Math.hypot(page.places[4 * k] + 0.5 - row, page.places[4 * k + 1] + 0.5 - column);
    if (apart < best) [best, nearest] = [apart, k];
  }
  if (nearest !== null) choose(nearest);
}

// ---- how far the work is

const FIGURES = { loss: "loss", val_loss: "validation loss", r_factor: "R-factor" };
const WORDS = { running: "running", finished: "finished", failed: "failed", interrupted: "interrupted", lost: "connection lost" };

const exact = (value) => (value === null ? "unknown" : `${+value.toPrecision(6)}`);

function clock(seconds) {
  const [whole, two] = [Math.max(0, Math.floor(seconds)), (value) => String(value).padStart(2, "0")];
  return `${Math.floor(whole / 3600)}:${two(Math.floor(whole / 60) % 60)}:${two(whole % 60)}`;
}

function tell(state) {
  find("progress").hidden = !page.about.live;
  const pill = find("pill");
  if (page.about.live && pill.textContent !== WORDS[state.status]) {
    pill.textContent = WORDS[state.status];
    pill.className = `pill ${state.status}`;
  }
  const step = state.steps.at(-1);
  if (step) {
    find("step").textContent = state.ended ? (state.message ?? "") : `${step.words}, ${step.done} of ${step.total}`;
    find("bar").value = state.status === "finished" ? 1 : step.done / (step.total || 1);
    const told = Object.keys(FIGURES).filter((name) => name in step.metrics);
    find("figures").textContent = told.map((name) => `${FIGURES[name]} ${exact(step.metrics[name])}`).join(", ");
  } else if (state.ended) find("step").textContent = state.message ?? "";
  tick(state);
  if (state.headline) {
    find("headline").replaceChildren(...state.headline.map(([label, value, remark]) => {
      const item = Object.assign(document.createElement("li"), { title: remark });
      item.append(Object.assign(document.createElement("span"), { textContent: label }), Object.assign(document.createElement("b"), { textContent: value }));
      return item;
    }));
  }
  find("curves").hidden = !state.charts.length;
  drawCharts(find("charts"), state.charts);
  const percent = step && !state.ended ? `${Math.floor((100 * step.done) / (step.total || 1))} % ${step.words}` : WORDS[state.status];
  document.title = page.about.live ? `${percent}: ${page.about.title}` : `${page.about.title}: ptycho`;
  if (state.picture === undefined && page.about.live) {
    find("waiting").hidden = false;
    find("waiting").textContent = state.ended ? "No picture was made." : "The picture comes with the next epoch.";
  }
}

function tick(state) {
  clearInterval(page.ticking);
  if (state.elapsed === null || state.elapsed === undefined) return;
  const from = performance.now() - 1000 * state.elapsed;
  const show = () => { find("elapsed").textContent = clock((performance.now() - from) / 1000); };
  show();
  if (!state.ended) page.ticking = setInterval(show, 1000);
}

function lost(text) {
  find("banner").hidden = !text;
  find("banner").textContent = text;
}

let again = new AbortController();
document.addEventListener("visibilitychange", () => again.abort());

async function follow() {
  for (let after = -1; ;) {
    const visible = document.visibilityState === "visible";
    again = new AbortController();
    try {
      const query = { client, after, pace: after < 0 ? 0 : PACE[visible ? "visible" : "hidden"], looks: visible ? 1 : 0 };
      const state = await json("state", query, again.signal);
      lost("");
      after = state.version;
      tell(state);
      if (state.picture !== undefined && state.picture !== page.version && (visible || state.ended)) await load(state.picture);
      if (state.ended) {
        await Promise.all([view.settled(), probe.settled()]);
        await json("farewell", { client });
        return lost("");
      }
      if (!page.about.live) return undefined;
    } catch (error) {
      if (error.name === "AbortError") continue;
      clearInterval(page.ticking);
      Object.assign(find("pill"), { textContent: WORDS.lost, className: "pill lost" });
      lost("The run does not answer any more: it was stopped, or this machine has lost it. This is the last state that was seen.");
      await new Promise((resolve) => setTimeout(resolve, 3000));
    }
  }
}

function listDetails({ details = {} }) {
  find("details").hidden = !Object.keys(details).length;
  find("tables").replaceChildren(...Object.entries(details).map(([name, rows]) => {
    const table = document.createElement("table");
    table.createCaption().textContent = name;
    for (const [key, value] of rows) {
      const row = table.insertRow();
      row.append(Object.assign(document.createElement("th"), { textContent: key, scope: "row" }), Object.assign(document.createElement("td"), { textContent: value }));
    }
    return table;
  }));
}

function listen() {
  find("quantity").addEventListener("change", recolour);
  find("colours").addEventListener("change", () => { page.maps[quantity()] = find("colours").value; recolour(); });
  find("image").addEventListener("change", showSources);
  find("mode").addEventListener("change", showSources);
  find("probe-quantity").addEventListener("change", recolour);
  find("flat").addEventListener("change", () => page.picture && load(page.version).catch(() => lost("The server of this page has ended.")));
  find("dots").addEventListener("change", mark);
  find("closer").addEventListener("click", () => view.zoom(1.5));
  find("farther").addEventListener("click", () => view.zoom(1 / 1.5));
  find("whole").addEventListener("click", () => view.fit());
  find("native").addEventListener("click", () => view.zoom(1 / (view.scale * (devicePixelRatio || 1))));
  for (const id of ["low", "high"]) {
    find(id).addEventListener("change", () => {
      const [low, high] = [Number(find("low").value), Number(find("high").value)];
      if (Number.isFinite(low) && high > low) page.ranges[`${imageName()} ${quantity()}`] = { low, high };
      recolour();
    });
  }
  find("auto").addEventListener("click", () => { delete page.ranges[`${imageName()} ${quantity()}`]; recolour(); });
  document.addEventListener("keydown", (event) => {
    if (event.target.closest("input, select, button, summary") || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "n") pattern.step(pattern.on, 1);
    if (event.key === "p") pattern.step(pattern.on, -1);
  });
}

async function begin() {
  const [about, maps] = await Promise.all([json("about"), json("colours")]);
  keepMaps(maps);
  page.about = about;
  find("title").textContent = about.title;
  find("subtitle").textContent = about.command ?? "";
  if (about.patterns) pattern.say(about.patterns, true);
  listDetails(about);
  if (about.live) find("patterns").before(find("curves"), find("probe"));
  listen();
  await follow();
}

begin().catch((error) => lost(`The page cannot be shown: ${error.message}`));
