// A complex image that can be moved and zoomed: its tiles are fetched as they come into sight, and painted here.

import { paint } from "./colours.js";
import { drawAim, drawBar, drawMarks } from "./marks.js";
import { frame } from "./wire.js";

const MOST_TILES = 96;
const MOST_FETCHES = 4;
const CLICK = 4; // pixels that a click may shake

export class ImageView {
  // on.cursor({row, column, re, im, step} or null), on.pick(row, column), on.painted()
  constructor(canvas, on = {}) {
    Object.assign(this, { canvas, on, source: null, previous: null, box: null, tiles: new Map(), wanted: [], fetching: 0 });
    Object.assign(this, { scale: 1, middle: [0, 0], colours: null, marks: null, fitted: true, aim: false, failed: false });
    this.pointers = new Map();
    new ResizeObserver(() => this.resize()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.redraw());
    this.listen();
    this.resize();
  }

  // {version, name, flat, shape, levels, box, tile, pixelSize}; what was there before stays in sight until the new is fetched
  show(source) {
    const sameShape = this.source && this.source.shape.join() === source.shape.join() && this.source.name === source.name;
    this.previous = sameShape ? this.source : null;
    this.source = source;
    this.failed = false;
    for (const key of this.tiles.keys()) {
      if (![source, this.previous].some((kept) => kept && key.startsWith(prefix(kept)))) this.tiles.delete(key);
    }
    this.box = this.known(source, sameShape);
    if (!sameShape || this.fitted) this.fit();
    this.redraw();
  }

  // the part that is known, [top, left, bottom, right]; while a run works its edge comes and goes, and the view stays
  known({ shape, box }, sameShape) {
    const found = box ?? [0, 0, ...shape];
    const slack = 0.03 * Math.max(...shape);
    return sameShape && this.box.every((side, k) => Math.abs(side - found[k]) <= slack) ? this.box : found;
  }

  paintWith(colours) {
    this.colours = { ...colours, stamp: JSON.stringify(colours) };
    this.redraw();
  }

  mark(marks) {
    this.marks = marks;
    this.redraw();
  }

  fit() {
    if (!this.source) return;
    const [top, left, bottom, right] = this.box;
    this.middle = [(top + bottom) / 2, (left + right) / 2];
    this.scale = Math.min(this.canvas.clientWidth / (right - left), this.canvas.clientHeight / (bottom - top)) * 0.98 || 1;
    this.fitted = true;
    this.redraw();
  }

  zoom(factor, x = this.canvas.clientWidth / 2, y = this.canvas.clientHeight / 2) {
    const before = this.at(x, y);
    this.scale = Math.max(0.004, Math.min(80, this.scale * factor));
    const after = this.at(x, y);
    this.move(before[0] - after[0], before[1] - after[1]);
  }

  move(rows, columns) {
    if (!this.source) return;
    const [height, width] = this.source.shape;
    this.middle = [clamp(this.middle[0] + rows, height), clamp(this.middle[1] + columns, width)];
    this.fitted = false;
    this.redraw();
  }

  centre(row, column) {
    const [top, left] = this.at(0, 0);
    const [bottom, right] = this.at(this.canvas.clientWidth, this.canvas.clientHeight);
    if (row < top || row > bottom || column < left || column > right) this.move(row - this.middle[0], column - this.middle[1]);
  }

  // object pixel (row, column; the pixel [i, j] reaches from i to i + 1) under a place of the canvas
  at(x, y) {
    return [
      this.middle[0] + (y - this.canvas.clientHeight / 2) / this.scale,
      this.middle[1] + (x - this.canvas.clientWidth / 2) / this.scale,
    ];
  }

  // value of the image under object pixels, from the finest tile that is here
  value(row, column) {
    const { source } = this;
    if (!source || row < 0 || column < 0 || row >= source.shape[0] || column >= source.shape[1]) return null;
    for (let level = 0; level < source.levels; level++) {
      const side = source.tile * 2 ** level;
      const [r, c] = [Math.floor(row / side), Math.floor(column / side)];
      const tile = this.tiles.get(`${prefix(source)}${level}/${r}/${c}`);
      if (!tile || !tile.data) continue;
      const [i, j] = [Math.floor((row - r * side) / 2 ** level), Math.floor((column - c * side) / 2 ** level)];
      const k = 2 * (i * tile.shape[1] + j);
      return { row: Math.floor(row), column: Math.floor(column), re: tile.data[k], im: tile.data[k + 1], step: 2 ** level };
    }
    return null;
  }

  // resolves when everything in sight is fetched
  settled() {
    return new Promise((resolve) => {
      const look = () => (this.wanted.length || this.fetching ? setTimeout(look, 30) : resolve());
      requestAnimationFrame(() => { this.draw(); look(); });
    });
  }

  resize() {
    const ratio = devicePixelRatio || 1;
    const { canvas } = this;
    canvas.width = Math.max(1, Math.round(canvas.clientWidth * ratio));
    canvas.height = Math.max(1, Math.round(canvas.clientHeight * ratio));
    if (this.fitted) this.fit();
    this.redraw();
  }

  redraw() {
    if (this.drawing) return;
    this.drawing = requestAnimationFrame(() => this.draw());
  }

  draw() {
    this.drawing = 0;
    const context = this.canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    if (!this.source || !this.colours) return;
    const ratio = devicePixelRatio || 1;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    const complete = this.lay(context, this.source, true);
    if (!complete && this.previous) {
      context.clearRect(0, 0, this.canvas.width, this.canvas.height);
      this.lay(context, this.previous, false);
      this.lay(context, this.source, true);
    }
    if (complete) this.previous = null;
    drawMarks(this, context);
    drawBar(this, context);
    if (this.aim) drawAim(this, context);
    if (complete && this.on.painted) this.on.painted();
    this.fetchMore();
  }

  // draw the tiles of a source that are here, the coarsest below; list those that are wanted
  lay(context, source, wanting) {
    const ratio = devicePixelRatio || 1;
    const level = Math.max(0, Math.min(source.levels - 1, Math.floor(Math.log2(1 / (this.scale * ratio)))));
    if (wanting) this.wanted = [];
    let complete = true;
    for (const each of level === source.levels - 1 ? [level] : [source.levels - 1, level]) {
      for (const [row, column] of this.inSight(source, each)) {
        const key = `${prefix(source)}${each}/${row}/${column}`;
        const tile = this.tiles.get(key);
        if (tile && tile.data) {
          this.tiles.delete(key); // to the end of the line: the first ones go first
          this.tiles.set(key, tile);
          this.layTile(context, source, tile, each, row, column);
        } else if (wanting) {
          complete = false;
          if (!tile) this.wanted.push({ key, source, level: each, row, column });
        }
      }
    }
    return complete;
  }

  inSight(source, level) {
    const side = source.tile * 2 ** level;
    const [top, left] = this.at(0, 0);
    const [bottom, right] = this.at(this.canvas.clientWidth, this.canvas.clientHeight);
    const last = source.shape.map((length) => Math.ceil(length / side) - 1);
    const found = [];
    for (let row = Math.max(0, Math.floor(top / side)); row <= Math.min(last[0], Math.floor(bottom / side)); row++) {
      for (let column = Math.max(0, Math.floor(left / side)); column <= Math.min(last[1], Math.floor(right / side)); column++) {
        found.push([row, column]);
      }
    }
    return found;
  }

  layTile(context, source, tile, level, row, column) {
    if (tile.stamp !== this.colours.stamp) {
      const [height, width] = tile.shape;
      tile.image ??= Object.assign(document.createElement("canvas"), { width, height });
      const image = new ImageData(width, height);
      paint(new Uint32Array(image.data.buffer), tile.data, this.colours);
      tile.image.getContext("2d").putImageData(image, 0, 0);
      tile.stamp = this.colours.stamp;
    }
    const side = source.tile * 2 ** level;
    const x = (column * side - this.middle[1]) * this.scale + this.canvas.clientWidth / 2;
    const y = (row * side - this.middle[0]) * this.scale + this.canvas.clientHeight / 2;
    const step = 2 ** level * this.scale;
    context.imageSmoothingEnabled = step < 1;
    context.drawImage(tile.image, x, y, tile.shape[1] * step, tile.shape[0] * step);
  }

  fetchMore() {
    while (this.fetching < MOST_FETCHES && this.wanted.length && !this.failed) {
      const { key, source, level, row, column } = this.wanted.shift();
      if (this.tiles.has(key)) continue;
      this.tiles.set(key, {});
      this.fetching++;
      const { version, name, flat } = source;
      frame("tile", { version, image: name, flat: flat ? 1 : 0, level, row, column })
        .then(({ arrays }) => {
          if (this.tiles.has(key)) this.tiles.set(key, { data: arrays.tile.data, shape: arrays.tile.shape });
          for (const old of this.tiles.keys()) {
            if (this.tiles.size <= MOST_TILES) break;
            this.tiles.delete(old);
          }
        })
        .catch(() => {
          this.tiles.delete(key);
          this.failed = true; // a newer version, or the end
          this.wanted = [];
        })
        .finally(() => {
          this.fetching--;
          this.redraw();
        });
    }
  }

  listen() {
    const { canvas } = this;
    const where = (event) => {
      const box = canvas.getBoundingClientRect();
      return [event.clientX - box.left, event.clientY - box.top];
    };
    const tell = (x, y) => this.on.cursor && this.on.cursor(this.value(...this.at(x, y)));
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoom(Math.exp(-Math.max(-60, Math.min(60, event.deltaY * (event.deltaMode ? 20 : 1))) * 0.006), ...where(event));
      tell(...where(event));
    }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      canvas.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, { last: where(event), first: where(event), moved: false });
      this.aim = false;
    });
    canvas.addEventListener("pointermove", (event) => {
      const here = where(event);
      const held = this.pointers.get(event.pointerId);
      if (!held) return tell(...here);
      if (Math.hypot(here[0] - held.first[0], here[1] - held.first[1]) > CLICK) held.moved = true;
      const others = [...this.pointers.entries()].filter(([id]) => id !== event.pointerId);
      if (others.length) {
        const other = others[0][1].last;
        const apart = (point) => Math.hypot(point[0] - other[0], point[1] - other[1]) || 1;
        this.zoom(apart(here) / apart(held.last), (here[0] + other[0]) / 2, (here[1] + other[1]) / 2);
      } else if (held.moved) {
        this.move((held.last[1] - here[1]) / this.scale, (held.last[0] - here[0]) / this.scale);
      }
      held.last = here;
    });
    const release = (event) => {
      const held = this.pointers.get(event.pointerId);
      this.pointers.delete(event.pointerId);
      if (event.type === "pointerup" && held && !held.moved && this.on.pick) this.on.pick(...this.at(...where(event)));
    };
    canvas.addEventListener("pointerup", release);
    canvas.addEventListener("pointercancel", release);
    canvas.addEventListener("pointerleave", () => this.on.cursor && this.on.cursor(null));
    canvas.addEventListener("keydown", (event) => this.press(event));
    canvas.addEventListener("blur", () => { this.aim = false; this.redraw(); });
  }

  press(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = (event.shiftKey ? 1 : 60) / (event.shiftKey ? 1 : this.scale);
    const moves = { ArrowUp: [-step, 0], ArrowDown: [step, 0], ArrowLeft: [0, -step], ArrowRight: [0, step] };
    const middle = [this.canvas.clientWidth / 2, this.canvas.clientHeight / 2];
    if (moves[event.key]) this.move(...moves[event.key]);
    else if (event.key === "+" || event.key === "=") this.zoom(1.5);
    else if (event.key === "-" || event.key === "_") this.zoom(1 / 1.5);
    else if (event.key === "0") this.fit();
    else if (event.key === "1") this.zoom(1 / (this.scale * (devicePixelRatio || 1)));
    else if (event.key === "Enter" && this.on.pick) this.on.pick(...this.at(...middle));
    else return;
    event.preventDefault();
    this.aim = true;
    if (this.on.cursor) this.on.cursor(this.value(...this.at(...middle)));
    this.redraw();
  }
}

const prefix = ({ version, name, flat }) => `${version}/${name}/${flat ? 1 : 0}/`;
const clamp = (value, length) => Math.max(0, Math.min(length, value));
