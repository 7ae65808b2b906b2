// Two runs: put one vector of the second run's stream into the first.
"use strict";

GPT2.figures.patching = async function (body, machine, { text }) {
  const kit = GPT2.kit;
  const { n_layer } = machine.info.config;
  const stages = Array.from({ length: n_layer + 1 }, (_, n) => n);
  let picked = null; // [row, column]
  let now = null;
  let version = 0; // of the texts

  const said = kit.status();
  const begin = text.split("|");
  const fields = ["This run", "gets a vector of this one"].map((label, i) =>
    kit.textField({
      ...{ label, value: begin[i]?.trim() ?? "" },
      change() {
        picked = null;
        version++;
        update();
      },
    }),
  );
  const map = kit.heat({
    caption: "How far the answer moves, for each vector of the stream",
    pick(row, column) {
      picked = [row, column];
      patch();
    },
  });
  const bars = kit.guesses(
    "What comes next; in grey, unpatched",
  );
  const depths = stages.map((n) => {
    if (n === 0) return "no layer";
    return n === n_layer ? "the end" : `${n} ${n > 1 ? "layers" : "layer"}`;
  });
  const rows = depths.toReversed(); // the end on top, as in the chapter

  const edits = (stage, at) => [
    {
      ...{ part: "stream", layer: stage },
      ...{ positions: [at], to: now.source },
    },
  ];

  /** How far the first run's answer is ahead of the second's, in logits. */
  const ahead = ({ last }) => last[now.answers[0]] - last[now.answers[1]];

  const update = kit.updating(said, async () => {
    const mine = version;
    const both = [];
    for (const field of fields)
      both.push(await kit.read(machine, field.input.value));
    const [one, two] = both;
    if (one.ids.length !== two.ids.length)
      throw new Error(
        "The texts must have equally many tokens; they have " +
          `${one.ids.length} and ${two.ids.length}.`,
      );
    const source = await machine.run(two.ids, { record: ["stream"] });
    const before = await machine.predict(one.ids, { k: 200 });
    const goal = await machine.predict(two.ids, { k: 1 });
    const answers = [before, goal].map((found) => found.candidates[0].id);
    const names = one.names.map(kit.shown);
    now = { ids: one.ids, names, source, before, answers };
    if (answers[0] === answers[1])
      throw new Error("Both texts lead to the same token: try another pair.");
    now.values = new Float32Array(stages.length * one.ids.length);
    const start = ahead(await machine.run(one.ids));
    const end = ahead(source);
    for (const n of stages) {
      for (let at = 0; at < one.ids.length; at++) {
        const run = await machine.run(one.ids, { edits: edits(n, at) });
        const moved = start - ahead(run);
        const row = n_layer - n;
        if (mine !== version) return; // other texts have been typed
        now.values[row * one.ids.length + at] = moved / (start - end);
      }
      show();
    }
    picked ??= [n_layer, 1];
    await patch();
  });

  function show() {
    map.show({
      ...{ values: now.values, rows, columns: now.names, limit: 1 },
      ...{ color: "stream", numbers: true, digits: 1, picked },
    });
  }

  const patch = kit.updating(said, async () => {
    const [row, at] = picked;
    const options = { k: 200, edits: edits(n_layer - row, at) };
    const after = await machine.predict(now.ids, options);
    show();
    bars.show(machine, after.candidates, now.before.candidates);
    const best = after.candidates[0];
    const name = kit.shown(kit.named(machine, best));
    const share = kit.percent(best.probability);
    said.show(
      `With the other run's vector at ${now.names[at]} after ` +
        `${rows[row]}: ${name}, ${share}.`,
    );
  });

  body.append(
    kit.row(...fields.map((field) => field.root)),
    kit.columns(map.root, bars.root),
    said.root,
  );
  await update();
};
