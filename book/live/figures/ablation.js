// Switch parts off, and see what the model no longer knows.
"use strict";

GPT2.figures.ablation = async function (body, machine, { text }) {
  const kit = GPT2.kit;
  const { n_layer, n_head } = machine.info.config;
  const off = new Set();

  const said = kit.status();
  const field = kit.textField({
    ...{ label: "A text", value: text, change: () => update() },
  });
  const instead = kit.choice({
    label: "In its place",
    options: [
      ["zero", "zeros"],
      ["mean", "its mean over the text so far"],
    ],
    ...{ value: "zero", change: () => update() },
  });
  const bars = kit.guesses(
    "What comes next; in grey, with all parts",
  );
  const board = kit.h("div", { class: "live-board" });
  board.style.setProperty("--columns", Math.min(n_head, 6));
  const switches = [];

  function add(name, label, kind) {
    const press = () => {
      if (!off.delete(name)) off.add(name);
      update();
    };
    const attributes = { type: "button", class: `live-part-switch ${kind}` };
    const on = { onclick: press, "aria-label": `Switch off ${label}` };
    const element = kit.h("button", { ...attributes, ...on }, label);
    switches.push([name, element]);
    return element;
  }

  for (let n = n_layer - 1; n >= 0; n--) {
    const heads = Array.from({ length: n_head }, (_, h) =>
      add(
        `head ${n} ${h}`,
        n_head > 4 ? `${n}.${h}` : `head ${n}.${h}`,
        "live-is-head",
      ),
    );
    const forward = add(
      `feedForward ${n}`,
      `feed-forward ${n}`,
      "live-is-forward",
    );
    board.append(
      kit.h(
        "div",
        { class: "live-layer", role: "group", "aria-label": `Layer ${n}` },
        forward,
        ...heads,
      ),
    );
  }

  const update = kit.updating(said, async () => {
    const { ids } = await kit.read(machine, field.input.value);
    const edits = [...off].map((name) => {
      const [part, layer, head] = name.split(" ");
      const edit = { part, layer: Number(layer), to: instead.value() };
      return head === undefined ? edit : { ...edit, head: Number(head) };
    });
    for (const [name, element] of switches)
      element.setAttribute("aria-pressed", String(off.has(name)));
    const before = await machine.predict(ids, { k: 200 });
    const after = await machine.predict(ids, { k: 200, edits });
    bars.show(machine, after.candidates, before.candidates);
    const [old, now] = [before, after].map((found) => found.candidates[0]);
    const [was, is] = [old, now].map((c) => kit.shown(kit.named(machine, c)));
    const share = kit.percent(now.probability);
    said.show(
      off.size === 0
        ? `All parts are there: ${is}, ${share}.`
        : `${off.size} switched off: ${is}, ${share}` +
            (was === is ? ", still." : `, no longer ${was}.`),
    );
  });

  const all = kit.button("Switch all on again", () => {
    off.clear();
    update();
  });
  body.append(
    kit.row(field.root, instead.root),
    kit.columns(
      bars.root,
      kit.part("Layers, from the last to the first", board, kit.row(all)),
    ),
    said.root,
  );
  await update();
};
