// Every head of every layer on the reader's own text: where it looks, and
// what it brings, read through the table of tokens.
"use strict";

GPT2.figures.heads = async function (body, machine, { text }) {
  const kit = GPT2.kit;
  const { n_layer, n_head, n_embd } = machine.info.config;
  const MOST = 24; // more tokens make cells too small to point at
  let picked = [Math.min(1, n_layer - 1), Math.min(1, n_head - 1)];
  let at = null;
  let now = null; // what was last computed

  const said = kit.status();
  const field = kit.textField({
    ...{ label: "A text", value: text },
    change() {
      at = null;
      update();
    },
  });
  const all = kit.h("div", {
    ...{ class: "live-maps", role: "group" },
    ...{ "aria-label": "All heads, a row for each layer" },
  });
  all.style.setProperty("--columns", n_head);
  all.classList.toggle("live-many", n_head > 6); // no room for their names
  const chips = kit.chips({
    label: "The token that asks",
    select: choose,
    hover: choose,
  });
  const map = kit.heat({
    caption: "Where it looks: rows ask, columns are asked",
    pick: (row) => choose(row),
  });
  const brings = ["What it brings speaks for", "and against"].map(
    (caption, i) =>
      kit.bars({
        ...{ caption, head: ["token", "vote"] },
        color: i ? "slate" : "value",
      }),
  );
  const name = kit.h("p", { class: "live-part-title" });

  function choose(i) {
    at = i;
    draw();
  }

  /** A small picture of one head's weights, as a button. */
  function thumbnail(i) {
    const [layer, head] = [Math.floor(i / n_head), i % n_head];
    const canvas = kit.h("canvas", { "aria-hidden": "true" });
    const press = () => {
      picked = [layer, head];
      draw();
    };
    return kit.h(
      "button",
      { type: "button", class: "live-map", onclick: press },
      canvas,
      kit.h("span", {}, `${layer}.${head}`),
    );
  }

  function paint(canvas, weights, T) {
    canvas.width = canvas.height = T;
    const context = canvas.getContext("2d");
    const image = context.createImageData(T, T);
    for (let i = 0; i < T * T; i++) {
      // The green of probabilities, on whatever ground the page has.
      image.data.set([5, 150, 105, 255 * Math.sqrt(weights[i])], 4 * i);
    }
    context.putImageData(image, 0, 0);
  }

  const update = kit.updating(said, async () => {
    const { ids, names } = await kit.read(machine, field.input.value);
    if (ids.length > MOST)
      throw new Error(
        `At most ${MOST} tokens, please: here are ${ids.length}.`,
      );
    const record = ["weights", "heads", "stream"];
    now = { ids, names, ...(await machine.run(ids, { record })) };
    await draw();
  });

  const draw = kit.updating(said, async () => {
    if (!now) return;
    const T = now.ids.length;
    const t = Math.min(at ?? T - 1, T - 1);
    const [layer, head] = picked;
    const of = (n, h) => now.weights[n].subarray(h * T * T, (h + 1) * T * T);
    const heads = Array.from({ length: n_layer * n_head }, (_, i) => i);
    kit.each(all, heads, thumbnail, (button, i) => {
      const [n, h] = [Math.floor(i / n_head), i % n_head];
      const key = now;
      if (button.painted !== key) paint(button.firstChild, of(n, h), T);
      button.painted = key;
      const pressed = n === layer && h === head;
      button.setAttribute("aria-pressed", String(pressed));
      button.setAttribute("aria-label", `Head ${n}.${h}`);
    });
    chips.show(now.names, { selected: t });
    const shown = now.names.map(kit.shown);
    map.show({
      ...{ values: of(layer, head), rows: shown, columns: shown },
      ...{ limit: 1, color: "probability", line: t },
      hidden: (r, c) => c > r,
    });
    const row = of(layer, head).subarray(t * T, t * T + T);
    const most = row.indexOf(Math.max(...row));
    const names = [t, most].map((i) => kit.shown(now.names[i]));
    name.textContent = `Head ${layer}.${head} at ${names[0]}`;
    await bring(t, layer, head);
    said.show(
      `${names[0]} gives ${names[1]} ${kit.percent(row[most])} of its ` +
        "attention.",
    );
  });

  /** The vector of position t in x (T, C), which begins at row `from`. */
  const vector = (x, t, from = 0) =>
    x.subarray((from + t) * n_embd, (from + t + 1) * n_embd);

  /** What the final norm divides a vector by. */
  function spread(x) {
    const mean = x.reduce((sum, n) => sum + n / n_embd, 0);
    const variance = x.reduce((sum, n) => sum + (n - mean) ** 2 / n_embd, 0);
    return Math.sqrt(variance + machine.info.config.layer_norm_epsilon);
  }

  /**
   * The head's addition to the stream as votes: its share of every logit,
   * with the final norm held at the scale that it has here.
   */
  async function bring(t, layer, head) {
    const found = vector(now.heads[layer], t, head * now.ids.length);
    const scale = spread(found) / spread(vector(now.stream.at(-1), t));
    const both = new Float32Array(2 * n_embd); // the second one stays 0: bias
    both.set(found);
    const logits = await machine.unembed(both);
    const V = logits.length / 2;
    const votes = Array.from({ length: V }, (_, v) => [
      (logits[v] - logits[V + v]) * scale,
      v,
    ]);
    votes.sort((a, b) => b[0] - a[0]);
    const most = Math.max(Math.abs(votes[0][0]), Math.abs(votes.at(-1)[0]));
    const ends = [votes.slice(0, 5), votes.slice(-5).reverse()];
    for (const [i, chosen] of ends.entries()) {
      const texts = await machine.texts(chosen.map(([, id]) => id));
      brings[i].show(
        chosen.map(([vote, id], n) => ({
          label: kit.shown(kit.named(machine, { id, text: texts[n] })),
          value: Math.abs(vote) / (most || 1),
          text: kit.number(vote),
        })),
      );
    }
  }

  body.append(
    field.root,
    chips.root,
    kit.columns(
      kit.part("Choose a head", all),
      kit.h("div", { class: "live-part" }, name, map.root),
    ),
    kit.columns(...brings.map((table) => table.root)),
    said.root,
  );
  await update();
};
