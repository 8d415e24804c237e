// What the page asks its server for. Nothing is ever written there.

const base = new URL(".", location.href);

export const client = Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");

async function fetched(name, query, signal) {
  const url = new URL(name, base);
  for (const [key, value] of Object.entries(query ?? {})) url.searchParams.set(key, value);
  const answer = await fetch(url, { signal, cache: "no-store", credentials: "omit", redirect: "error" });
  if (!answer.ok) throw Object.assign(new Error(`${answer.status} ${await answer.text()}`), { status: answer.status });
  return answer;
}

export async function json(name, query, signal) {
  return (await fetched(name, query, signal)).json();
}

// A JSON header and named arrays of float32, see ptycho/viewer/frames.py.
export async function frame(name, query) {
  const content = await (await fetched(name, query)).arrayBuffer();
  const length = new DataView(content).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(content, 4, length)));
  let start = 4 + length;
  const arrays = {};
  for (const { name: key, shape, floats } of header.arrays) {
    const count = shape.reduce((product, side) => product * side, floats);
    arrays[key] = { shape, data: new Float32Array(content, start, count) };
    start += 4 * count;
  }
  return { header, arrays };
}
