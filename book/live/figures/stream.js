// The residual stream of one token: what could be read from it after every
// layer, how long it is, and how each part votes at the end.
"use strict";

GPT2.figures.stream = async function (body, machine, { text }) {
  const kit = GPT2.kit;
  const { n_layer, n_head, n_embd } = machine.info.config;
  let at = null;
  let chosen = null; // the id of the token that is voted on

  const said = kit.status();
  const field = kit.textField({
    ...{ label: "A text", value: text },
    change() {
      at = chosen = null;
      update();
    },
  });
  const chips = kit.chips({
    label: "The token whose stream is shown",
    select(i) {
      at = i;
      chosen = null;
      update();
    },
  });
  const table = kit.h(
    "table",
    { class: "live-lens" },
    kit.h("caption", {}, "What could be read from it"),
    kit.h(
      "thead",
      {},
      kit.h(
        "tr",
        {},
        ...["after", "guess", "probability", "length"].map((name) =>
          kit.h("th", { scope: "col" }, name),
        ),
      ),
    ),
    kit.h("tbody"),
  );
  const which = kit.choice({
    ...{ label: "Votes for", options: [], value: "" },
    change(id) {
      chosen = Number(id);
      update();
    },
  });
  const votes = kit.bars({
    caption: "How the parts vote on it",
    ...{ head: ["part", "vote"], signed: true, color: "stream" },
  });

  const update = kit.updating(said, async () => {
    const { ids, names } = await kit.read(machine, field.input.value);
    const t = Math.min(at ?? ids.length - 1, ids.length - 1);
    chips.show(names, { selected: t });
    const part = ids.slice(0, t + 1); // what comes later changes nothing
    const { stream } = await machine.run(part, { record: ["stream"] });
    const vectors = new Float32Array((n_layer + 1) * n_embd);
    stream.forEach((x, n) => vectors.set(x.subarray(-n_embd), n * n_embd));
    const guesses = await machine.top(vectors, { k: 6 });
    lens(vectors, guesses);
    const last = guesses.at(-1);
    const ids6 = last.map((guess) => [
      String(guess.id),
      kit.shown(kit.named(machine, guess)),
    ]);
    chosen ??= last[0].id;
    if (!last.some(({ id }) => id === chosen)) chosen = last[0].id;
    which.show(ids6, String(chosen));
    await count(part, chosen);
  });

  function lens(vectors, guesses) {
    const lengths = guesses.map((_, n) =>
      Math.hypot(...vectors.subarray(n * n_embd, (n + 1) * n_embd)),
    );
    const longest = Math.max(...lengths);
    const create = () =>
      kit.h(
        "tr",
        {},
        kit.h("th", { scope: "row" }),
        kit.h("td", {}, kit.h("span", { class: "live-chip" })),
        kit.h("td", { class: "live-number" }),
        kit.h(
          "td",
          { class: "live-length" },
          kit.h("span", { class: "live-flow" }),
          kit.h("span", { class: "live-number" }),
        ),
      );
    kit.each(table.tBodies[0], guesses, create, (row, [best], n) => {
      const [name, guess, share, length] = row.children;
      name.textContent = n ? `layer ${n - 1}` : "embedding";
      guess.firstChild.textContent = kit.shown(kit.named(machine, best));
      share.textContent = kit.percent(best.probability);
      const [flow, number] = length.children;
      flow.style.setProperty("--share", lengths[n] / longest);
      number.textContent = kit.number(lengths[n], 0);
    });
  }

  async function count(ids, id) {
    const found = await machine.votes(ids, { id });
    const rows = [
      ["token", found.token, "token"],
      ["position", found.position, "position"],
    ];
    for (let n = 0; n < n_layer; n++) {
      const heads = found.heads[n].reduce((sum, vote) => sum + vote, 0);
      rows.push([`attention ${n}`, heads + found.bias[n], "query"]);
      rows.push([`feed-forward ${n}`, found.feedForward[n], "stream"]);
    }
    rows.push(["last bias", found.constant, "position"]);
    const most = Math.max(...rows.map(([, vote]) => Math.abs(vote)));
    votes.show(
      rows.map(([label, vote, color]) => ({
        ...{ label, value: vote / most, color, text: kit.number(vote, 1) },
      })),
    );
    const total = kit.number(found.total, 2);
    said.show(`The votes of all ${2 * n_layer + 3} parts add up to ${total}, `
      + "the logit.");
  }

  body.append(
    field.root,
    chips.root,
    kit.columns(
      kit.h("div", { class: "live-part" }, table),
      kit.h("div", { class: "live-part" }, which.root, votes.root),
    ),
    said.root,
  );
  await update();
};
