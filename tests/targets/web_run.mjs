// One request a line on standard input, one answer a line: does onnxruntime-web (wasm) run a model, and to what?
import * as ort from "onnxruntime-web/wasm";
import readline from "node:readline";
ort.env.logLevel = "fatal";
ort.env.wasm.numThreads = 1;
const HALF = typeof Float16Array !== "undefined";
const ARRAYS = {
  float32: Float32Array, float64: Float64Array, int8: Int8Array, uint8: Uint8Array, int16: Int16Array,
  uint16: Uint16Array, int32: Int32Array, uint32: Uint32Array, int64: BigInt64Array, uint64: BigUint64Array,
  float16: HALF ? Float16Array : Uint16Array, bool: Uint8Array,
};
function tensor(given) {
  if (given.type === "string") return new ort.Tensor("string", given.data, given.dims);
  const bytes = Buffer.from(given.data, "base64");
  const copy = new Uint8Array(bytes).buffer;
  return new ort.Tensor(given.type, new ARRAYS[given.type](copy), given.dims);
}
function told(value) {
  if (value.type === "string") return { type: "string", dims: value.dims, data: value.data };
  const d = value.data;
  return { type: value.type, dims: value.dims, data: Buffer.from(d.buffer, d.byteOffset, d.byteLength).toString("base64") };
}
for await (const line of readline.createInterface({ input: process.stdin })) {
  const request = JSON.parse(line);
  let answer;
  try {
    const session = await ort.InferenceSession.create(Buffer.from(request.model, "base64"), { executionProviders: ["wasm"], logSeverityLevel: 4 });
    const feeds = {};
    session.inputNames.forEach((name) => { if (request.inputs[name]) feeds[name] = tensor(request.inputs[name]); });
    const found = await session.run(feeds);
    answer = { how: "ran", outputs: session.outputNames.map((name) => told(found[name])) };
    await session.release();
  } catch (error) { answer = { how: "refused", said: String(error && error.message || error) }; }
  process.stdout.write("\n@@" + JSON.stringify(answer) + "\n");
}
