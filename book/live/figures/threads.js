// The threads of one head: how much a token takes from each token before it.
// A thread that is cut carries nothing, and the prediction may change.
"use strict";

GPT2.figures.threads = async function (body, machine, { text }) {
  const kit = GPT2.kit;
  const { n_head } = machine.info.config;
  const options = kit.headOptions(machine.info.config);
  let at = null; // the token that asks; null is the last
  let cuts = new Set(); // positions of keys

  const said = kit.status();
  const field = kit.textField({
    ...{ label: "A text", value: text },
    change() {
      at = null;
      cuts = new Set();
      update();
    },
  });
  const preferred = options.some(([name]) => name === "1.1") ? "1.1" : "0.0";
  const which = kit.choice({
    ...{ label: "Head", options, value: preferred },
    change: () => update(),
  });
  const reach = kit.choice({
    label: "Scissors cut",
    options: [
      ["one", "in this head only"],
      ["all", "in all heads"],
    ],
    ...{ value: "one", change: () => update() },
  });
  const chips = kit.chips({
    label: "The token that asks",
    select(i) {
      at = i;
      cuts = new Set();
      update();
    },
  });
  const threads = kit.h("ul", { class: "live-threads" });
  const bars = kit.guesses(
    "What comes next; in grey, with all threads",
  );

  function edits(query) {
    const [layer, head] = which.value().split(".").map(Number);
    const layers = Array.from(
      { length: machine.info.config.n_layer },
      (_, n) => n,
    );
    const heads = Array.from({ length: n_head }, (_, h) => h);
    const all = layers.flatMap((n) => heads.map((h) => [n, h]));
    const hit = reach.value() === "all" ? all : [[layer, head]];
    return [...cuts].flatMap((key) =>
      hit.map(([n, h]) => ({
        ...{ part: "link", layer: n, head: h, query, key },
      })),
    );
  }

  const update = kit.updating(said, async () => {
    const { ids, names } = await kit.read(machine, field.input.value);
    const query = Math.min(at ?? ids.length - 1, ids.length - 1);
    const [layer, head] = which.value().split(".").map(Number);
    const changed = edits(query);
    const run = { record: ["weights"], edits: changed };
    const { weights } = await machine.run(ids, run);
    const T = ids.length;
    const row = weights[layer].subarray(
      (head * T + query) * T,
      (head * T + query) * T + query + 1,
    );
    const before = await machine.predict(ids, { k: 200 });
    const after = await machine.predict(ids, { k: 200, edits: changed });
    chips.show(names, { selected: query });
    draw(names, row);
    bars.show(machine, after.candidates, before.candidates);
    const first = after.candidates[0];
    const best = kit.shown(kit.named(machine, first));
    said.show(
      `${cuts.size} cut: ${best} has ${kit.percent(first.probability)}.`,
    );
  });

  function draw(names, row) {
    const create = () => {
      const line = kit.h("li", { class: "live-thread" });
      const cut = kit.button("Cut", () => {
        const key = [...threads.children].indexOf(line);
        if (!cuts.delete(key)) cuts.add(key);
        update();
      });
      line.append(
        kit.h("span", { class: "live-chip" }),
        kit.h("span", { class: "live-rope" }, kit.h("span")),
        kit.h("span", { class: "live-number" }),
        cut,
      );
      return line;
    };
    kit.each(threads, Array.from(row), create, (line, share, key) => {
      const [chip, rope, number, cut] = line.children;
      const own = key === row.length - 1;
      chip.textContent = kit.shown(names[key]);
      rope.firstElementChild.style.height = `${1 + 13 * share}px`;
      rope.firstElementChild.style.opacity = 0.25 + 0.75 * share;
      number.textContent = cuts.has(key) ? "cut" : kit.number(share, 3);
      line.classList.toggle("live-gone", cuts.has(key));
      cut.disabled = own; // somewhere it has to look
      cut.setAttribute("aria-pressed", String(cuts.has(key)));
      cut.setAttribute("aria-label", `Cut the thread to ${names[key]}`);
    });
  }

  body.append(
    kit.row(field.root, which.root, reach.root),
    kit.part("Who asks?", chips.root),
    kit.columns(kit.part("From whom does it take?", threads), bars.root),
    said.root,
  );
  await update();
};
