// The child process that runs a model in onnxruntime-web's WebAssembly build, by Node.js: a crash ends it and no other.
// As serve.py it reads one JSON request a line and answers each on its standard output; its argument is the package.
import fs from "node:fs";
import readline from "node:readline";
import { pathToFileURL } from "node:url";

const ort = await import(pathToFileURL(process.argv[2]));
ort.env.logLevel = "fatal";
ort.env.wasm.numThreads = 1;

const LEVELS = { none: "disabled", basic: "basic", extended: "extended", all: "all" };
const ARRAYS = {
  float32: Float32Array, float64: Float64Array, int8: Int8Array, uint8: Uint8Array, int16: Int16Array,
  uint16: Uint16Array, int32: Int32Array, uint32: Uint32Array, int64: BigInt64Array, uint64: BigUint64Array,
  float16: typeof Float16Array === "undefined" ? Uint16Array : Float16Array, bool: Uint8Array,
};
const MEMORY = /bad_alloc|OOM|Array buffer allocation failed|out of memory/i;
const ALIGNMENT = 64;

let session = null;

async function opened(request) {
  const externalData = Object.entries(request.files).map(([path, file]) => ({ path, data: fs.readFileSync(file) }));
  return ort.InferenceSession.create(fs.readFileSync(request.model), {
    executionProviders: ["wasm"],
    graphOptimizationLevel: LEVELS[request.optimization],
    logSeverityLevel: 4,
    externalData,
  });
}

function tensor(name, entry, raw) {
  if (entry.items) throw new Error(`JavaScript binds no sequence to the input '${name}'`);
  if (entry.strings) return new ort.Tensor("string", entry.strings, entry.shape);
  const array = ARRAYS[entry.dtype];
  if (!array) throw new Error(`JavaScript has no array of ${entry.dtype} for the input '${name}'`);
  const count = entry.shape.reduce((a, b) => a * b, 1) * array.BYTES_PER_ELEMENT;
  const copy = new Uint8Array(raw.subarray(entry.offset, entry.offset + count)).buffer;
  return new ort.Tensor(entry.dtype, new array(copy), entry.shape);
}

function packed(found, path) {
  const manifest = {};
  const file = fs.openSync(path, "w");
  let offset = 0;
  for (const name of session.outputNames) {
    const { type, dims, data } = found[name];
    if (type === "string") {
      manifest[name] = { strings: data, shape: dims };
      continue;
    }
    offset = Math.ceil(offset / ALIGNMENT) * ALIGNMENT;
    fs.writeSync(file, Buffer.from(data.buffer, data.byteOffset, data.byteLength), 0, data.byteLength, offset);
    manifest[name] = { dtype: type, shape: dims, offset };
    offset += data.byteLength;
  }
  fs.closeSync(file);
  return manifest;
}

async function answer(request) {
  if (request.do !== "run") {
    const before = session;
    session = null;
    await before?.release();
    session = await opened(request);
    return { ok: true };
  }
  const raw = fs.readFileSync(request.inputs);
  const given = Object.entries(request.manifest).filter(([, entry]) => Object.keys(entry).length);
  const feeds = Object.fromEntries(given.map(([name, entry]) => [name, tensor(name, entry, raw)]));
  const manifest = packed(await session.run(feeds), request.outputs);
  return { ok: true, manifest, peak_rss: process.resourceUsage().maxRSS * 1024 };
}

const print = (found) => fs.writeSync(1, JSON.stringify(found) + "\n");
console.log = console.info = console.debug = console.error;
for await (const line of readline.createInterface({ input: process.stdin })) {
  try {
    print(await answer(JSON.parse(line)));
  } catch (error) {
    const said = String((error && error.message) || error);
    print({ ok: false, memory: MEMORY.test(said), error: said });
  }
}
