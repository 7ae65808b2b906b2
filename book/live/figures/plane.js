// Attention in a plane: drag the query, and the scores, the weights and the
// mix follow. The keys and values are those of chapter 4; no model is needed.
"use strict";

GPT2.figures.plane = async function (body) {
  const kit = GPT2.kit;
  const WORDS = ["Ella", "lost", "her"];
  const KEYS = [
    [2, 0],
    [0, 2],
    [1, -2],
  ];
  const VALUES = [
    [1, 0],
    [0, 1],
    [0.5, -1],
  ];
  const SIDE = 300; // of the square, which reaches from -3 to 3
  const across = (x) => SIDE / 2 + (x * SIDE) / 6;
  const up = (y) => SIDE / 2 - (y * SIDE) / 6;
  let query = [-2, 0.5]; // that of `her`, which may look at all three

  const arrow = kit.svg("line", { class: "live-arrow" });
  const handle = kit.svg("path", { class: "live-handle" });
  const mix = kit.svg("circle", { class: "live-mix", r: 8 });
  const picture = kit.svg(
    "svg",
    {
      class: "live-plane",
      viewBox: `0 0 ${SIDE} ${SIDE}`,
      role: "img",
      "aria-label":
        "A plane with the query as an arrow, the keys as diamonds, the " +
        "values as discs, and the mix between the values",
    },
    kit.svg("path", {
      class: "live-axis",
      d: `M0 ${SIDE / 2}H${SIDE}M${SIDE / 2} 0V${SIDE}`,
    }),
    ...VALUES.map(([x, y]) => {
      const place = { r: 6, cx: across(x), cy: up(y) };
      return kit.svg("circle", { class: "live-disc", ...place });
    }),
    ...KEYS.map(([x, y]) =>
      kit.svg("path", {
        class: "live-diamond",
        d: `M${across(x)} ${up(y) - 8}l8 8l-8 8l-8 -8z`,
      }),
    ),
    arrow,
    mix,
    handle,
    ...[...KEYS, ...VALUES].map(([x, y], i) =>
      kit.svg("text", { x: across(x) + 12, y: up(y) + 4 }, WORDS[i % 3]),
    ),
  );
  const drag = (event) => {
    if (event.type === "pointerdown")
      picture.setPointerCapture(event.pointerId);
    else if (!picture.hasPointerCapture(event.pointerId)) return;
    const box = picture.getBoundingClientRect();
    const [x, y] = [
      ((event.clientX - box.left) / box.width) * 6 - 3,
      3 - ((event.clientY - box.top) / box.height) * 6,
    ];
    query = [x, y].map((n) => Math.max(-3, Math.min(3, n)));
    sliders.forEach((slider, i) => slider.show(query[i]));
    draw();
  };
  picture.addEventListener("pointerdown", drag);
  picture.addEventListener("pointermove", drag);

  const sliders = ["Query, to the right", "Query, upwards"].map((label, i) =>
    kit.slider({
      ...{ label, min: -3, max: 3, step: 0.1, value: query[i] },
      form: (value) => kit.number(value, 1),
      change(value) {
        query[i] = value;
        draw();
      },
    }),
  );
  // The slider's scale is that of powers: -2 is 1/4, 2 is 4.
  const temperature = kit.slider({
    ...{ label: "Temperature", min: -4, max: 4, step: 0.5, value: 0 },
    form: (value) => kit.number(2 ** value, 2),
    change: () => draw(),
  });
  const scores = kit.bars({
    caption: "Scores: query · key / √2",
    ...{ head: ["key of", "score"], color: "query", signed: true },
  });
  const weights = kit.bars({
    caption: "Weights: their softmax",
    head: ["key of", "weight"],
  });
  const said = kit.status();

  function draw() {
    const found = KEYS.map(
      ([x, y]) => (query[0] * x + query[1] * y) / Math.SQRT2,
    );
    const heat = 2 ** temperature.value();
    const powers = found.map((s) => Math.exp((s - Math.max(...found)) / heat));
    const all = powers.reduce((sum, power) => sum + power, 0);
    const shares = powers.map((power) => power / all);
    const [x, y] = [0, 1].map((d) =>
      shares.reduce((sum, share, i) => sum + share * VALUES[i][d], 0),
    );
    const end = { x2: across(query[0]), y2: up(query[1]) };
    const start = { x1: across(0), y1: up(0) };
    for (const [name, value] of Object.entries({ ...start, ...end }))
      arrow.setAttribute(name, value);
    const turn = (Math.atan2(-query[1], query[0]) * 180) / Math.PI;
    handle.setAttribute("d", "M-14 -9L8 0L-14 9z");
    const at = `translate(${end.x2} ${end.y2}) rotate(${turn})`;
    handle.setAttribute("transform", at);
    mix.setAttribute("cx", across(x));
    mix.setAttribute("cy", up(y));
    scores.show(
      found.map((score, i) => ({
        ...{ label: WORDS[i], value: score / 6 },
        text: kit.number(score),
      })),
    );
    weights.show(
      shares.map((share, i) => ({
        ...{ label: WORDS[i], value: share, text: kit.number(share, 3) },
      })),
    );
    said.show(`The mix is (${kit.number(x)}, ${kit.number(y)}).`);
  }

  const legend = kit.h(
    "p",
    { class: "live-legend" },
    ...[
      ["query", "query"],
      ["key", "keys"],
      ["value", "values; the ring is their mix"],
    ].map(([color, name]) => kit.h("span", { "data-color": color }, name)),
  );
  body.append(
    kit.columns(
      kit.part("Drag the arrow", picture, legend),
      kit.h(
        "div",
        { class: "live-part" },
        ...sliders.map((slider) => slider.root),
        ...[temperature.root, scores.root, weights.root, said.root],
      ),
    ),
  );
  draw();
};
