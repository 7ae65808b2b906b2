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
    return 4 * (layer + rows * (n_vocab + 3 * C)) + 64 * PAGE;
  }

  class Wasm {
    #kernels;
    #memory;
    #numbers; // the whole memory, as float32
    #rounded;
    #top = ROOM; // the first free byte
    #kept = ROOM; // and that after the weights and caches

    /**
     * @param {object} exports Those of the compiled kernels.
     * @param {WebAssembly.Memory} memory
     * @param {boolean} rounded Round the weights to bfloat16.
     */
    constructor(exports, memory, rounded) {
      this.#kernels = exports;
      this.#memory = memory;
      this.#rounded = rounded;
      this.#numbers = new Float32Array(memory.buffer);
    }

    /** The bytes of the weights alone, and of all that a model needs. */
    static bytes(matched, config, rounded, rows) {
      const { n_ctx, n_embd, n_layer } = config;
      let weights = 0;
      for (const entry of matched.values()) weights += bytesOf(entry, rounded);
      const cache = 8 * n_layer * aligned(n_ctx * n_embd);
      const all = ROOM + weights + cache + scratchBytes(config, rows);
      return { weights, all };
    }

    /**
     * @param {number} bytes How much memory to take, from `bytes`.
     * @returns {Promise<Wasm | null>} None where the browser has no SIMD.
     */
    static async create(bytes, rounded) {
      const module = await compile();
      if (!module) return null;
      const pages = Math.ceil(bytes / PAGE);
      let memory;
      try {
        memory = new WebAssembly.Memory({ initial: pages });
      } catch {
        throw new Error(
          `the browser does not give ${Math.ceil(bytes / 1e6)} MB of memory` +
            (rounded ? "" : '; half of it is enough with dtype "bfloat16"'),
        );
      }
      const { exports } = await WebAssembly.instantiate(module.module, {
        env: { memory },
      });
      const math = new Wasm(exports, memory, rounded);
      math.kind = module.kind;
      return math;
    }

    #take(bytes) {
      const at = this.#top;
      this.#top += aligned(bytes);
      if (this.#top > this.#memory.buffer.byteLength)
        throw new Error("the memory was reckoned too small"); // cannot happen
      return at;
    }

    #array(length) {
      return new Float32Array(
        this.#memory.buffer,
        this.#take(4 * length),
        length,
      );
    }

    /** The address of an array, which is copied if it is not in the memory. */
    #at(x) {
      if (x.buffer === this.#memory.buffer) return x.byteOffset;
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
      const { buffer } = this.#memory;
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
      const { buffer } = this.#memory;
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
      if (name === "gelu_new")
        this.#kernels.gelu_new(x.byteOffset, x.length);
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
    for (let n = 0; n < numbers.length; ) {
      const i = Math.floor((at + n) / O);
      for (let o = (at + n) % O; o < O && n < numbers.length; o++, n++) {
        const lane = half ? LANES[o % PANEL] : o % PANEL;
        to[((o - (o % PANEL)) * I + i * PANEL + lane) >>> 0] = numbers[n];
      }
    }
  }

  /** The same for a table (N, C): its rows are the columns of the product. */
  function packTable(to, numbers, at, { C }, half) {
    for (let n = 0; n < numbers.length; ) {
      const row = Math.floor((at + n) / C);
      const lane = half ? LANES[row % PANEL] : row % PANEL;
      const start = (row - (row % PANEL)) * C + lane;
      for (let c = (at + n) % C; c < C && n < numbers.length; c++, n++)
        to[start + c * PANEL] = numbers[n];
    }
  }

  let compiled = null;

  /** The best kernels that this browser takes: a promise; null without any. */
  function compile() {
    const attempt = async () => {
      for (const kind of ["relaxed", "simd"])
        try {
          const bytes = GPT2.fromBase64(GPT2.KERNELS[kind]);
          return { kind, module: await WebAssembly.compile(bytes) };
        } catch {
          // the next one, then
        }
      return null;
    };
    return (compiled ??= attempt());
  }

  GPT2.Wasm = Wasm;
})((globalThis.GPT2 ??= {}));
