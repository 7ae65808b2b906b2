// From a file's tensors to a model's weights, as in `gpt2/weights/layout.py`
// and `loading.py`.
(function (GPT2) {
  "use strict";

  const plain = (GPT2.plain ??= {});

  // What a checkpoint may hold beside the weights: the causal mask and the
  // score of what is masked.
  const BUFFER = /^h\.\d+\.attn\.(masked_)?bias$/;
  const OUTPUT = "lm_head.weight";
  const DTYPES = ["F32", "F16", "BF16"];

  /**
   * The weights of a model, by the checkpoint's names.
   *
   * @returns {Map<string, {kind, shape}>} A table is looked up row by row, a
   *   linear map is (I, O), and the rest are vectors.
   */
  GPT2.layout = function ({ n_vocab, n_ctx, n_embd: C, n_inner: I, n_layer }) {
    const found = new Map();
    const add = (name, kind, ...shape) => found.set(name, { kind, shape });
    const pair = (name, kind, ...shape) => {
      add(`${name}.weight`, kind, ...shape);
      add(`${name}.bias`, "vector", shape.at(-1));
    };
    add("wte.weight", "table", n_vocab, C);
    add("wpe.weight", "table", n_ctx, C);
    for (let n = 0; n < n_layer; n++) {
      pair(`h.${n}.ln_1`, "vector", C);
      pair(`h.${n}.attn.c_attn`, "linear", C, 3 * C);
      pair(`h.${n}.attn.c_proj`, "linear", C, C);
      pair(`h.${n}.ln_2`, "vector", C);
      pair(`h.${n}.mlp.c_fc`, "linear", C, I);
      pair(`h.${n}.mlp.c_proj`, "linear", I, C);
    }
    pair("ln_f", "vector", C);
    return found;
  };

  /**
   * Find every weight of a model among the tensors of a file.
   *
   * @param {Map} entries From `readHeader`.
   * @returns {Map<string, object>} By the model's names: the entry, with
   *   `kind` and the file's own `name`. The output matrix is added, if the
   *   file has it.
   */
  GPT2.matchTensors = function (entries, config) {
    if (config.n_layer > entries.size)
      // perhaps too many to list
      throw new Error(
        `there are ${entries.size} tensors, too few for ${config.n_layer} ` +
          "layers",
      );
    const ours = new Map();
    for (const [name, entry] of entries) {
      const plainName = name.replace(/^transformer\./, "");
      if (BUFFER.test(plainName)) continue;
      if (ours.has(plainName))
        throw new Error(`there are two tensors ${plainName}`);
      ours.set(plainName, { ...entry, name });
    }
    const layout = GPT2.layout(config);
    if (ours.has(OUTPUT)) {
      // Some files have only the one, some only the other.
      if (!ours.has("wte.weight")) {
        ours.set("wte.weight", ours.get(OUTPUT));
        ours.delete(OUTPUT);
      } else layout.set(OUTPUT, layout.get("wte.weight"));
    }
    const matched = new Map();
    for (const [name, { kind, shape }] of layout) {
      const entry = ours.get(name);
      if (!entry) throw new Error(`the checkpoint has no ${name}`);
      if (String(entry.shape) !== String(shape))
        throw new Error(
          `${name} should be (${shape}); it is (${entry.shape})`,
        );
      if (!DTYPES.includes(entry.dtype))
        throw new Error(
          `${name}: dtype must be ${DTYPES.join(", ")}; got ${entry.dtype}`,
        );
      matched.set(name, { ...entry, kind });
    }
    for (const name of ours.keys())
      if (!matched.has(name))
        throw new Error(`GPT-2 has no ${name}, the checkpoint does`);
    return matched;
  };

  /** A room for a weight; `put` writes numbers into it from `at` on. */
  plain.reserve = function ({ kind, shape }) {
    const numbers = new Float32Array(shape.reduce((a, b) => a * b, 1));
    const put = (at, some) => numbers.set(GPT2.asFloat32(some), at);
    const [first, second] = shape;
    const tensor = {
      vector: numbers,
      table: { numbers, N: first, C: second },
      linear: { numbers, I: first, O: second },
    }[kind];
    return { tensor, put };
  };
  plain.zeros = (length) => new Float32Array(length);
  plain.begin = () => {};
  plain.scratch = (run) => run();

  /**
   * Read a model's weights.
   *
   * @param {Blob} file A safetensors file.
   * @param {Map<string, object>} matched From `matchTensors`.
   * @param {object} math Who will compute: `GPT2.plain`, or its equal.
   * @param {function} [onProgress] Called with `{done, all}`, in bytes.
   * @returns {Promise<object>} `wte`, `wpe`, `ln_f` and the list `h`.
   */
  GPT2.readWeights = async function (file, matched, math, onProgress) {
    const wanted = new Map(matched);
    wanted.delete(OUTPUT);
    const rooms = new Map();
    for (const [name, entry] of wanted) rooms.set(name, math.reserve(entry));
    const all = [...wanted.values()].reduce((n, e) => n + e.end - e.begin, 0);
    let done = 0;
    for await (const part of GPT2.readTensors(file, [...wanted])) {
      checkFinite(part);
      rooms.get(part.name).put(part.at, part.numbers);
      done += part.numbers.byteLength;
      onProgress?.({ done, all });
    }
    if (matched.has(OUTPUT)) await checkTied(file, matched);
    return nest(
      new Map([...rooms].map(([name, room]) => [name, room.tensor])),
    );
  };

  function checkFinite({ name, numbers }) {
    const bits = new Uint16Array(numbers.buffer); // of bfloat16, all there is
    const isBrain = numbers instanceof Uint16Array;
    for (let i = isBrain ? 0 : 1; i < bits.length; i += isBrain ? 1 : 2)
      if ((bits[i] & 0x7f80) === 0x7f80)
        throw new Error(`${name} holds numbers that are not finite`);
  }

  /** Refuse a file whose output matrix is not the token embedding. */
  async function checkTied(file, matched) {
    const [one, other] = ["wte.weight", OUTPUT].map((name) => {
      const entry = matched.get(name);
      return { entry, parts: GPT2.readTensors(file, [[name, entry]]) };
    });
    let same = one.entry.dtype === other.entry.dtype;
    for await (const { numbers } of one.parts) {
      const theirs = (await other.parts.next()).value?.numbers ?? [];
      same &&= numbers.every((number, i) => number === theirs[i]);
    }
    if (!same)
      throw new Error("lm_head.weight is not wte.weight, as in GPT-2");
  }

  /** From names such as `h.0.ln_1.bias` to objects in objects. */
  function nest(tensors) {
    const root = { h: [] };
    for (const [name, tensor] of tensors) {
      const path = name.split(".");
      let here = root;
      for (const key of path.slice(0, -1)) here = here[key] ??= {};
      here[path.at(-1)] = tensor;
    }
    const { wte, wpe, h, ln_f } = root;
    return { wte: wte.weight, wpe: wpe.weight, h, ln_f };
  }
})((globalThis.GPT2 ??= {}));
