// What is recorded of a run and changed in it, as with the hooks of Chapter
// 15: a layer shows what flows through it to a function, which may change it.
(function (GPT2) {
  "use strict";

  /** The shape of what can be recorded, for each layer. */
  const SHAPES = {
    stream: ({ T, C }) => [T, C],
    weights: ({ T, H }) => [H, T, T],
    query: ({ T, H, D }) => [H, T, D],
    key: ({ T, H, D }) => [H, T, D],
    value: ({ T, H, D }) => [H, T, D],
    mixed: ({ T, H, D }) => [H, T, D],
    heads: ({ T, H, C }) => [H, T, C],
    attention: ({ T, C }) => [T, C],
    feedForward: ({ T, C }) => [T, C],
    norm1: ({ T, C }) => [T, C],
    norm2: ({ T, C }) => [T, C],
    hidden: ({ T, I }) => [T, I],
  };
  GPT2.RECORDS = ["logits", ...Object.keys(SHAPES)];
  const PARTS = ["head", "attention", "feedForward", "stream", "link"];

  /** Check edits; return them grouped by what they change and the layer. */
  function sortEdits(edits, { n_layer, n_head }) {
    const within = (value, end, name, edit) => {
      if (!Number.isInteger(value) || value < 0 || value >= end)
        throw new Error(
          `${name} of ${JSON.stringify(edit).slice(0, 80)} must be from 0 to ` +
            `${end - 1}; got ${value}`,
        );
    };
    const sorted = new Map();
    for (const edit of edits) {
      const { part, layer, head, to } = edit;
      if (!PARTS.includes(part))
        throw new Error(`part must be one of ${PARTS}; got ${part}`);
      within(layer, n_layer + (part === "stream"), "layer", edit);
      if (part === "head" || part === "link")
        within(head, n_head, "head", edit);
      if (part !== "link" && !edit.rows && to !== "zero" && to !== "mean")
        throw new Error(`to must be zero, mean or a trace; got ${to}`);
      const place = { head: "mixed", link: "scores" }[part] ?? part;
      const key = `${place} ${layer}`;
      sorted.set(key, [...(sorted.get(key) ?? []), { ...edit }]);
    }
    return sorted;
  }

  /** Change what a part has brought: columns of x (T, C), in place. */
  function replace(edit, x, past, { C, D }) {
    const [from, width] = edit.part === "head" ? [edit.head * D, D] : [0, C];
    edit.sums ??= new Float64Array(width);
    edit.allowed ??= edit.positions && new Set(edit.positions);
    for (let t = 0; t < x.length / C; t++) {
      const row = x.subarray(t * C + from, t * C + from + width);
      const position = past + t;
      if (edit.to === "mean")
        for (let i = 0; i < width; i++) edit.sums[i] += row[i];
      if (edit.allowed && !edit.allowed.has(position)) continue;
      if (edit.to === "zero") row.fill(0);
      else if (edit.to === "mean")
        for (let i = 0; i < width; i++) row[i] = edit.sums[i] / (position + 1);
      else {
        const at = position * width;
        if (at + width > edit.rows.length)
          throw new Error(`the trace has no position ${position} to patch`);
        row.set(edit.rows.subarray(at, at + width));
      }
    }
  }

  /** Hide a key from a query: scores (H, T, S). */
  function cut({ head, query, key }, scores, past, S, H) {
    const T = scores.length / (H * S);
    const t = query - past;
    if (t >= 0 && t < T && key >= 0 && key < S)
      scores[(head * T + t) * S + key] = -Infinity;
  }

  /** Copy columns of x (T, width) to (H, all, D), from position `past` on. */
  function spread(x, width, from, to, past, { T, H, D }) {
    for (let t = 0; t < x.length / width; t++)
      for (let h = 0; h < H; h++) {
        const at = t * width + from + h * D;
        to.set(x.subarray(at, at + D), (h * T + past + t) * D);
      }
  }

  /**
   * Return a function that a model calls as its `watch`.
   *
   * @param {object} model
   * @param {number} T The tokens of the whole run, which begins at position 0.
   * @param {object} trace Receives what is recorded.
   * @param {string[]} record Names; see README.md.
   * @param {object[]} edits See README.md; traces are resolved to `rows`.
   */
  GPT2.watcher = function (model, T, trace, record, edits) {
    for (const name of record)
      if (!GPT2.RECORDS.includes(name))
        throw new Error(
          `record may have ${GPT2.RECORDS.join(", ")}; got ${name}`,
        );
    const { n_layer, n_embd: C, n_head: H, n_inner: I } = model.config;
    const sizes = { T, C, H, I, D: C / H };
    for (const name of record)
      if (name in SHAPES) {
        const size = SHAPES[name](sizes).reduce((a, b) => a * b, 1);
        const count = n_layer + (name === "stream");
        trace[name] = Array.from(
          { length: count },
          () => new Float32Array(size),
        );
      }
    const changes = sortEdits(edits, model.config);
    return (name, x, n, past, S) => {
      for (const edit of changes.get(`${name} ${n}`) ?? [])
        if (edit.part === "link") cut(edit, x, past, S, H);
        else replace(edit, x, past, sizes);
      if (name === "qkv")
        ["query", "key", "value"].forEach((third, i) => {
          const to = trace[third]?.[n];
          if (to) spread(x, 3 * C, i * C, to, past, sizes);
        });
      else if (name === "weights" && trace.weights) {
        const rows = x.length / (H * S);
        for (let h = 0; h < H; h++)
          for (let t = 0; t < rows; t++) {
            const at = (h * rows + t) * S;
            const row = x.subarray(at, at + S);
            trace.weights[n].set(row, (h * T + past + t) * T);
          }
      } else if (name === "mixed") {
        if (trace.mixed) spread(x, C, 0, trace.mixed[n], past, sizes);
        if (trace.heads) shareOut(model, x, n, past, trace.heads[n], sizes);
      } else if (trace[name]) {
        const to = trace[name][n];
        to.set(x, past * (to.length / T));
      }
    };
  };

  /** What each head adds to the stream: its own part of `c_proj`. */
  function shareOut(model, mixed, n, past, to, { T, C, H, D }) {
    const { weight } = model.h[n].attn.c_proj;
    for (let h = 0; h < H; h++) {
      const range = [h * D, (h + 1) * D];
      model.math.scratch(() => {
        const added = model.math.linear(mixed, { weight }, range);
        to.set(added, (h * T + past) * C);
      });
    }
  }
})((globalThis.GPT2 ??= {}));
