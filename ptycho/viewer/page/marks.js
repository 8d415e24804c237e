// What lies on a picture: the positions, the chosen one, the scale bar, and the aim of the keyboard.

const MOST_DISCS = 3000; // positions in sight
const MOST_DOTS = 15000;
const ink = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

export function drawMarks(view, context) {
  const { marks, scale } = view;
  if (!marks) return;
  const place = (row, column) => [
    (column + 0.5 - view.middle[1]) * scale + view.canvas.clientWidth / 2,
    (row + 0.5 - view.middle[0]) * scale + view.canvas.clientHeight / 2,
  ];
  const { places, known, chosen, side, visible } = marks;
  if (visible) drawPlaces(view, context, places, known, place);
  if (chosen === null || 4 * chosen >= places.length) return;
  const [x, y] = place(places[4 * chosen], places[4 * chosen + 1]);
  for (const [style, width] of [[ink("--halo"), 5], [ink("--bad"), 2]]) {
    context.strokeStyle = style;
    context.lineWidth = width;
    context.beginPath();
    context.arc(x, y, 8, 0, 2 * Math.PI);
    context.stroke();
    context.lineWidth = width / 2;
    context.strokeRect(x - (side / 2) * scale, y - (side / 2) * scale, side * scale, side * scale);
  }
}

// the positions in sight, a few as discs, many as dots; lines from where they were before they were corrected
function drawPlaces(view, context, places, known, place) {
  const near = placesInSight(view, places).map((k) => [...place(places[4 * k], places[4 * k + 1]), k]);
  context.lineWidth = 1;
  context.strokeStyle = ink("--bad");
  context.beginPath();
  for (const [x, y, k] of near) {
    const before = place(places[4 * k + 2], places[4 * k + 3]);
    if (Math.hypot(x - before[0], y - before[1]) < 2) continue;
    context.moveTo(...before);
    context.lineTo(x, y);
  }
  context.stroke();
  const [height, width] = view.source.shape;
  const apart = Math.sqrt((4 * height * width) / places.length) * view.scale; // what lies close shows small
  const radius = Math.max(0.8, Math.min(3.5, 0.1 * apart));
  context.lineWidth = Math.min(2, radius);
  context.strokeStyle = ink("--halo");
  context.globalAlpha = 0.75;
  for (const [filled, style] of [[false, ink("--faint")], [true, ink("--mark")]]) {
    context.fillStyle = style;
    context.beginPath();
    for (const [x, y, k] of near) {
      if ((!known || known.has(k)) !== filled) continue;
      if (near.length > MOST_DISCS) context.fillRect(x - 0.6, y - 0.6, 1.2, 1.2);
      else {
        context.moveTo(x + radius, y);
        context.arc(x, y, radius, 0, 2 * Math.PI);
      }
    }
    context.stroke();
    context.fill();
  }
  context.globalAlpha = 1;
}

// numbers of the positions in sight; of very many just some, evenly
function placesInSight(view, places) {
  const [top, left] = view.at(-9, -9);
  const [bottom, right] = view.at(view.canvas.clientWidth + 9, view.canvas.clientHeight + 9);
  const found = [];
  for (let k = 0; k < places.length; k += 4) {
    if (places[k] > top && places[k] < bottom && places[k + 1] > left && places[k + 1] < right) found.push(k / 4);
  }
  const step = Math.ceil(found.length / MOST_DOTS);
  return step > 1 ? found.filter((_, number) => number % step === 0) : found;
}

export function drawBar(view, context) {
  const size = view.source.pixelSize;
  const width = view.canvas.clientWidth;
  if (size === undefined || width < 120) return;
  const unit = size ?? 1;
  const wanted = (0.22 * width * unit) / view.scale;
  const decade = 10 ** Math.floor(Math.log10(wanted));
  const length = [5, 2, 1].find((step) => step * decade <= wanted * 1.000001) * decade;
  const bar = (length / unit) * view.scale;
  const text = size ? lengthText(length) : `${+length.toPrecision(3)} pixels`;
  const [x, y] = [16, view.canvas.clientHeight - 16];
  context.font = "600 13px system-ui, sans-serif";
  const room = Math.max(bar, context.measureText(text).width);
  context.fillStyle = "rgba(0, 0, 0, .6)";
  context.beginPath();
  context.roundRect(x - 8, y - 27, room + 16, 36, 6);
  context.fill();
  context.fillStyle = "#fff";
  context.fillRect(x, y - 3, bar, 4);
  context.fillText(text, x, y - 10);
}

export function drawAim(view, context) {
  const [x, y] = [view.canvas.clientWidth / 2, view.canvas.clientHeight / 2];
  for (const [style, width] of [[ink("--halo"), 4], [ink("--ink"), 1.5]]) {
    context.strokeStyle = style;
    context.lineWidth = width;
    context.beginPath();
    context.moveTo(x - 9, y);
    context.lineTo(x + 9, y);
    context.moveTo(x, y - 9);
    context.lineTo(x, y + 9);
    context.stroke();
  }
}

export function lengthText(metres) {
  const [factor, unit] = [[1e-3, "mm"], [1e-6, "µm"], [1e-9, "nm"]].find(([size]) => metres >= size * 0.999999) ?? [1e-12, "pm"];
  return `${+(metres / factor).toPrecision(4)} ${unit}`;
}
