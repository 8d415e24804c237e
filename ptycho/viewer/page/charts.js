// Curves as SVG: a title, two axes with a few round numbers, one line and one key for each series.

const SVG = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT, LEFT, BELOW, ABOVE, RIGHT] = [420, 170, 52, 30, 8, 8];

function element(name, attributes = {}, text = "") {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
}

export const short = (value) => (Math.abs(value) >= 1e5 || (value && Math.abs(value) < 1e-3) ? value.toExponential(2) : `${+value.toPrecision(4)}`);

// a mark of an axis, with as many digits as tell it from its neighbours
const rounded = (value, digits) => (digits > 6 || Math.abs(value) >= 1e6 ? value.toExponential(2) : value.toFixed(digits));

function ticks(low, high, wanted) {
  const rough = (high - low) / wanted || 1;
  const decade = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].find((factor) => factor * decade >= rough) * decade;
  const digits = Math.max(0, Math.ceil(-Math.log10(step) + (Math.abs(step / decade - 2.5) < 1e-6 ? 1 : 0) - 1e-9));
  const found = [];
  for (let k = Math.ceil(low / step); k * step <= high + 1e-9 * step; k++) found.push([k * step, digits]);
  return found;
}

export function drawCharts(parent, charts) {
  parent.replaceChildren(...charts.map(drawn));
}

function drawn({ title, axis, series }) {
  const box = document.createElement("div");
  box.className = "chart";
  const known = series.map(({ name, x, y }) => ({ name, points: x.map((at, k) => [at, y[k]]).filter(([, value]) => value !== null) }));
  const points = known.flatMap((each) => each.points);
  const latest = known.filter((each) => each.points.length).map((each) => `${each.name} ${short(each.points.at(-1)[1])}`);
  box.append(Object.assign(document.createElement("h3"), { textContent: title }));
  if (points.length) box.append(picture(title, axis, known, points, latest));
  const keys = Object.assign(document.createElement("ul"), { className: "keys" });
  known.forEach((each, k) => {
    const item = document.createElement("li");
    item.append(Object.assign(document.createElement("i"), { className: `curve-${(k % 5) + 1}` }));
    item.append(axis === "epoch" && each.points.length ? `${each.name} ${short(each.points.at(-1)[1])}` : each.name);
    keys.append(item);
  });
  box.append(keys);
  return box;
}

function picture(title, axis, known, points, latest) {
  const values = points.map(([, value]) => value);
  const [least, most] = [Math.min(...values), Math.max(...values)];
  const log = axis === "epoch" && least > 0 && most / least > 8;
  const scaled = (value) => (log ? Math.log10(value) : value);
  const spare = 0.06 * (scaled(most) - scaled(least)) || 0.05 * Math.abs(scaled(most)) || 1;
  const [low, high] = [scaled(least) - spare, scaled(most) + spare];
  const places = points.map(([at]) => at);
  const [first, last] = [Math.min(...places), Math.max(...places)];
  const across = (at) => LEFT + ((at - first) / (last - first || 1)) * (WIDTH - LEFT - RIGHT);
  const down = (value) => ABOVE + ((high - scaled(value)) / (high - low)) * (HEIGHT - ABOVE - BELOW);
  const svg = element("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${title}: ${latest.join(", ")}` });
  for (const [tick, digits] of ticks(low, high, 5)) {
    const y = ABOVE + ((high - tick) / (high - low)) * (HEIGHT - ABOVE - BELOW);
    svg.append(element("line", { class: "axis", x1: LEFT, x2: WIDTH - RIGHT, y1: y, y2: y }));
    svg.append(element("text", { x: LEFT - 6, y: y + 4, "text-anchor": "end" }, log ? short(10 ** tick) : rounded(tick, digits)));
  }
  for (const [tick, digits] of ticks(first, last, 5)) {
    if (axis === "epoch" && tick % 1) continue;
    svg.append(element("text", { x: across(tick), y: HEIGHT - BELOW + 15, "text-anchor": "middle" }, rounded(tick, axis === "epoch" ? 0 : digits)));
  }
  svg.append(element("text", { x: WIDTH - RIGHT, y: HEIGHT - 2, "text-anchor": "end" }, axis));
  known.forEach((each, k) => {
    if (!each.points.length) return;
    const line = each.points.map(([at, value]) => `${across(at).toFixed(1)},${down(value).toFixed(1)}`);
    if (line.length === 1) line.push(`${(across(each.points[0][0]) + 4).toFixed(1)},${down(each.points[0][1]).toFixed(1)}`);
    svg.append(element("polyline", { class: `curve curve-${(k % 5) + 1}`, points: line.join(" ") }));
  });
  return svg;
}
