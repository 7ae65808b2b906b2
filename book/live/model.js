// The whole model, as in `gpt2/config.py`, `gpt2/model.py` and `cache.py`.
(function (GPT2) {
  "use strict";

  // Options that change the arithmetic, with the only value GPT-2 has.
  const GPT2_ONLY = {
    model_type: "gpt2",
    scale_attn_weights: true,
    scale_attn_by_inverse_layer_idx: false,
    add_cross_attention: false,
    tie_word_embeddings: true,
  };
  const SIZES = ["n_vocab", "n_ctx", "n_embd", "n_head", "n_layer", "n_inner"];

  /** Check a parsed `config.json`; return its fields by the book's names. */
  GPT2.readConfig = function (fields) {
    for (const [option, expected] of Object.entries(GPT2_ONLY))
      if ((fields[option] ?? expected) !== expected)
        throw new Error(
          `the config sets ${option}=${fields[option]}, but GPT-2 has ` +
            `${expected}`,
        );
    const config = {
      n_vocab: fields.vocab_size ?? fields.n_vocab,
      n_ctx: fields.n_positions ?? fields.n_ctx,
      n_embd: fields.n_embd,
      n_head: fields.n_head,
      n_layer: fields.n_layer,
      n_inner: fields.n_inner ?? 4 * fields.n_embd,
      activation: fields.activation_function ?? "gelu_new",
      layer_norm_epsilon: fields.layer_norm_epsilon ?? 1e-5,
    };
    for (const name of SIZES)
      if (!Number.isSafeInteger(config[name]) || config[name] < 1)
        throw new Error(
          `${name} must be a positive whole number; got ${config[name]}`,
        );
    if (config.n_embd % config.n_head)
      throw new Error(
        `n_embd=${config.n_embd} is no multiple of n_head=${config.n_head}`,
      );
    if (["gelu_pytorch_tanh", "gelu_fast"].includes(config.activation))
      config.activation = "gelu_new";
    if (!Object.hasOwn(GPT2.ACTIVATIONS, config.activation))
      throw new Error(
        `activation must be one of ${Object.keys(GPT2.ACTIVATIONS)}; got ` +
          `${config.activation}`,
      );
    if (!(config.layer_norm_epsilon > 0 && config.layer_norm_epsilon < 1))
      throw new Error(
        "layer_norm_epsilon must be a small positive number; got " +
          `${config.layer_norm_epsilon}`,
      );
    return config;
  };

  // The most tokens that go through the layers at once. More would need more
  // memory and be no faster.
  GPT2.ROWS = 64;

  class Model {
    /**
     * @param {object} config From `readConfig`.
     * @param {object} weights From `readWeights`: `wte`, `wpe`, `h`, `ln_f`.
     * @param {object} math Who computes: `GPT2.plain`, or its equal.
     */
    constructor(config, weights, math = GPT2.plain) {
      Object.assign(this, { config, math }, weights);
      const size = config.n_ctx * config.n_embd;
      // For each layer the keys and values (n_ctx, C) of all positions.
      this.cache = this.h.map(() => ({
        keys: math.zeros(size),
        values: math.zeros(size),
      }));
    }

    /**
     * @param {number[]} tokens T ids.
     * @param {object} [options] `past`: the number of tokens before them,
     *   whose keys and values are still in the cache; `lastOnly`: compute only
     *   the last logits; `watch`: is called with the name of what flows, its
     *   numbers, the layer, the position of their first row, and S where
     *   there are keys.
     * @returns {Float32Array} (T, V) logits, or (V) with `lastOnly`.
     */
    logits(tokens, { past = 0, lastOnly = false, watch } = {}) {
      const { n_vocab: V, n_ctx, n_embd: C } = this.config;
      if (!tokens.length || past + tokens.length > n_ctx)
        throw new Error(
          `from 1 to ${n_ctx - past} tokens fit; got ${tokens.length}`,
        );
      for (const id of tokens)
        if (!Number.isInteger(id) || id < 0 || id >= V)
          throw new Error(`ids must lie between 0 and ${V - 1}; got ${id}`);
      const all = new Float32Array(lastOnly ? V : tokens.length * V);
      for (let at = 0; at < tokens.length; at += GPT2.ROWS) {
        const some = tokens.slice(at, at + GPT2.ROWS);
        const x = this.#stream(some, past + at, watch);
        if (!lastOnly) all.set(this.unembed(x), at * V);
        else if (at + some.length === tokens.length)
          all.set(this.unembed(x.subarray(-C)));
      }
      return all;
    }

    /** Run the tokens through the layers: the residual stream (T, C). */
    #stream(tokens, past, watch) {
      const { math, config } = this;
      math.begin();
      const x = GPT2.embed(math, tokens, past, this.wte, this.wpe);
      this.h.forEach((weights, n) => {
        const cache = { ...this.cache[n], past };
        const seen = watch && ((name, y, S) => watch(name, y, n, past, S));
        math.scratch(() => GPT2.layer(math, x, weights, config, cache, seen));
      });
      watch?.("stream", x, this.h.length, past);
      return x;
    }

    /** Final norm, then the product with the embeddings: (T, C) to (T, V). */
    unembed(x, norm = true) {
      const { layer_norm_epsilon: epsilon } = this.config;
      const last = norm ? this.math.layerNorm(x, this.ln_f, epsilon) : x;
      return this.math.unembed(last, this.wte);
    }

    /** The same for vectors from elsewhere, of any number. */
    read(x, norm) {
      const { n_vocab: V, n_embd: C } = this.config;
      if (!x.length || x.length % C)
        throw new Error(`expected vectors of ${C} numbers; got ${x.length}`);
      const all = new Float32Array((x.length / C) * V);
      for (let at = 0; at < x.length; at += GPT2.ROWS * C) {
        this.math.begin();
        const some = x.subarray(at, at + GPT2.ROWS * C);
        all.set(this.unembed(some, norm), (at / C) * V);
      }
      return all;
    }

    /** Copy rows of a table (N, C): (T, C). */
    rows(table, indices) {
      const all = new Float32Array(indices.length * table.C);
      for (let at = 0; at < indices.length; at += GPT2.ROWS) {
        this.math.begin();
        const some = this.math.rows(table, indices.slice(at, at + GPT2.ROWS));
        all.set(some, at * table.C);
      }
      return all;
    }
  }

  GPT2.Model = Model;
})((globalThis.GPT2 ??= {}));
