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
  // What a checkpoint may hold beside the weights: constants, and the table
  // of token embeddings once more.
  const IGNORED = /^(h\.\d+\.attn\.(masked_)?bias|lm_head\.weight)$/;

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
    if (!(config.layer_norm_epsilon > 0))
      throw new Error(
        "layer_norm_epsilon must be a positive number; got " +
          `${config.layer_norm_epsilon}`,
      );
    return config;
  };

  class Model {
    /**
     * @param {object} fields The parsed `config.json`.
     * @param {Map<string, {shape, data}>} tensors From `readSafetensors`.
     */
    constructor(fields, tensors) {
      this.config = GPT2.readConfig(fields);
      const { n_vocab: V, n_ctx, n_embd: C, n_inner: I } = this.config;
      const left = new Map();
      for (const [name, tensor] of tensors)
        left.set(name.replace(/^transformer\./, ""), tensor);
      const take = (name, ...shape) => {
        const tensor = left.get(name);
        if (!tensor) throw new Error(`the checkpoint has no ${name}`);
        if (String(tensor.shape) !== String(shape))
          throw new Error(
            `${name} should be (${shape}); it is (${tensor.shape})`,
          );
        left.delete(name);
        return tensor.data;
      };
      const pair = (name, ...shape) => ({
        weight: take(`${name}.weight`, ...shape),
        bias: take(`${name}.bias`, shape.at(-1)),
      });
      this.wte = take("wte.weight", V, C);
      this.wpe = take("wpe.weight", n_ctx, C);
      this.ln_f = pair("ln_f", C);
      this.h = Array.from({ length: this.config.n_layer }, (_, n) => ({
        ln_1: pair(`h.${n}.ln_1`, C),
        attn: {
          c_attn: pair(`h.${n}.attn.c_attn`, C, 3 * C),
          c_proj: pair(`h.${n}.attn.c_proj`, C, C),
        },
        ln_2: pair(`h.${n}.ln_2`, C),
        mlp: {
          c_fc: pair(`h.${n}.mlp.c_fc`, C, I),
          c_proj: pair(`h.${n}.mlp.c_proj`, I, C),
        },
      }));
      const head = left.get("lm_head.weight")?.data;
      if (head && !head.every((number, i) => number === this.wte[i]))
        throw new Error("lm_head.weight is not wte.weight, as in GPT-2");
      for (const name of left.keys())
        if (!IGNORED.test(name))
          throw new Error(`GPT-2 has no ${name}, the checkpoint does`);
    }

    /** One empty cache for each layer: keys and values (n_positions, C). */
    newCache(n_positions = this.config.n_ctx) {
      const size = n_positions * this.config.n_embd;
      return this.h.map(() => ({
        keys: new Float32Array(size),
        values: new Float32Array(size),
        length: 0,
      }));
    }

    /**
     * @param {number[]} tokens T ids.
     * @param {object} [options] `cache`, from `newCache`: earlier positions,
     *   to which these are appended; `lastOnly`: compute only the last logits;
     *   `record`: an object that receives `stream`, the residual stream
     *   (T, C) before the first layer and after each, and `weights`, each
     *   layer's attention weights (H, T, S).
     * @returns {Float32Array} (T, V) logits, or (V) with `lastOnly`.
     */
    logits(tokens, { cache, lastOnly = false, record } = {}) {
      const { n_vocab: V, n_ctx, n_embd: C } = this.config;
      cache ??= this.newCache(tokens.length);
      const past = cache[0].length;
      const room = Math.min(n_ctx, cache[0].keys.length / C);
      if (!tokens.length || past + tokens.length > room)
        throw new Error(
          `from 1 to ${room - past} tokens fit; got ${tokens.length}`,
        );
      for (const id of tokens)
        if (!Number.isInteger(id) || id < 0 || id >= V)
          throw new Error(`ids must lie between 0 and ${V - 1}; got ${id}`);
      let x = GPT2.embed(tokens, past, this.wte, this.wpe, C);
      if (record) Object.assign(record, { stream: [x.slice()], weights: [] });
      this.h.forEach((weights, n) => {
        GPT2.layer(x, weights, this.config, cache[n], record?.weights);
        record?.stream.push(x.slice());
      });
      if (lastOnly) x = x.subarray(-C);
      x = GPT2.layerNorm(x, this.ln_f, this.config.layer_norm_epsilon);
      return GPT2.unembed(x, this.wte, C);
    }
  }

  GPT2.Model = Model;
})((globalThis.GPT2 ??= {}));
