// Numbers to colours: even maps for what grows, a cyclic one for phases, hue and brightness for complex numbers.

const tables = {}; // name -> Uint32Array(256), as the canvas keeps a pixel: alpha, blue, green, red
const HUES = 256;
const LEVELS = 64;
let wheel = null;

const packed = (red, green, blue) => ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;

export function keepMaps(maps) {
  for (const [name, values] of Object.entries(maps)) {
    tables[name] = Uint32Array.from({ length: 256 }, (_, k) => packed(values[3 * k], values[3 * k + 1], values[3 * k + 2]));
  }
  wheel = hueWheel();
}

export const sequential = ["gray", "viridis", "cividis", "magma"];
export const cyclic = ["twilight"];
export const colour = (map, share) => tables[map][Math.max(0, Math.min(255, Math.round(255 * share)))];

// Hues of one lightness and chroma in the Oklab space (B. Ottosson, 2020), red at phase 0. Scaling the brightness there
// by v scales the light itself by v cubed.
function hueWheel() {
  const found = new Uint32Array(HUES * LEVELS);
  for (let hue = 0; hue < HUES; hue++) {
    const angle = (2 * Math.PI * hue) / HUES + 0.5;
    const light = oklab(0.75, 0.125 * Math.cos(angle), 0.125 * Math.sin(angle));
    for (let level = 0; level < LEVELS; level++) {
      const bright = (level / (LEVELS - 1)) ** 3;
      found[hue * LEVELS + level] = packed(...light.map((part) => encoded(part * bright)));
    }
  }
  return found;
}

function oklab(lightness, a, b) {
  const l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
  return [
    4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
    -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
    -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s,
  ];
}

function encoded(light) {
  const held = Math.max(0, Math.min(1, light));
  return Math.round(255 * (held <= 0.0031308 ? 12.92 * held : 1.055 * held ** (1 / 2.4) - 0.055));
}

export function complexColour(re, im, high) {
  const hue = Math.floor(((Math.atan2(im, re) / (2 * Math.PI) + 1) * HUES) % HUES);
  return wheel[hue * LEVELS + Math.min(LEVELS - 1, Math.round((Math.hypot(re, im) / high) * (LEVELS - 1)))];
}

// Complex numbers (re, im, re, im, ...) into the pixels of a canvas; what is not a number stays transparent.
export function paint(pixels, data, { quantity, map, low, high }) {
  const table = tables[map];
  const factor = 255 / (high - low || 1);
  for (let k = 0, n = pixels.length; k < n; k++) {
    const re = data[2 * k];
    const im = data[2 * k + 1];
    if (re !== re) pixels[k] = 0;
    else if (quantity === "complex") pixels[k] = complexColour(re, im, high);
    else {
      const value = quantity === "phase" ? Math.atan2(im, re) : Math.sqrt(re * re + im * im);
      const at = (value - low) * factor;
      pixels[k] = table[at <= 0 ? 0 : at >= 255 ? 255 : (at + 0.5) | 0];
    }
  }
}

// Real numbers from 0 to 1 into the pixels of a canvas.
export function paintShares(pixels, shares, map) {
  const table = tables[map];
  for (let k = 0, n = pixels.length; k < n; k++) {
    const at = 255 * shares[k];
    pixels[k] = at !== at ? 0 : table[at <= 0 ? 0 : at >= 255 ? 255 : (at + 0.5) | 0];
  }
}
