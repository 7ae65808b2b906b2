// Token row + position row, as in `gpt2/embeddings.py`; and back to logits.
(function (GPT2) {
  "use strict";

  /**
   * @param {number[]} tokens T ids.
   * @param {number} past The position of the first of them.
   * @param {Float32Array} wte (V, C)
   * @param {Float32Array} wpe (n_ctx, C)
   * @returns {Float32Array} (T, C): the residual stream before layer 0.
   */
  GPT2.embed = function (tokens, past, wte, wpe, C) {
    const x = new Float32Array(tokens.length * C);
    tokens.forEach((id, t) => {
      for (let c = 0; c < C; c++)
        x[t * C + c] = wte[id * C + c] + wpe[(past + t) * C + c];
    });
    return x;
  };

  /**
   * The dot product of each vector with each token's row.
   *
   * @param {Float32Array} x (T, C), after the final norm.
   * @param {Float32Array} wte (V, C)
   * @returns {Float32Array} (T, V) logits.
   */
  GPT2.unembed = function (x, wte, C) {
    const T = x.length / C;
    const V = wte.length / C;
    const logits = new Float32Array(T * V);
    for (let v = 0; v < V; v++)
      for (let t = 0; t < T; t++) {
        let sum = 0;
        for (let c = 0; c < C; c++) sum += x[t * C + c] * wte[v * C + c];
        logits[t * V + v] = sum;
      }
    return logits;
  };
})((globalThis.GPT2 ??= {}));
