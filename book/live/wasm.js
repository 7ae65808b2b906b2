// The arithmetic of `GPT2.plain` in WebAssembly: `kernels.c` on numbers that
// lie in its memory, and the weights as it wants them.
(function (GPT2) {
  "use strict";

  const PAGE = 65536;
  const PANEL = 8; // columns, as in kernels.c
  // As bfloat16, number j lies beside number j + 4.
  const LANES = [0, 2, 4, 6, 1, 3, 5, 7];
  const ROOM = 2 ** 16; // for the stack and the constants of the kernels

  const aligned = (bytes) => Math.ceil(bytes / 16) * 16;

  /** Whether a tensor is kept in bfloat16: if it comes so, or is rounded. */
  const isHalf = ({ kind, dtype }, rounded) =>
    kind !== "vector" && (dtype === "BF16" || rounded);

  /** The bytes that a tensor takes: matrices lie in panels of columns. */
  function bytesOf(entry, rounded) {
    const [first, second = 1] = entry.shape;
    if (entry.kind === "vector") return aligned(4 * first);
    const [columns, rows] =
      entry.kind === "table" ? [first, second] : [second, first];
    const numbers = Math.ceil(columns / PANEL) * PANEL * rows;
    return aligned(numbers * (isHalf(entry, rounded) ? 2 : 4));
  }

  /** The most bytes that are needed while `rows` tokens run. */
  function scratchBytes(config, rows) {
    const { n_vocab, n_ctx, n_embd: C, n_head: H, n_inner } = config;
    const layer = rows * (10 * C + n_inner + H * n_ctx);
    return 4 * (layer + rows * (n_vocab + 3 * C)) + 2 * PAGE;
  }

  class Wasm {
    #kernels;
    #rounded;
    #top = ROOM; // the first free byte
    #kept = ROOM; // and that after the weights and caches

    /**
     * @param {object} exports Those of the compiled kernels.
     * @param {WebAssembly.Memory} memory
     * @param {boolean} rounded Round the weights to bfloat16.
     * @param {string} kind Of the kernels: "relaxed" or "simd".
     */
    constructor(exports, memory, rounded, kind) {
      this.kind = kind;
      this.#kernels = exports;
      this.memory = memory;
      this.#rounded = rounded;
    }

    #take(bytes) {
      const at = this.#top;
      this.#top += aligned(bytes);
      if (this.#top > this.memory.buffer.byteLength)
        throw new Error("the memory was reckoned too small"); // cannot happen
      return at;
    }

    #array(length) {
      return new Float32Array(
        this.memory.buffer,
        this.#take(4 * length),
        length,
      );
    }

    /** The address of an array, which is copied if it is not in the memory. */
    #at(x) {
      if (x.buffer === this.memory.buffer) return x.byteOffset;
      const copy = this.#array(x.length);
      copy.set(x);
      return copy.byteOffset;
    }

    /** Numbers that stay. */
    zeros(length) {
      const x = this.#array(length);
      this.#kept = this.#top;
      return x;
    }

    /** Free everything that does not stay. */
    begin() {
      this.#top = this.#kept;
    }

    /** Free what has been computed meanwhile. */
    scratch(run) {
      const top = this.#top;
      const result = run();
      this.#top = top;
      return result;
    }

    reserve(entry) {
      const at = this.#take(bytesOf(entry, this.#rounded));
      this.#kept = this.#top;
      const { buffer } = this.memory;
      const { kind, shape } = entry;
      if (kind === "vector") {
        const numbers = new Float32Array(buffer, at, shape[0]);
        const put = (from, some) => numbers.set(GPT2.asFloat32(some), from);
        return { tensor: numbers, put };
      }
      const half = isHalf(entry, this.#rounded);
      const [first, second] = shape;
      const tensor = { at, half };
      if (kind === "table") Object.assign(tensor, { N: first, C: second });
      else Object.assign(tensor, { I: first, O: second });
      const columns = Math.ceil((tensor.N ?? tensor.O) / PANEL) * PANEL;
      const length = columns * (tensor.C ?? tensor.I);
      const numbers = half
        ? new Uint16Array(buffer, at, length)
        : new Float32Array(buffer, at, length);
      const convert = half ? GPT2.asBfloat16 : GPT2.asFloat32;
      const pack = kind === "table" ? packTable : packLinear;
      const put = (from, some) =>
        pack(numbers, convert(some), from, tensor, half);
      return { tensor, put };
    }

    rows(table, indices) {
      const { at, half, C } = table;
      const x = this.#array(indices.length * C);
      const bits = new Uint32Array(x.buffer, x.byteOffset, x.length);
      const { buffer } = this.memory;
      const from = half ? new Uint16Array(buffer) : new Uint32Array(buffer);
      const shift = half ? 16 : 0;
      indices.forEach((index, t) => {
        const lane = half ? LANES[index % PANEL] : index % PANEL;
        let next = at / (half ? 2 : 4) + lane;
        next += Math.floor(index / PANEL) * C * PANEL;
        for (let c = 0; c < C; c++, next += PANEL)
          bits[t * C + c] = from[next] << shift;
      });
      return x;
    }

    #product(x, { at, half }, bias, T, I, O, from, to) {
      const y = this.#array(T * O);
      const name = half ? "linear_bfloat16" : "linear_float32";
      this.#kernels[name](
        ...[y.byteOffset, this.#at(x), at, bias?.byteOffset ?? 0],
        ...[T, I, O, from, to],
      );
      return y;
    }

    linear(x, { weight, bias }, [from, to] = [0, weight.I]) {
      const { I, O } = weight;
      return this.#product(x, weight, bias, x.length / I, I, O, from, to);
    }

    unembed(x, table) {
      const { N, C } = table;
      return this.#product(x, table, null, x.length / C, C, N, 0, C);
    }

    layerNorm(x, { weight, bias }, epsilon) {
      const C = weight.length;
      const y = this.#array(x.length);
      this.#kernels.layer_norm(
        ...[y.byteOffset, this.#at(x), weight.byteOffset, bias.byteOffset],
        ...[x.length / C, C, epsilon],
      );
      return y;
    }

    add(x, y) {
      this.#kernels.add(x.byteOffset, this.#at(y), x.length);
    }

    activate(x, name) {
      if (name === "gelu_new") this.#kernels.gelu_new(x.byteOffset, x.length);
      else GPT2.plain.activate(x, name);
    }

    scores(qkv, keys, { T, S, C, H }) {
      const y = this.#array(H * T * S);
      const { scores } = this.#kernels;
      scores(y.byteOffset, qkv.byteOffset, keys.byteOffset, T, S, C, H);
      return y;
    }

    softmaxRows(x, S) {
      this.#kernels.softmax_rows(x.byteOffset, x.length / S, S);
    }

    mix(weights, values, { T, S, C, H }) {
      const y = this.#array(T * C);
      const { mix } = this.#kernels;
      mix(y.byteOffset, weights.byteOffset, values.byteOffset, T, S, C, H);
      return y;
    }
  }

  /** Put numbers of a matrix (I, O), from `at` on, into panels of columns. */
  function packLinear(to, numbers, at, { I, O }, half) {
    for (let n = 0; n < numbers.length;) {
      const i = Math.floor((at + n) / O);
      for (let o = (at + n) % O; o < O && n < numbers.length; o++, n++) {
        const lane = half ? LANES[o % PANEL] : o % PANEL;
        to[((o - (o % PANEL)) * I + i * PANEL + lane) >>> 0] = numbers[n];
      }
    }
  }

  /** The same for a table (N, C): its rows are the columns of the product. */
  function packTable(to, numbers, at, { C }, half) {
    for (let n = 0; n < numbers.length;) {
      const row = Math.floor((at + n) / C);
      const lane = half ? LANES[row % PANEL] : row % PANEL;
      const start = (row - (row % PANEL)) * C + lane;
      for (let c = (at + n) % C; c < C && n < numbers.length; c++, n++)
        to[start + c * PANEL] = numbers[n];
    }
  }

  const compiled = new WeakMap(); // promises by `GPT2.KERNELS`

  /** The best kernels that this browser takes: a promise; null without any. */
  function compile() {
    const kernels = GPT2.KERNELS;
    const attempt = async () => {
      for (const kind of ["relaxed", "simd"])
        try {
          const bytes = GPT2.fromBase64(kernels[kind]);
          return { kind, module: await WebAssembly.compile(bytes) };
        } catch {
          // the next one, then
        }
      return null;
    };
    if (!compiled.has(kernels)) compiled.set(kernels, attempt());
    return compiled.get(kernels);
  }

  /**
   * @param {Map<string, object>} matched From `matchTensors`.
   * @returns {Promise<{weights, all}>} The bytes of the weights alone, and of
   *   all that a model needs: weights, cache, and room to compute.
   */
  GPT2.memoryFor = async function (matched, config, rounded) {
    const { n_ctx, n_embd, n_layer } = config;
    const fast = await compile();
    let weights = 0;
    for (const [name, entry] of matched)
      if (name !== "lm_head.weight") {
        const numbers = entry.shape.reduce((a, b) => a * b, 1);
        weights += fast ? bytesOf(entry, rounded) : 4 * numbers;
      }
    const cache = 8 * n_layer * aligned(n_ctx * n_embd);
    const all = ROOM + weights + cache + scratchBytes(config, GPT2.ROWS);
    return { weights, all };
  };

  /**
   * Who computes in this browser: WebAssembly, or plain JavaScript.
   *
   * @param {number} bytes How much memory to take, from `memoryFor`.
   * @param {object} [options] `rounded`: round the weights to bfloat16;
   *   `memory`: that of a model which is no longer needed, to be used again,
   *   so that there are never two at once.
   */
  GPT2.newMath = async function (bytes, { rounded = false, memory } = {}) {
    const found = await compile();
    if (!found) return GPT2.plain;
    const pages = Math.ceil(bytes / PAGE);
    try {
      memory ??= new WebAssembly.Memory({ initial: pages });
      memory.grow(Math.max(0, pages - memory.buffer.byteLength / PAGE));
    } catch {
      throw new Error(
        `the browser does not give ${Math.ceil(bytes / 1e6)} MB of memory` +
          (rounded ? "" : '; with dtype "bfloat16" it takes less'),
      );
    }
    const imports = { env: { memory } };
    const { exports } = await WebAssembly.instantiate(found.module, imports);
    return new Wasm(exports, memory, rounded, found.kind);
  };
})((globalThis.GPT2 ??= {}));
