// From logits to the next token, as in `gpt2/sampling.py`, and text token by
// token, as in `gpt2/generation.py`.
(function (GPT2) {
  "use strict";

  const LIMITS = {
    temperature: [1e-30, 1e30],
    top_k: [1, Infinity],
    top_p: [1e-30, 1],
    min_p: [1e-30, 1],
  };

  function check(sampling) {
    for (const [name, value] of Object.entries(sampling)) {
      if (!Object.hasOwn(LIMITS, name))
        throw new Error(`there is no sampling setting ${name}`);
      const [low, high] = LIMITS[name];
      const fits = value >= low && value <= high;
      if (!fits && !(name === "temperature" && value === 0))
        throw new Error(
          `${name} must be from ${low} to ${high}; got ${value}`,
        );
    }
  }

  /**
   * Apply temperature, top-k, top-p and min-p, in this order.
   *
   * @param {Float32Array} logits (V)
   * @param {object} sampling `temperature` (0: only the likeliest token),
   *   `top_k`, `top_p`, `min_p`; what is not given filters nothing.
   * @returns {Float64Array} (V) probabilities, 0 for what is filtered out.
   */
  GPT2.distribution = function (logits, sampling = {}) {
    check(sampling);
    const { temperature = 1, top_k = Infinity, top_p = 1, min_p } = sampling;
    // Equal logits stay in the order of their ids: sorting is stable.
    const order = Array.from(logits.keys());
    order.sort((a, b) => logits[b] - logits[a]);
    const highest = logits[order[0]];
    if (!Number.isFinite(highest) || logits.some(Number.isNaN))
      throw new Error("the logits are not all finite numbers");
    const scaled = Float64Array.from(logits, (logit) =>
      temperature ? (logit - highest) / temperature : 0,
    );
    const drop = (from) => {
      for (const id of order.slice(from)) scaled[id] = -Infinity;
    };
    drop(temperature ? top_k : 1);
    if (top_p < 1) {
      const p = GPT2.softmax(scaled.slice());
      let before = 0;
      drop(
        order.findIndex((id) => {
          const reached = before >= top_p;
          before += p[id];
          return reached;
        }) >>> 0, // none: -1 becomes a place beyond the end
      );
    }
    if (min_p !== undefined)
      for (const id of order)
        if (scaled[id] < Math.log(min_p)) scaled[id] = -Infinity;
    return GPT2.softmax(scaled);
  };

  /**
   * A generator of its own (mulberry32), not PyTorch's: a seed draws the same
   * text in every browser, but not the text that it draws in Python.
   *
   * @param {number} seed A whole number from 0 to 2**32 - 1.
   * @returns {function(): number} Draws uniformly from 0 to below 1.
   */
  GPT2.seeded = function (seed) {
    if (!Number.isInteger(seed) || seed < 0 || seed >= 2 ** 32)
      throw new Error(`seed must be from 0 to 2**32 - 1; got ${seed}`);
    let state = seed;
    return () => {
      state = (state + 0x6d2b79f5) >>> 0;
      let mixed = Math.imul(state ^ (state >>> 15), state | 1);
      mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
      return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
    };
  };

  /** Draw an id from probabilities (V) with a number from 0 to below 1. */
  GPT2.draw = function (probabilities, number) {
    let last = 0;
    for (const [id, p] of probabilities.entries()) {
      if (p === 0) continue;
      last = id;
      number -= p;
      if (number < 0) break;
    }
    return last; // rounding may leave a rest after the last one
  };

  /**
   * Generate tokens without end, until the positions are used up.
   *
   * @param {number[]} tokens The prompt's T ids.
   * @param {object} [sampling] As in `distribution`.
   * @param {number} [seed] None: another text each time.
   * @yields {number} The next token's id.
   */
  GPT2.generate = function* (model, tokens, sampling = {}, seed) {
    const { n_ctx } = model.config;
    if (tokens.length > n_ctx)
      throw new Error(`${tokens.length} tokens are more than ${n_ctx}`);
    const random = seed === undefined ? Math.random : GPT2.seeded(seed);
    const cache = model.newCache();
    let next = tokens;
    while (cache[0].length + next.length < n_ctx) {
      const logits = model.logits(next, { cache, lastOnly: true });
      next = [GPT2.draw(GPT2.distribution(logits, sampling), random())];
      yield next[0];
    }
  };
})((globalThis.GPT2 ??= {}));
