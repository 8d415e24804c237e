// The measured pattern of a position, the one that object and probe predict, and their difference.

import { paintShares } from "./colours.js";
import { short } from "./charts.js";
import { frame } from "./wire.js";

const find = (id) => document.getElementById(id);
const CANVASES = ["measured", "predicted", "difference"];

export class PatternPanel {
  // on.choose(index) when another position is asked for
  constructor(on) {
    Object.assign(this, { count: 0, index: null, answer: null, asked: 0 });
    find("index").addEventListener("change", () => this.ask(on, Number(find("index").value)));
    find("before").addEventListener("click", () => this.step(on, -1));
    find("next").addEventListener("click", () => this.step(on, 1));
    find("stretch").addEventListener("change", () => this.draw());
    this.on = on;
    for (const name of CANVASES) {
      find(name).addEventListener("pointermove", (event) => this.point(event));
      find(name).addEventListener("pointerleave", () => { find("pattern-readout").textContent = "\u00a0"; });
    }
  }

  expect(count) {
    this.count = count;
    find("index").max = Math.max(0, count - 1);
  }

  step(on, by) {
    if (this.count) this.ask(on, this.index === null ? 0 : (this.index + by + this.count) % this.count);
  }

  ask(on, index) {
    if (Number.isInteger(index) && index >= 0 && index < this.count) on.choose(index);
  }

  async show(version, index) {
    this.index = index;
    find("index").value = index;
    const asked = ++this.asked;
    try {
      const answer = await frame("pattern", { version, index });
      if (asked !== this.asked) return;
      this.answer = answer;
      this.draw();
    } catch (error) {
      if (asked === this.asked && error.status !== 404) this.say("The server of this page has ended, so no other pattern can be shown.", true);
    }
  }

  say(text, warn) {
    find("pattern-note").textContent = text;
    find("pattern-note").classList.toggle("warn", warn);
  }

  draw() {
    if (!this.answer) return;
    const { header, arrays } = this.answer;
    const place = `Position ${header.index} at (${header.row.toFixed(1)}, ${header.column.toFixed(1)})`;
    const figures = arrays.measured ? `: ${short(header.photons)} photons, R ${header.r_factor === null ? "unknown" : header.r_factor.toFixed(3)}` : ".";
    this.say(header.note ? `${place}. ${header.note}` : place + figures, Boolean(header.note));
    find("shown").hidden = !arrays.predicted && !arrays.measured;
    const shown = [arrays.measured, arrays.predicted].filter(Boolean);
    if (!shown.length) return;
    const brightest = shown.reduce((most, { data }) => data.reduce((top, value) => (value > top ? value : top), most), 0) ** 2 || 1;
    for (const name of ["measured", "predicted"]) {
      find(name).parentElement.hidden = !arrays[name];
      if (arrays[name]) fill(find(name), arrays[name], Float32Array.from(arrays[name].data, (value) => this.share(value * value, brightest)), "viridis");
    }
    find("difference").parentElement.hidden = shown.length < 2;
    if (shown.length < 2) return;
    const change = arrays.predicted.data.map((value, k) => value - arrays.measured.data[k]);
    const sizes = Float32Array.from(change, Math.abs).filter((value) => value === value).sort();
    const most = sizes[Math.floor(0.998 * (sizes.length - 1))] || 1;
    fill(find("difference"), arrays.measured, change.map((value) => 0.5 + value / (2 * most)), "RdBu_r");
  }

  share(photons, brightest) {
    const stretch = find("stretch").value;
    if (stretch === "linear") return photons / brightest;
    if (stretch === "root") return Math.sqrt(photons / brightest);
    const least = Math.min(0.5, brightest / 1e3);
    return photons !== photons ? NaN : Math.log(Math.max(photons, least) / least) / Math.log(brightest / least);
  }

  point(event) {
    if (!this.answer) return;
    const { arrays } = this.answer;
    const { shape } = arrays.predicted ?? arrays.measured;
    const box = event.currentTarget.getBoundingClientRect();
    const row = Math.min(shape[0] - 1, Math.max(0, Math.floor(((event.clientY - box.top) / box.height) * shape[0])));
    const column = Math.min(shape[1] - 1, Math.max(0, Math.floor(((event.clientX - box.left) / box.width) * shape[1])));
    const of = (array) => array.data[row * shape[1] + column];
    const parts = [];
    if (arrays.measured) parts.push(of(arrays.measured) === of(arrays.measured) ? `measured ${short(of(arrays.measured) ** 2)}` : "bad pixel");
    if (arrays.predicted) parts.push(`predicted ${short(of(arrays.predicted) ** 2)}`);
    find("pattern-readout").textContent = `[${row}, ${column}] ${parts.join(", ")} photons`;
  }
}

function fill(canvas, { shape }, shares, map) {
  const [height, width] = shape;
  Object.assign(canvas, { width, height });
  const image = new ImageData(width, height);
  paintShares(new Uint32Array(image.data.buffer), shares, map);
  canvas.getContext("2d").putImageData(image, 0, 0);
}
