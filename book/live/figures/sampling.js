// All the filters on one distribution, and the text to which they lead.
"use strict";

GPT2.figures.sampling = async function (body, machine, { text }) {
  const kit = GPT2.kit;
  const { n_ctx, n_vocab } = machine.info.config;
  const SHOWN = 14;
  const MANY = Math.min(n_vocab, 2000);
  let writing = null;

  const said = kit.status();
  const field = kit.textField({
    ...{ label: "A beginning", value: text, change: () => update() },
  });
  const change = () => update();
  const off = (value, none) => (value === none ? "off" : null);
  const temperature = kit.slider({
    ...{ label: "Temperature", min: 0, max: 2, step: 0.1, value: 1, change },
    form: (value) => kit.number(value, 1),
  });
  const top_k = kit.slider({
    ...{ label: "Top-k", min: 1, max: 41, step: 1, value: 41, change },
    form: (value) => off(value, 41) ?? String(value),
  });
  const top_p = kit.slider({
    ...{ label: "Top-p", min: 0.05, max: 1, step: 0.05, value: 1, change },
    form: (value) => off(value, 1) ?? kit.number(value),
  });
  const min_p = kit.slider({
    ...{ label: "Min-p", min: 0, max: 0.5, step: 0.01, value: 0, change },
    form: (value) => off(value, 0) ?? kit.number(value),
  });
  const seed = kit.slider({
    ...{ label: "Seed", min: 0, max: 50, step: 1, value: 0 },
    change: () => write(),
  });
  const bars = kit.bars({
    caption: "In grey as the model has it, in green what the die gets",
    head: ["token", "chance"],
  });
  const story = kit.chips({ label: "The text; the redder, the less likely" });
  const verdict = kit.status();

  /** What the checker says of a text; `wrong` is `null` for a story. */
  function sentence(wrong) {
    if (!wrong) return "The checker accepts it: a story.";
    const { line, found, expected } = wrong;
    const quote = (text) => {
      const seen = text.replaceAll("\n", "↵");
      return `“${seen.length > 32 ? `${seen.slice(0, 32)}…` : seen}”`;
    };
    const some = expected.slice(0, 6).map(quote).join(" or ") || "the end";
    const others = expected.length - 6;
    return (
      `The checker refuses it, in line ${line}: expected ${some}` +
      `${others > 0 ? ` or one of ${others} others` : ""}, ` +
      `got ${found ? quote(found) : "the end"}.`
    );
  }

  function sampling() {
    const settings = { temperature: temperature.value() };
    if (top_k.value() < 41) settings.top_k = top_k.value();
    if (top_p.value() < 1) settings.top_p = top_p.value();
    if (min_p.value() > 0) settings.min_p = min_p.value();
    return settings;
  }

  const update = kit.updating(said, async () => {
    const { ids } = await kit.read(machine, field.input.value);
    const options = { k: MANY, sampling: sampling() };
    const { candidates } = await machine.predict(ids, options);
    const first = candidates[0];
    const most = Math.max(first.chance, first.probability); // the full width
    bars.show(
      candidates.slice(0, SHOWN).map((c) => ({
        label: kit.shown(kit.named(machine, c)),
        ...{ value: c.chance / most, before: c.probability / most },
        out: c.chance === 0,
        text: c.chance === 0 ? "out" : kit.percent(c.chance),
      })),
    );
    const left = candidates.filter(({ chance }) => chance > 0).length;
    const total = n_vocab.toLocaleString("en");
    const more = left === MANY && MANY < n_vocab ? " or more" : "";
    said.show(
      `${left.toLocaleString("en")}${more} of ${total} tokens ` +
        `${left === 1 ? "is" : "are"} left in the game.`,
    );
  });

  /** Write a text with these settings, and let the model read it again. */
  async function write() {
    writing?.abort();
    const mine = (writing = new AbortController());
    verdict.show("");
    try {
      const beginning = field.input.value;
      const prompt = await kit.read(machine, beginning);
      const drawn = [];
      const options = {
        length: Math.min(150, n_ctx - prompt.ids.length),
        ...{ sampling: sampling(), seed: seed.value(), signal: mine.signal },
      };
      for await (const token of machine.generate(prompt.ids, options)) {
        if (mine.signal.aborted) return;
        drawn.push(token);
        if (drawn.length % 4 === 0) show(prompt.names, drawn);
      }
      const words = [beginning, ...drawn.map(({ text }) => text)].join("");
      const wrong = await machine.checkStory(words);
      const ids = [...prompt.ids, ...drawn.map(({ id }) => id)];
      const { logits } = await machine.run(ids, { record: ["logits"] });
      if (mine.signal.aborted) return;
      judge(prompt, drawn, logits, wrong);
    } catch (error) {
      if (!mine.signal.aborted) said.fail(error);
    }
  }

  function show(names, drawn, surprises) {
    const shares = surprises?.map((surprise) => surprise / 10);
    const all = [...names, ...drawn.map(({ text }) => text)].slice(1);
    const none = all.map(() => 0);
    story.show(all, { shares: shares ?? none, color: "surprise" });
  }

  /**
   * Show how surprised the model, without any filter, is by each token, and
   * what the checker found wrong.
   */
  function judge({ ids, names }, drawn, logits, wrong) {
    const V = n_vocab;
    const own = [...drawn.map(({ id }) => id), machine.info.tokenizer.end].map(
      (id, i) => {
        const at = ids.length - 1 + i;
        const p = kit.softmax(logits.subarray(at * V, (at + 1) * V));
        return -Math.log(p[id]);
      },
    );
    show(names, drawn, [...names.slice(1).map(() => 0), ...own]);
    const mean = own.reduce((sum, s) => sum + s, 0) / own.length;
    verdict.show(
      `${own.length} tokens with the end, ${kit.number(mean)} nats of ` +
        `surprise for each. ${sentence(wrong)}`,
    );
  }

  const settings = [temperature, top_k, top_p, min_p];
  body.append(
    field.root,
    kit.columns(
      bars.root,
      kit.part("Bend it", ...settings.map((slider) => slider.root)),
    ),
    said.root,
    kit.row(kit.button("Write a text", write, "live-main"), seed.root),
    story.root,
    verdict.root,
  );
  await update();
};
