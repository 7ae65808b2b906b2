// The engines that `live.py` compares, each in a page of its own. All are
// driven alike: `open`, then `run(ids)`, which appends ids and returns logits.
"use strict";

const ENGINES = {
  /** The book's, in this page: with WebAssembly, or plain JavaScript. */
  async book({ files, plain }) {
    GPT2.engine();
    const folder = new Map([...files].map((file) => [file.name, file]));
    if (plain) GPT2.KERNELS = {};
    const found = await GPT2.readFolder(folder);
    const model = await GPT2.readModel(folder, found);
    let past = 0;
    return {
      reset: () => (past = 0),
      run(ids) {
        const logits = model.logits(ids, { past, lastOnly: true });
        past += ids.length;
        return logits;
      },
    };
  },

  async onnxruntime({ graph, config }) {
    ort.env.wasm.numThreads = 1;
    const session = await ort.InferenceSession.create(graph, {
      executionProviders: ["wasm"],
      graphOptimizationLevel: "all",
    });
    const { n_layer, n_head, n_embd } = config;
    const shape = [2, 1, n_head, 0, n_embd / n_head];
    const nothing = () => new ort.Tensor("float32", new Float32Array(), shape);
    let past = {};
    return {
      reset() {
        past = {};
        for (let n = 0; n < n_layer; n++) past[`past.${n}`] = nothing();
      },
      async run(ids) {
        const row = BigInt64Array.from(ids, BigInt);
        const input_ids = new ort.Tensor("int64", row, [1, ids.length]);
        const out = await session.run({ input_ids, ...past });
        for (const name in past)
          past[name] = out[name.replace("past", "present")];
        return out.logits.data;
      },
    };
  },

  async transformers({ models, name }) {
    const { env, AutoModelForCausalLM, Tensor } = globalThis.transformers;
    env.allowRemoteModels = false;
    env.allowLocalModels = true;
    env.localModelPath = models;
    env.useBrowserCache = false;
    env.backends.onnx.wasm.numThreads = 1;
    const own = new URL("transformers/", location.href);
    env.backends.onnx.wasm.wasmPaths = own.href;
    const model = await AutoModelForCausalLM.from_pretrained(name, {
      dtype: "fp32",
      device: "wasm",
    });
    let [past_key_values, length] = [null, 0];
    const whole = (values) =>
      new Tensor("int64", BigInt64Array.from(values, BigInt), [
        1,
        values.length,
      ]);
    return {
      reset: () => ([past_key_values, length] = [null, 0]),
      async run(ids) {
        length += ids.length;
        const out = await model({
          input_ids: whole(ids),
          attention_mask: whole(Array(length).fill(1)),
          past_key_values,
        });
        const entries = Object.entries(out).filter(([key]) =>
          key.startsWith("present"),
        );
        past_key_values = Object.fromEntries(
          entries.map(([key, value]) => [
            key.replace("present", "past_key_values"),
            value,
          ]),
        );
        return out.logits.data;
      },
    };
  },
};

const likeliest = (logits) => {
  let best = 0;
  for (let id = 1; id < logits.length; id++)
    if (logits[id] > logits[best]) best = id;
  return best;
};

let engine = null;
let seconds = 0; // that opening has taken

async function openEngine(kind, options) {
  const files = document.querySelector("input")?.files;
  const began = performance.now();
  engine = await ENGINES[kind]({ files, ...options });
  seconds = (performance.now() - began) / 1000;
}

/** The bytes that the page has loaded. */
function loaded() {
  const entries = performance.getEntriesByType("resource");
  return entries.reduce((sum, entry) => sum + entry.encodedBodySize, 0);
}

/** Milliseconds for the prompt and for each token after it, and the tokens. */
async function measure(prompt, length, repeats) {
  const prompts = [];
  let logits;
  for (let n = 0; n < repeats; n++) {
    engine.reset();
    const began = performance.now();
    logits = await engine.run(prompt);
    prompts.push(performance.now() - began);
  }
  const tokens = [];
  const began = performance.now();
  for (let n = 0; n < length; n++) {
    tokens.push(likeliest(logits));
    logits = await engine.run(tokens.slice(-1));
  }
  const each = (performance.now() - began) / length;
  return { prompts, each, tokens };
}
