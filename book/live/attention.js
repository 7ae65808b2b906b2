// Causal multi-head attention, as in `gpt2/attention.py`.
(function (GPT2) {
  "use strict";

  /**
   * Turn numbers into a probability distribution, in place. The maximum is
   * subtracted first: then no exponential overflows.
   */
  GPT2.softmax = function (numbers) {
    let highest = -Infinity;
    for (const number of numbers) highest = Math.max(highest, number);
    let sum = 0;
    for (let i = 0; i < numbers.length; i++)
      sum += numbers[i] = Math.exp(numbers[i] - highest);
    for (let i = 0; i < numbers.length; i++) numbers[i] /= sum;
    return numbers;
  };

  /**
   * Let each query gather from the values up to its own position.
   *
   * @param {Float32Array} x (T, C), normalised.
   * @param {object} weights `c_attn` (C, 3C), `c_proj` (C, C), with biases.
   * @param {{keys, values, length}} cache (n_positions, C) twice, of which
   *   `length` are filled; the T new ones are appended.
   * @param {Float32Array[]} [recorded] Takes the weights (H, T, S), 0 where
   *   the key comes after the query.
   * @returns {Float32Array} (T, C)
   */
  GPT2.attention = function (x, weights, C, H, cache, recorded) {
    const T = x.length / C;
    const D = C / H;
    const S = cache.length + T;
    const { keys, values } = cache;
    const qkv = GPT2.linear(x, weights.c_attn, C); // (T, 3C)
    for (let t = 0; t < T; t++) {
      const at = 3 * t * C;
      const to = (cache.length + t) * C;
      keys.set(qkv.subarray(at + C, at + 2 * C), to);
      values.set(qkv.subarray(at + 2 * C, at + 3 * C), to);
    }
    const all = recorded && new Float32Array(H * T * S);
    const mixed = new Float32Array(T * C);
    for (let h = 0; h < H; h++)
      for (let t = 0; t < T; t++) {
        const query = 3 * t * C + h * D;
        const row = new Float64Array(cache.length + t + 1); // causal
        for (let s = 0; s < row.length; s++) {
          let score = 0;
          for (let d = 0; d < D; d++)
            score += qkv[query + d] * keys[s * C + h * D + d];
          row[s] = score / Math.sqrt(D);
        }
        GPT2.softmax(row);
        if (recorded) all.set(row, (h * T + t) * S);
        for (let s = 0; s < row.length; s++)
          for (let d = 0; d < D; d++)
            mixed[t * C + h * D + d] += row[s] * values[s * C + h * D + d];
      }
    cache.length = S;
    recorded?.push(all);
    return GPT2.linear(mixed, weights.c_proj, C);
  };
})((globalThis.GPT2 ??= {}));
