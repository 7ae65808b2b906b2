// Causal multi-head attention, as in `gpt2/attention.py`.
(function (GPT2) {
  "use strict";

  const plain = (GPT2.plain ??= {});
  plain.kind = "plain";

  /**
   * Compare queries and keys: their dot products over the square root of D.
   *
   * @param {Float32Array} qkv (T, 3C): queries, keys and values side by side.
   * @param {Float32Array} keys (S, C), those of earlier positions first.
   * @returns {Float32Array} (H, T, S); -Infinity where the key comes after
   *   the query.
   */
  plain.scores = function (qkv, keys, { T, S, C, H }) {
    const D = C / H;
    const scores = new Float32Array(H * T * S).fill(-Infinity);
    for (let h = 0; h < H; h++)
      for (let t = 0; t < T; t++)
        for (let s = 0; s <= S - T + t; s++) {
          let score = 0;
          for (let c = h * D; c < (h + 1) * D; c++)
            score += qkv[3 * t * C + c] * keys[s * C + c];
          scores[(h * T + t) * S + s] = score / Math.sqrt(D);
        }
    return scores;
  };

  /**
   * Turn each row of S numbers into a probability distribution, in place. Of
   * a row in which everything is hidden, nothing is left.
   */
  plain.softmaxRows = function (x, S) {
    for (let at = 0; at < x.length; at += S)
      GPT2.softmax(x.subarray(at, at + S));
  };

  /**
   * Mix the values of all positions, as each head's weights say.
   *
   * @param {Float32Array} weights (H, T, S)
   * @param {Float32Array} values (S, C)
   * @returns {Float32Array} (T, C), head beside head.
   */
  plain.mix = function (weights, values, { T, S, C, H }) {
    const D = C / H;
    const mixed = new Float32Array(T * C);
    for (let h = 0; h < H; h++)
      for (let t = 0; t < T; t++)
        for (let s = 0; s <= S - T + t; s++) {
          const weight = weights[(h * T + t) * S + s];
          for (let c = h * D; c < (h + 1) * D; c++)
            mixed[t * C + c] += weight * values[s * C + c];
        }
    return mixed;
  };

  /**
   * Turn numbers into a probability distribution, in place. The maximum is
   * subtracted first: then no exponential overflows.
   */
  GPT2.softmax = function (numbers) {
    let highest = -Infinity;
    for (const number of numbers) highest = Math.max(highest, number);
    if (highest === -Infinity) return numbers.fill(0);
    let sum = 0;
    for (let i = 0; i < numbers.length; i++)
      sum += numbers[i] = Math.exp(numbers[i] - highest);
    for (let i = 0; i < numbers.length; i++) numbers[i] /= sum;
    return numbers;
  };

  /**
   * Let each query gather from the values up to its own position.
   *
   * @param {object} math Who computes: `GPT2.plain`, or its equal.
   * @param {Float32Array} x (T, C), normalised.
   * @param {object} weights `c_attn` (C, 3C), `c_proj` (C, C), with biases.
   * @param {{keys, values, past}} cache (n_ctx, C) twice, of which `past` are
   *   filled; the T new ones are written after them.
   * @param {function} [watch] As for `GPT2.layer`.
   * @returns {Float32Array} (T, C)
   */
  GPT2.attention = function (math, x, weights, { C, H }, cache, watch) {
    const T = x.length / C;
    const S = cache.past + T;
    const qkv = math.linear(x, weights.c_attn); // (T, 3C)
    for (let t = 0; t < T; t++) {
      const at = 3 * t * C;
      const to = (cache.past + t) * C;
      cache.keys.set(qkv.subarray(at + C, at + 2 * C), to);
      cache.values.set(qkv.subarray(at + 2 * C, at + 3 * C), to);
    }
    watch?.("qkv", qkv);
    const sizes = { T, S, C, H };
    const shares = math.scores(qkv, cache.keys, sizes); // (H, T, S)
    watch?.("scores", shares, S);
    math.softmaxRows(shares, S);
    watch?.("weights", shares, S);
    const mixed = math.mix(shares, cache.values, sizes); // (T, C)
    watch?.("mixed", mixed);
    return math.linear(mixed, weights.c_proj);
  };
})((globalThis.GPT2 ??= {}));
