// A row of the token table and a row of the position table add up to x.
"use strict";

GPT2.figures.embeddings = async function (body, machine, { text }) {
  const kit = GPT2.kit;
  const { n_ctx, n_embd } = machine.info.config;
  let vectors = [[], [], []];

  const said = kit.status();
  const field = kit.textField({
    ...{ label: "A word", value: text, size: "short" },
    change: () => update(),
  });
  const place = kit.slider({
    ...{ label: "At position", min: 0, max: n_ctx - 1, step: 1, value: 1 },
    change: () => update(),
  });
  const which = kit.slider({
    ...{ label: "One of its numbers", min: 0, max: n_embd - 1 },
    ...{ step: 1, value: 0, change: () => draw() },
  });
  const point = (i) => {
    which.show(i);
    draw();
  };
  const names = ["token row", "position row", "x"];
  const colors = ["token", "position", "stream"];
  const grids = names.map((label, i) =>
    kit.grid({ label, point, color: colors[i] }),
  );
  const sum = kit.h("p", { class: "live-sum" });
  const nearest = kit.bars({
    caption: "The rows nearest to this one, by their angle",
    ...{ head: ["token", "cosine"], color: "stream" },
  });
  const add = (sign) =>
    kit.h("span", { class: "live-sign", "aria-hidden": "true" }, sign);
  const picture = kit.h(
    "div",
    { class: "live-addition" },
    ...grids.flatMap((grid, i) => [
      i ? add(i === 1 ? "+" : "=") : null,
      kit.h("div", {}, kit.note(names[i]), grid.root),
    ]),
  );

  function draw() {
    let limit = 0;
    for (const vector of vectors)
      for (const number of vector) limit = Math.max(limit, Math.abs(number));
    const chosen = which.value();
    grids.forEach((grid, i) => grid.show(vectors[i], { limit, chosen }));
    const [a, b, c] = vectors.map((vector) => kit.number(vector[chosen], 4));
    sum.textContent = `number ${chosen}:  ${a} + ${b} = ${c}`;
  }

  const update = kit.updating(said, async () => {
    const word = field.input.value;
    const ids = await machine.encode(word);
    if (!ids.length) {
      said.show("Type a word.");
      return;
    }
    const [name] = await machine.texts([ids[0]]);
    const token = await machine.vectors("token", [ids[0]]);
    const position = await machine.vectors("position", [place.value()]);
    vectors = [token, position, token.map((n, c) => n + position[c])];
    draw();
    const found = await machine.nearest(token, { k: 8 });
    nearest.show(
      found
        .filter(({ id }) => id !== ids[0])
        .map((row) => ({
          label: kit.shown(kit.named(machine, row)),
          value: row.cosine,
          text: kit.number(row.cosine),
        })),
    );
    const rest = ids.length - 1;
    const more = rest ? ` (the first of ${ids.length} tokens)` : "";
    said.show(`${kit.shown(name)} is token ${ids[0]}${more}.`);
  });

  body.append(
    kit.row(field.root, place.root),
    said.root,
    picture,
    kit.columns(
      kit.h("div", { class: "live-part" }, which.root, sum),
      nearest.root,
    ),
  );
  await update();
};
