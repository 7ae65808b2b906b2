// From logits to the next token, as in `gpt2/sampling.py`, and text token by
// token, as in `gpt2/generation.py`.
(function (GPT2) {
  "use strict";

  const LIMITS = {
    temperature: [1e-30, 1e30],
    top_k: [1, Infinity],
    top_p: [1e-30, 1],
    min_p: [1e-30, 1],
    repetition_penalty: [1e-30, 1e30],
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
   * The indices of the largest numbers whose weights together reach a target,
   * in the order of the indices; of equal numbers, the first. Nothing is
   * sorted: this is quickselect, which halves what is left on average.
   */
  function select(numbers, target, weightOf) {
    const x = numbers.slice();
    let [low, high, reached, limit] = [0, x.length, 0, -Infinity];
    while (low < high) {
      const pivot = x[(low + high) >> 1];
      // The greater ones to the front, the lesser ones to the back.
      let [greater, i, lesser] = [low, low, high];
      let [above, equal] = [0, 0];
      while (i < lesser) {
        const number = x[i];
        if (number > pivot) {
          above += weightOf(number);
          x[i++] = x[greater];
          x[greater++] = number;
        } else if (number < pivot) {
          x[i] = x[--lesser];
          x[lesser] = number;
        } else {
          equal += weightOf(number);
          i++;
        }
      }
      if (reached + above >= target) high = greater;
      else if (reached + above + equal >= target) {
        [reached, limit] = [reached + above, pivot];
        break;
      } else [reached, low] = [reached + above + equal, lesser];
    }
    const found = [];
    for (let i = 0; i < numbers.length; i++)
      if (numbers[i] > limit) found.push(i);
      else if (numbers[i] === limit && reached < target) {
        found.push(i);
        reached += weightOf(limit);
      }
    return found;
  }

  /**
   * The indices of the k largest numbers, the largest first; of equal ones,
   * the first. Only these are sorted.
   */
  GPT2.largest = function (numbers, k) {
    const found = select(numbers, Math.min(k, numbers.length), () => 1);
    return found.sort((a, b) => numbers[b] - numbers[a]); // stable
  };

  /**
   * Apply repetition penalty, temperature, top-k, top-p and min-p, in this
   * order.
   *
   * @param {Float32Array} logits (V)
   * @param {object} sampling `temperature` (0: only the likeliest token),
   *   `top_k`, `top_p`, `min_p`, `repetition_penalty`; what is not given
   *   filters nothing.
   * @param {number[]} [tokens] Those so far, which the penalty is for.
   * @returns {Float64Array} (V) probabilities, 0 for what is filtered out.
   */
  GPT2.distribution = function (logits, sampling = {}, tokens = []) {
    check(sampling);
    const { temperature = 1, top_k, top_p = 1, min_p } = sampling;
    const { repetition_penalty: penalty = 1 } = sampling;
    const scaled = Float64Array.from(logits);
    for (const id of penalty === 1 ? [] : new Set(tokens))
      if (scaled[id] > 0) scaled[id] /= penalty;
      else scaled[id] *= penalty;
    let highest = -Infinity;
    for (const logit of scaled)
      highest = logit >= highest || logit !== logit ? logit : highest;
    if (!Number.isFinite(highest))
      throw new Error("the logits are not all finite numbers");
    if (temperature === 0) {
      const likeliest = scaled.indexOf(highest);
      scaled.fill(0)[likeliest] = 1;
      return scaled;
    }
    for (let i = 0; i < scaled.length; i++)
      scaled[i] = (scaled[i] - highest) / temperature;
    const keep = (ids) => {
      const kept = ids.map((id) => scaled[id]);
      scaled.fill(-Infinity);
      ids.forEach((id, i) => (scaled[id] = kept[i]));
    };
    if (top_k < scaled.length) keep(select(scaled, top_k, () => 1));
    if (top_p < 1) keep(select(GPT2.softmax(scaled.slice()), top_p, (p) => p));
    const lowest = Math.log(min_p ?? 0); // the likeliest has 0
    for (let i = 0; i < scaled.length; i++)
      if (scaled[i] < lowest) scaled[i] = -Infinity;
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
    const all = [...tokens];
    let past = 0; // how many of them are in the cache
    while (all.length < n_ctx) {
      const options = { past, lastOnly: true };
      const logits = model.logits(all.slice(past), options);
      past = all.length;
      const chances = GPT2.distribution(logits, sampling, all);
      all.push(GPT2.draw(chances, random()));
      yield all.at(-1);
    }
  };
})((globalThis.GPT2 ??= {}));
