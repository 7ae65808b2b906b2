// One layer and its parts, as in `gpt2/layer.py`, `layer_norm.py`,
// `linear.py` and `feed_forward.py`.
(function (GPT2) {
  "use strict";

  const plain = (GPT2.plain ??= {});

  /**
   * @param {Float32Array} x (T, I)
   * @param {object} map `weight` (I, O), as the checkpoint stores it, and
   *   `bias` (O), or none.
   * @param {[number, number]} [range] Only these columns of x and rows of the
   *   weight: one head's share.
   * @returns {Float32Array} (T, O): x times the weight, plus the bias.
   */
  plain.linear = function (x, { weight, bias }, [from, to] = [0, weight.I]) {
    const { numbers, I, O } = weight;
    const T = x.length / I;
    const y = new Float32Array(T * O);
    for (let t = 0; t < T; t++) {
      const out = y.subarray(t * O, (t + 1) * O);
      if (bias) out.set(bias);
      for (let i = from; i < to; i++) {
        // Row by row of the weight: in the order in which it lies in memory.
        const factor = x[t * I + i];
        for (let o = 0; o < O; o++) out[o] += factor * numbers[i * O + o];
      }
    }
    return y;
  };

  /** Bring each vector to mean 0 and variance 1, scale and shift: (T, C). */
  plain.layerNorm = function (x, { weight, bias }, epsilon) {
    const C = weight.length;
    const y = new Float32Array(x.length);
    for (let at = 0; at < x.length; at += C) {
      let mean = 0;
      for (let c = 0; c < C; c++) mean += x[at + c] / C;
      let variance = 0;
      for (let c = 0; c < C; c++) variance += (x[at + c] - mean) ** 2 / C;
      const scale = 1 / Math.sqrt(variance + epsilon);
      for (let c = 0; c < C; c++)
        y[at + c] = (x[at + c] - mean) * scale * weight[c] + bias[c];
    }
    return y;
  };

  /** Add y to x, in place. */
  plain.add = function (x, y) {
    for (let i = 0; i < x.length; i++) x[i] += y[i];
  };

  /**
   * The error function by its series with positive terms only, which loses no
   * digits: DLMF 7.6.2. JavaScript has none of its own.
   */
  function erf(x) {
    if (Math.abs(x) > 6) return Math.sign(x);
    let term = x;
    let sum = x;
    for (let n = 1; Math.abs(term) > 1e-17 * Math.abs(sum); n++)
      sum += term *= (2 * x * x) / (2 * n + 1);
    return (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * sum;
  }

  GPT2.ACTIVATIONS = {
    gelu_new: (x) =>
      (x / 2) *
      (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x * x * x))),
    gelu: (x) => (x / 2) * (1 + erf(x / Math.SQRT2)),
    relu: (x) => Math.max(0, x),
  };

  /** Apply an activation, in place. */
  plain.activate = function (x, name) {
    const f = GPT2.ACTIVATIONS[name];
    for (let i = 0; i < x.length; i++) x[i] = f(x[i]);
  };

  /** Widen each vector, apply the activation, narrow it again: (T, C). */
  GPT2.feedForward = function (math, x, weights, activation, watch) {
    const hidden = math.linear(x, weights.c_fc);
    math.activate(hidden, activation);
    watch?.("hidden", hidden);
    return math.linear(hidden, weights.c_proj);
  };

  /**
   * Add what attention brings to the stream, then the feed-forward network.
   *
   * @param {object} math Who computes: `GPT2.plain`, or its equal.
   * @param {Float32Array} x (T, C), changed in place.
   * @param {object} weights Those of the layer.
   * @param {object} config The model's.
   * @param {object} cache The layer's.
   * @param {function} [watch] Is shown what flows, by its name, and may change
   *   it, as a hook of Chapter 15 may.
   */
  GPT2.layer = function (math, x, weights, config, cache, watch) {
    const { n_embd: C, n_head: H, layer_norm_epsilon: epsilon } = config;
    watch?.("stream", x);
    const first = math.layerNorm(x, weights.ln_1, epsilon);
    watch?.("norm1", first);
    const found = GPT2.attention(
      math,
      first,
      weights.attn,
      { C, H },
      cache,
      watch,
    );
    watch?.("attention", found);
    math.add(x, found);
    const second = math.layerNorm(x, weights.ln_2, epsilon);
    watch?.("norm2", second);
    const added = GPT2.feedForward(
      math,
      second,
      weights.mlp,
      config.activation,
      watch,
    );
    watch?.("feedForward", added);
    math.add(x, added);
  };
})((globalThis.GPT2 ??= {}));
