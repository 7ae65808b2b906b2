// The whole machine: from text to text, with every number on the way.
"use strict";

GPT2.figures.whole = async function (body, machine, { text }) {
  const kit = GPT2.kit;
  const { n_layer, n_head, n_embd, n_ctx, n_vocab } = machine.info.config;
  const D = n_embd / n_head;
  const RECORD = [
    ...["stream", "norm1", "query", "key", "value", "weights", "mixed"],
    ...["attention", "norm2", "hidden", "feedForward"],
  ];
  const CHAPTERS = {
    tokens: ["02-text-to-tokens.html", "Chapter 2"],
    embeddings: ["03-embeddings.html", "Chapter 3"],
    attention: ["04-attention.html", "Chapter 4"],
    heads: ["05-many-heads.html", "Chapter 5"],
    forward: ["06-feed-forward.html", "Chapter 6"],
    model: ["07-the-model.html", "Chapter 7"],
    sampling: ["09-sampling.html", "Chapter 9"],
  };
  const ROWS = ["token", "position", "stream"]; // the colours of the tables
  let at = null; // the position that is looked at; null is the last
  let picked = "weights";
  let now = null;

  // The views: each returns the elements that show a stage's numbers.

  /** The vector of position t in x (T, width). */
  const row = (x, t) => {
    const width = x.length / now.ids.length;
    return x.subarray(t * width, (t + 1) * width);
  };
  /** One head's vector of position t in x (H, T, D). */
  const headRow = (x, t) =>
    x.subarray(
      (head.value() * now.ids.length + t) * D,
      (head.value() * now.ids.length + t + 1) * D,
    );

  /** Vectors side by side, with a slider to read one of their numbers. */
  function vectors(list, sign) {
    const size = list[0].vector.length;
    const readout = kit.h("p", { class: "live-sum" });
    const which = kit.slider({
      ...{ label: "One of the numbers", min: 0, max: size - 1, step: 1 },
      ...{ value: Math.min(number, size - 1), change: draw },
    });
    const grids = list.map(({ name, color }) =>
      kit.grid({
        ...{ label: name, color: color ?? "stream" },
        point(i) {
          which.show(i);
          draw(i);
        },
      }),
    );
    let limit = 0;
    if (sign)
      for (const { vector } of list)
        for (const n of vector) limit = Math.max(limit, Math.abs(n));
    function draw(i) {
      number = i;
      grids.forEach((grid, n) =>
        grid.show(list[n].vector, { limit, chosen: i }),
      );
      const values = list.map(({ vector }) => kit.number(vector[i], 4));
      const named = list.map(({ name }, n) => `${name} ${values[n]}`);
      readout.textContent = sign
        ? `number ${i}:  ${values[0]} + ${values[1]} = ${values[2]}`
        : `number ${i}:  ${named.join(",  ")}`;
    }
    draw(which.value());
    const signs = ["+", "="];
    const picture = kit.h(
      "div",
      { class: "live-addition" },
      ...grids.flatMap((grid, n) => [
        n && sign
          ? kit.h(
              "span",
              { class: "live-sign", "aria-hidden": "true" },
              signs[n - 1],
            )
          : null,
        kit.h("div", {}, kit.note(list[n].name), grid.root),
      ]),
    );
    return [picture, which.root, readout, all(list)];
  }

  /** All numbers in full, folded away. */
  function all(list) {
    const lines = list.map(({ name, vector }) => {
      const numbers = Array.from(vector, (n) => kit.number(n, 4)).join("  ");
      return kit.h("p", {}, `${name}: ${numbers}`);
    });
    const box = kit.h("div", { class: "live-numbers", tabindex: "0" });
    box.append(...lines);
    const count = list.reduce((sum, { vector }) => sum + vector.length, 0);
    return kit.h(
      "details",
      {},
      kit.h("summary", {}, `All ${count.toLocaleString("en")} numbers`),
      box,
    );
  }

  function matrix(values, { limit, color, digits = 2 }) {
    const map = kit.heat({
      caption: `Head ${n()}.${head.value()}: rows ask, columns are asked`,
      pick: (r) => choose(r),
    });
    const shown = now.names.map(kit.shown);
    map.show({
      ...{ values, rows: shown, columns: shown, limit, color, digits },
      ...{ hidden: (r, c) => c > r, line: now.t, numbers: true },
    });
    return [map.root];
  }

  const T = () => now.ids.length;
  const n = () => layer.value();
  const one = (name, list, color) =>
    vectors([{ name, vector: row(list, now.t), color }]);
  const adds = (before, name, added, color) => {
    const [x, y] = [row(before, now.t), row(added, now.t)];
    const sum = x.map((value, i) => value + y[i]);
    return vectors(
      [
        { name: "the stream", vector: x },
        { name, vector: y, color },
        { name: "their sum", vector: sum },
      ],
      true,
    );
  };
  const middle = () =>
    now.stream[n()].map((value, i) => value + now.attention[n()][i]);

  /** Scores of the head: query times key over the root of D. */
  function scores() {
    const found = new Float32Array(T() * T());
    for (let t = 0; t < T(); t++)
      for (let s = 0; s <= t; s++) {
        const [q, k] = [headRow(now.query[n()], t), headRow(now.key[n()], s)];
        for (let d = 0; d < D; d++)
          found[t * T() + s] += (q[d] * k[d]) / Math.sqrt(D);
      }
    return found;
  }

  function tokens() {
    const chips = kit.chips({ label: "Tokens with their ids" });
    chips.show(now.names, { ids: now.ids });
    return [chips.root];
  }

  function ends(key) {
    const bars = kit.bars({
      caption: `After ${kit.shown(now.names[now.t])}`,
      head: ["token", key],
      color: key === "logit" ? "stream" : "probability",
    });
    const most = Math.abs(now.guesses[0].logit) || 1;
    bars.show(
      now.guesses.map((guess) => ({
        label: kit.shown(kit.named(machine, guess)),
        value: key === "logit" ? guess.logit / most : guess.probability,
        text:
          key === "logit"
            ? kit.number(guess.logit)
            : kit.percent(guess.probability),
      })),
    );
    return [bars.root];
  }

  const C = n_embd;
  // Of each stage: name, shape, chapter, what happens in it, and its numbers.
  const STAGES = {
    tokens: [
      ...["Tokens", "T", "tokens"],
      "The text is cut into pieces of the vocabulary, and each becomes a " +
        "whole number.",
      tokens,
    ],
    embeddings: [
      ...["Embeddings", `T × ${C}`, "embeddings"],
      "The token's row of one table and the position's row of another are " +
        "added: the stream begins.",
      () =>
        vectors(
          [
            { name: "token row", vector: row(now.token, now.t) },
            { name: "position row", vector: row(now.position, now.t) },
            { name: "x", vector: row(now.stream[0], now.t) },
          ].map((part, i) => ({ ...part, color: ROWS[i] })),
          true,
        ),
    ],
    norm1: [
      ...["Norm", `T × ${C}`, "forward"],
      "A copy of the vector is brought to mean 0 and variance 1, scaled and " +
        "shifted.",
      () => one("normalised", now.norm1[n()]),
    ],
    qkv: [
      ...["Query, key, value", `3 × ${n_head} × T × ${D}`, "attention"],
      "Three linear maps of it: what this token asks, what it offers, and " +
        "what it hands over.",
      () =>
        vectors(
          ["query", "key", "value"].map((name) => ({
            ...{ name, color: name },
            vector: headRow(now[name][n()], now.t),
          })),
        ),
    ],
    scores: [
      ...["Scores", `${n_head} × T × T`, "attention"],
      "Each query is multiplied with each key that is not later, and " +
        "divided by the root of D.",
      () => {
        const found = scores();
        let limit = 0;
        for (const s of found) limit = Math.max(limit, Math.abs(s));
        return matrix(found, { limit, color: "query", digits: 1 });
      },
    ],
    weights: [
      ...["Weights", `${n_head} × T × T`, "attention"],
      "The softmax makes every row of scores into shares of a whole.",
      () => {
        const size = T() * T();
        const from = head.value() * size;
        const found = now.weights[n()].subarray(from, from + size);
        return matrix(found, { limit: 1, color: "probability" });
      },
    ],
    mixed: [
      ...["Mix", `${n_head} × T × ${D}`, "heads"],
      "The average of the values under these weights, for each head by " +
        "itself.",
      () =>
        vectors([
          {
            ...{ name: "mixed values", color: "value" },
            vector: headRow(now.mixed[n()], now.t),
          },
        ]),
    ],
    attention: [
      ...["Attention adds", `T × ${C}`, "model"],
      "The heads, side by side, go through one more map, and the result is " +
        "added to the stream.",
      () =>
        adds(now.stream[n()], "attention", now.attention[n()], "query"),
    ],
    norm2: [
      ...["Norm", `T × ${C}`, "forward"],
      "Another normalised copy, for the feed-forward network.",
      () => one("normalised", now.norm2[n()]),
    ],
    hidden: [
      ...["Neurons", `T × ${machine.info.config.n_inner}`, "forward"],
      "Each neuron compares the vector with a pattern, and fires, or does " +
        "not.",
      () => one("after the GELU", now.hidden[n()], "surprise"),
    ],
    feedForward: [
      ...["Feed-forward adds", `T × ${C}`, "forward"],
      "Each neuron adds its row, as strongly as it fires, to the stream.",
      () => adds(middle(), "feed-forward", now.feedForward[n()]),
    ],
    logits: [
      ...["Logits", `T × ${n_vocab.toLocaleString("en")}`, "model"],
      "After the final norm, the vector is compared with the row of every " +
        "token.",
      () => ends("logit"),
    ],
    probabilities: [
      ...["Probabilities", `T × ${n_vocab.toLocaleString("en")}`, "sampling"],
      "One more softmax: the bets on the next token.",
      () => ends("probability"),
    ],
  };
  const IN_LAYER = [
    ...["norm1", "qkv", "scores", "weights", "mixed", "attention"],
    ...["norm2", "hidden", "feedForward"],
  ];
  const OF_HEAD = ["qkv", "scores", "weights", "mixed"];
  let number = 0;

  const said = kit.status();
  const field = kit.textField({
    ...{ label: "Text", value: text },
    change() {
      at = null;
      update();
    },
  });
  const die = kit.button("Roll the die", roll, "live-main");
  const chips = kit.chips({
    ...{ label: "The position that is looked at", select: choose },
  });
  const layer = kit.slider({
    ...{ label: "Layer", min: 0, max: n_layer - 1, step: 1 },
    ...{ value: Math.min(1, n_layer - 1), change: () => draw() },
  });
  const head = kit.slider({
    ...{ label: "Head", min: 0, max: n_head - 1, step: 1 },
    ...{ value: Math.min(1, n_head - 1), change: () => draw() },
  });
  const stops = new Map();
  const stop = (key) => {
    const [name, shape] = STAGES[key];
    const press = () => {
      picked = key;
      draw();
    };
    const element = kit.h(
      "button",
      { type: "button", class: "live-stop", onclick: press },
      name,
      kit.h("small", {}, shape),
    );
    stops.set(key, element);
    return kit.h("li", {}, element);
  };
  const line = (keys) =>
    kit.h("ol", { class: "live-track" }, ...keys.map(stop));
  const inside = kit.h("p", { class: "live-part-title" });
  const route = kit.h(
    "div",
    { class: "live-route" },
    line(["tokens", "embeddings"]),
    kit.h(
      "div",
      { class: "live-inside" },
      inside,
      kit.row(layer.root, head.root),
      line(IN_LAYER),
    ),
    line(["logits", "probabilities"]),
  );
  const panel = kit.h("div", { class: "live-panel" });
  const machinery = kit.h("div", { class: "live-machine" }, route, panel);
  const ROOM = 600; // pixels, for the numbers beside the parts
  // The tokens are as wide as the machine, and do not move with the numbers.
  new ResizeObserver(arrange).observe(chips.root);

  /** Where there is no room, the numbers stand below the part they are of. */
  function arrange() {
    const beside = chips.root.clientWidth >= ROOM;
    machinery.classList.toggle("live-beside", beside);
    const before = beside ? route : stops.get(picked);
    if (panel.previousSibling !== before) before.after(panel);
  }

  function choose(i) {
    at = i;
    update();
  }

  function draw() {
    const [name, shape, chapter, words, view] = STAGES[picked];
    for (const [key, element] of stops)
      element.setAttribute("aria-pressed", String(key === picked));
    inside.textContent = `Layer ${n()}: two parts add to the stream`;
    arrange();
    const [href, where] = CHAPTERS[chapter];
    // In a notebook, there are no pages to go to.
    const link = kit.h(GPT2.inNotebook ? "span" : "a", { href }, where);
    const token = kit.shown(now.names[now.t]);
    const place = [
      ...(IN_LAYER.includes(picked) ? [`layer ${n()}`] : []),
      ...(OF_HEAD.includes(picked) ? [`head ${head.value()}`] : []),
      `position ${now.t}, ${token}`,
    ];
    panel.replaceChildren(
      kit.h("p", { class: "live-panel-title" }, name),
      kit.note(`${shape} · ${place.join(", ")}`),
      kit.h("p", {}, `${words} `, link),
      ...view(),
    );
  }

  const update = kit.updating(said, async () => {
    const { ids, names } = await kit.read(machine, field.input.value);
    const trace = await machine.run(ids, { record: RECORD });
    const t = Math.min(at ?? ids.length - 1, ids.length - 1);
    const end = trace.stream.at(-1);
    const vector = end.subarray(t * n_embd, (t + 1) * n_embd);
    const [guesses] = await machine.top(vector, { k: 10 });
    const token = await machine.vectors("token", ids);
    const position = await machine.vectors("position", [...ids.keys()]);
    now = { ...trace, ids, names, t, guesses, token, position };
    chips.show(names, { selected: t });
    die.disabled = ids.length >= n_ctx;
    draw();
    const best = kit.shown(kit.named(machine, guesses[0]));
    said.show(
      `After ${kit.shown(names[t])}, the likeliest token is ${best}, with ` +
        `${kit.percent(guesses[0].probability)}.`,
    );
  });

  /** Draw the next token, and let the machine run again. */
  async function roll() {
    try {
      const { ids } = await kit.read(machine, field.input.value);
      for await (const token of machine.generate(ids, { length: 1 }))
        field.show(field.input.value + token.text);
      at = null;
      await update();
    } catch (error) {
      said.fail(error);
    }
  }

  body.append(
    kit.row(field.root, die),
    chips.root,
    machinery,
    said.root,
  );
  await update();
};
