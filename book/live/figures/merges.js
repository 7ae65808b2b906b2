// A text falls into bytes; the merges join them again, one pair at a time.
"use strict";

GPT2.figures.merges = async function (body, machine, { text }) {
  const kit = GPT2.kit;
  let tokenizer = machine;
  let pieces = []; // for each piece, its tokens after 0, 1, 2 ... merges
  let stages = []; // for each step, how many merges each piece has had

  const spelled = (token) =>
    token.replaceAll("Ġ", "␣").replaceAll("Ċ", "↵");

  const said = kit.status();
  const field = kit.textField({
    label: "Any text",
    value: text,
    change: () => read(),
  });
  const step = kit.slider({
    label: "Merges made",
    ...{ min: 0, max: 1, step: 1, value: 0 },
    form: (value) => `${value} of ${stages.length - 1}`,
    change: () => draw(),
  });
  const move = (by) => {
    step.show(step.value() + by);
    draw();
  };
  const back = kit.button("One back", () => move(-1));
  const next = kit.button("Merge a pair", () => move(1), "live-main");
  const rows = kit.h("div", { class: "live-pieces" });

  function draw() {
    const at = step.value();
    const done = stages[at];
    const before = stages[at - 1];
    const create = () => kit.h("div", { class: "live-piece" });
    kit.each(rows, pieces, create, (box, steps, i) => {
      const tokens = steps[done[i]];
      const joined = Boolean(before) && before[i] !== done[i];
      const old = joined ? steps[before[i]] : tokens;
      const chip = () => kit.h("span", { class: "live-chip" });
      kit.each(box, tokens, chip, (element, token, n) => {
        element.textContent = spelled(token);
        const fresh = joined && token !== old[n];
        const first = tokens.slice(0, n).every((t, m) => t === old[m]);
        element.classList.toggle("live-fresh", fresh && first);
        element.classList.toggle("live-whole", tokens.length === 1);
      });
    });
    back.disabled = at === 0;
    next.disabled = at === stages.length - 1;
    tell(at);
  }

  /** Say which pair was joined, and how many tokens are left. */
  function tell(at) {
    const done = stages[at];
    const left = pieces.reduce((n, steps, i) => n + steps[done[i]].length, 0);
    const count = `${left} ${left === 1 ? "token" : "tokens"}`;
    if (at === 0) {
      said.show(`${count}: every byte by itself.`);
      return;
    }
    const i = done.findIndex((merges, n) => merges !== stages[at - 1][n]);
    const [old, now] = [pieces[i][done[i] - 1], pieces[i][done[i]]];
    const n = now.findIndex((token, m) => token !== old[m]);
    const pair = `${spelled(old[n])} and ${spelled(old[n + 1])}`;
    said.show(`${pair} become ${spelled(now[n])}. ${count} are left.`);
  }

  const read = kit.updating(said, async () => {
    const cut = await tokenizer.split(field.input.value);
    pieces = await Promise.all(cut.map((piece) => tokenizer.steps(piece)));
    let done = pieces.map(() => 0);
    stages = [done];
    pieces.forEach((steps, i) => {
      for (let n = 1; n < steps.length; n++) {
        done = done.with(i, n);
        stages.push(done);
      }
    });
    step.limit(stages.length - 1);
    step.show(0);
    draw();
  });

  // Another vocabulary is read in the page itself; it needs no model.
  const other = kit.updating(said, async () => {
    GPT2.engine();
    const folder = new Map(Array.from(files.files, (f) => [f.name, f]));
    tokenizer = await GPT2.readTokenizer(folder);
    await read();
  });
  const files = kit.h("input", {
    ...{ type: "file", multiple: true, class: "live-files" },
    onchange: other,
  });
  const choose = kit.h(
    "details",
    {},
    kit.h("summary", {}, "Another vocabulary"),
    kit.h(
      "label",
      {},
      "vocab.json and merges.txt, or tokenizer.json, of any GPT-2: ",
      files,
    ),
  );

  const all = kit.button("All of them", () => move(stages.length));
  body.append(
    field.root,
    kit.row(step.root, back, next, all),
    rows,
    said.root,
    choose,
  );
  await read();
};
