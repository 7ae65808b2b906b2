// One layer and its parts, as in `gpt2/layer.py`, `layer_norm.py`,
// `linear.py` and `feed_forward.py`.
(function (GPT2) {
  "use strict";

  /**
   * @param {Float32Array} x (T, I)
   * @param {object} map `weight` (I, O), as the checkpoint stores it, and
   *   `bias` (O).
   * @returns {Float32Array} (T, O): x times the weight, plus the bias.
   */
  GPT2.linear = function (x, { weight, bias }, I) {
    const O = bias.length;
    const T = x.length / I;
    const y = new Float32Array(T * O);
    for (let t = 0; t < T; t++) {
      const out = y.subarray(t * O, (t + 1) * O);
      out.set(bias);
      for (let i = 0; i < I; i++) {
        // Row by row of the weight: in the order in which it lies in memory.
        const factor = x[t * I + i];
        for (let o = 0; o < O; o++) out[o] += factor * weight[i * O + o];
      }
    }
    return y;
  };

  /** Bring each vector to mean 0 and variance 1, scale and shift: (T, C). */
  GPT2.layerNorm = function (x, { weight, bias }, epsilon) {
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

  /** Widen each vector, apply the activation, narrow it again: (T, C). */
  GPT2.feedForward = function (x, weights, C, activation) {
    const hidden = GPT2.linear(x, weights.c_fc, C);
    const f = GPT2.ACTIVATIONS[activation];
    for (let i = 0; i < hidden.length; i++) hidden[i] = f(hidden[i]);
    return GPT2.linear(hidden, weights.c_proj, weights.c_fc.bias.length);
  };

  /** Add what attention brings to x (T, C), then the feed-forward network. */
  GPT2.layer = function (x, weights, config, cache, recorded) {
    const { n_embd: C, n_head: H, layer_norm_epsilon: epsilon } = config;
    const add = (y) => y.forEach((number, i) => (x[i] += number));
    const first = GPT2.layerNorm(x, weights.ln_1, epsilon);
    add(GPT2.attention(first, weights.attn, C, H, cache, recorded));
    const second = GPT2.layerNorm(x, weights.ln_2, epsilon);
    add(GPT2.feedForward(second, weights.mlp, C, config.activation));
  };
})((globalThis.GPT2 ??= {}));
