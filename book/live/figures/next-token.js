// Type a beginning, see the bets on the next token, roll the die, go on.
"use strict";

GPT2.figures["next-token"] = async function (body, machine, { text }) {
  const kit = GPT2.kit;
  const { n_ctx, n_vocab } = machine.info.config;
  let drawn = []; // {id, text}, behind what was typed
  let going = null; // an AbortController while the text goes on by itself

  const said = kit.status();
  const field = kit.textField({
    label: "The beginning of a text",
    value: text,
    change: () => restart(),
  });
  const chips = kit.chips({ label: "The text in tokens" });
  const bars = kit.bars({
    caption: "What comes next",
    head: ["token", "probability"],
  });
  const temperature = kit.slider({
    label: "Temperature",
    ...{ min: 0, max: 2, step: 0.1, value: 1 },
    form: (value) => kit.number(value, 1),
    change: () => update(),
  });
  const sampling = () => ({ temperature: temperature.value() });

  const roll = kit.button("Roll the die", () => go(1), "live-main");
  const run = kit.button("Go on", () => (going ? stop() : go(n_ctx)));
  const again = kit.button("Start over", () => restart());

  async function ids() {
    const typed = await kit.read(machine, field.input.value);
    return {
      ids: [...typed.ids, ...drawn.map(({ id }) => id)],
      names: [
        ...typed.names,
        ...drawn.map((token) => kit.named(machine, token)),
      ],
    };
  }

  const update = kit.updating(said, async (last) => {
    const now = await ids();
    const full = now.ids.length >= n_ctx;
    const options = { k: 8, sampling: sampling() };
    const { candidates } = await machine.predict(now.ids, options);
    chips.show(now.names, { ids: now.ids });
    const rest = candidates.reduce((sum, c) => sum - c.chance, 1);
    const rows = candidates.map((c) => ({
      label: kit.shown(kit.named(machine, c)),
      value: c.chance,
      text: kit.percent(c.chance),
    }));
    const others = (n_vocab - candidates.length).toLocaleString("en");
    rows.push({
      label: `${others} others`,
      value: Math.max(0, rest),
      text: kit.percent(Math.max(0, rest)),
      color: "position",
      out: true,
    });
    bars.show(rows);
    roll.disabled = run.disabled = full;
    if (full) said.show(`The model can read ${n_ctx} tokens, no more.`);
    else said.show(last ?? "");
  });

  async function go(length) {
    if (going) return;
    going = new AbortController();
    run.textContent = length > 1 ? "Stop" : "Go on";
    const { signal } = going;
    try {
      const now = await ids();
      const options = {
        ...{ length: Math.min(length, n_ctx - now.ids.length), signal },
        ...{ sampling: sampling(), end: false },
      };
      for await (const token of machine.generate(now.ids, options)) {
        if (signal.aborted) break;
        drawn.push(token);
        const name = kit.named(machine, token);
        const chance = kit.percent(token.probability);
        await update(`Drawn: ${kit.shown(name)}, which had ${chance}.`);
        if (token.id === machine.info.tokenizer.end) break;
      }
    } catch (error) {
      if (!signal.aborted) said.fail(error);
    }
    going = null;
    run.textContent = "Go on";
  }

  function stop() {
    going?.abort();
    going = null;
    run.textContent = "Go on";
  }

  function restart() {
    stop();
    drawn = [];
    update();
  }

  body.append(
    field.root,
    chips.root,
    kit.columns(
      bars.root,
      kit.part("The die", temperature.root, kit.row(roll, run, again)),
    ),
    said.root,
  );
  await update();
};
