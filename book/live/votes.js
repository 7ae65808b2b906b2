// What each part says of the next token, as in Chapters 7 and 15.
(function (GPT2) {
  "use strict";

  const dot = (a, b) => a.reduce((sum, number, i) => sum + number * b[i], 0);

  /**
   * Divide a logit among the parts that added to the stream. The final norm
   * divides by a number that all share; so each part's vote is a product.
   *
   * @param {object} model
   * @param {number[]} ids T ids.
   * @param {number} id The token that is voted for.
   * @param {number} [against] Subtract this token's logit.
   * @param {number} position After which the vote is held.
   * @returns {object} See README.md.
   */
  GPT2.votes = function (model, ids, id, against, position) {
    const { n_vocab: V, n_embd: C, n_head: H } = model.config;
    for (const token of against === undefined ? [id] : [id, against])
      if (!(Number.isInteger(token) && token >= 0 && token < V))
        throw new Error(`id must be from 0 to ${V - 1}; got ${token}`);
    const T = position + 1;
    if (!(Number.isInteger(position) && T >= 1 && T <= ids.length))
      throw new Error(
        `position must be from 0 to ${ids.length - 1}; got ${position}`,
      );
    const trace = {};
    const record = ["stream", "heads", "feedForward"];
    const watch = GPT2.watcher(model, T, trace, record, []);
    model.logits(ids.slice(0, T), { lastOnly: true, watch });

    const wanted = model.rows(model.wte, [id]);
    if (against !== undefined)
      model.rows(model.wte, [against]).forEach((n, c) => (wanted[c] -= n));
    const { weight, bias } = model.ln_f;
    const direction = Float64Array.from(wanted, (n, c) => n * weight[c]);
    const mean = direction.reduce((a, b) => a + b, 0) / C;
    for (let c = 0; c < C; c++) direction[c] -= mean; // instead of each part's
    const end = trace.stream.at(-1).subarray(-C);
    const middle = end.reduce((a, b) => a + b, 0) / C;
    const spread = end.reduce((a, b) => a + (b - middle) ** 2, 0) / C;
    const scale = Math.sqrt(spread + model.config.layer_norm_epsilon);
    const vote = (part) => dot(part, direction) / scale;

    const found = {
      token: vote(model.rows(model.wte, [ids[position]])),
      position: vote(model.rows(model.wpe, [position])),
      heads: trace.heads.map((all) =>
        Array.from({ length: H }, (_, h) =>
          vote(all.subarray((h * T + T - 1) * C, (h * T + T) * C)),
        ),
      ),
      bias: model.h.map((layer) => vote(layer.attn.c_proj.bias)),
      feedForward: trace.feedForward.map((all) => vote(all.subarray(-C))),
      constant: dot(bias, wanted),
    };
    const all = Object.values(found).flat(2);
    found.total = all.reduce((a, b) => a + b, 0);
    return found;
  };

  /** The cosine of the angle between a vector and each row: (N). */
  GPT2.cosines = function (model, x, table) {
    const { C, N } = table;
    if (x.length !== C)
      throw new Error(`expected one vector of ${C} numbers; got ${x.length}`);
    const length = Math.hypot(...x);
    const cosines = new Float32Array(N);
    for (let n = 0; n < N; n += 64) {
      const indices = [];
      for (let i = n; i < Math.min(N, n + 64); i++) indices.push(i);
      const rows = model.rows(table, indices);
      indices.forEach((index, i) => {
        const row = rows.subarray(i * C, (i + 1) * C);
        cosines[index] = dot(row, x) / (length * Math.hypot(...row) || 1);
      });
    }
    return cosines;
  };
})((globalThis.GPT2 ??= {}));
