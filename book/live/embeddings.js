// Token row + position row, as in `gpt2/embeddings.py`; and back to logits.
(function (GPT2) {
  "use strict";

  const plain = (GPT2.plain ??= {});

  /** Copy rows of a table (N, C): (T, C). */
  plain.rows = function ({ numbers, C }, indices) {
    const x = new Float32Array(indices.length * C);
    indices.forEach((index, t) =>
      x.set(numbers.subarray(index * C, (index + 1) * C), t * C),
    );
    return x;
  };

  /**
   * The dot product of each vector with each row of a table.
   *
   * @param {Float32Array} x (T, C), after the final norm.
   * @param {object} table (V, C)
   * @returns {Float32Array} (T, V) logits.
   */
  plain.unembed = function (x, { numbers, N: V, C }) {
    const T = x.length / C;
    const logits = new Float32Array(T * V);
    for (let v = 0; v < V; v++)
      for (let t = 0; t < T; t++) {
        let sum = 0;
        for (let c = 0; c < C; c++) sum += x[t * C + c] * numbers[v * C + c];
        logits[t * V + v] = sum;
      }
    return logits;
  };

  /**
   * @param {object} math Who computes: `GPT2.plain`, or its equal.
   * @param {number[]} tokens T ids.
   * @param {number} past The position of the first of them.
   * @param {object} wte (V, C)
   * @param {object} wpe (n_ctx, C)
   * @returns {Float32Array} (T, C): the residual stream before layer 0.
   */
  GPT2.embed = function (math, tokens, past, wte, wpe) {
    const x = math.rows(wte, tokens);
    const positions = tokens.map((_, t) => past + t);
    math.add(x, math.rows(wpe, positions));
    return x;
  };
})((globalThis.GPT2 ??= {}));
