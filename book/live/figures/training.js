// Moments of a training, in a page the eleven of `echo`: a list of words is
// told twice, and a head learns to look where the same word stood before.
"use strict";

GPT2.figures.training = async function (body, machine, { text, series }) {
  const kit = GPT2.kit;
  const ECHO = [0, 200, 400, 600, 800, 1000, 1250, 1500, 2000, 2500, 3000];
  const echo = (step) => `echo/step-${String(step).padStart(4, "0")}`;
  // The steps, and the names of the models; the last is the machine's.
  const STEPS = series?.map(([step]) => step) ?? ECHO;
  const NAMES = series?.map(([, name]) => name) ?? ECHO.map(echo);
  let now = machine;
  let name = NAMES.at(-1);
  let visited = []; // what was measured of this list, by moment

  const said = kit.status();
  const field = kit.textField({
    ...{ label: "A list of words, which is told twice", value: text },
    change() {
      visited = [];
      update();
    },
  });
  const moment = kit.slider({
    ...{ label: "Training", min: 0, max: STEPS.length - 1, step: 1 },
    value: STEPS.length - 1,
    form: (i) => `step ${STEPS[i].toLocaleString("en")}`,
    change: () => update(),
  });
  const options = kit.headOptions(machine.info.config);
  const preferred = options.some(([name]) => name === "1.3") ? "1.3" : "0.0";
  const which = kit.choice({
    ...{ label: "Head", options },
    ...{ value: preferred, change: () => update() },
  });
  const play = kit.button("Let it learn", () => learn(), "live-main");
  const map = kit.heat({
    caption: "Where the head looks: rows ask, columns are asked",
  });
  const bars = kit.bars({
    caption: "The last word of the second telling",
    head: ["token", "probability"],
  });
  const chart = kit.h("div");

  /** The list twice, and where each telling begins. */
  async function lists() {
    const words = field.input.value.split(/[\s,.]+/).filter(Boolean);
    if (words.length < 2) throw new Error("Two words at least, please.");
    const once = await now.encode(` ${words.join(" ")}.`);
    if (once.length > 16)
      throw new Error(`At most 16 tokens, please: here are ${once.length}.`);
    return { ids: [...once, ...once.slice(0, -1)], length: once.length };
  }

  const update = kit.updating(said, async () => {
    const i = moment.value(); // it may be another before all is done
    if (NAMES[i] !== name) {
      const old = now;
      now = await GPT2.machine(NAMES[i]);
      name = NAMES[i];
      old.close();
    }
    const { ids, length } = await lists();
    const names = await now.texts(ids);
    const part = ids.slice(0, -1); // the last word is what is asked for
    const record = ["weights", "logits"];
    const { weights, logits } = await now.run(part, { record });
    const [layer, head] = which.value().split(".").map(Number);
    const T = part.length;
    const looks = names.slice(0, -1).map(kit.shown);
    map.show({
      values: weights[layer].subarray(head * T * T, (head + 1) * T * T),
      ...{ rows: looks, columns: looks, limit: 1, color: "probability" },
      hidden: (r, c) => c > r,
      marked: (r, c) => c === r - length + 1,
    });
    const { candidates } = await now.predict(part, { k: 6 });
    bars.show(
      candidates.map((c) => ({
        label: kit.shown(c.text),
        ...{ value: c.probability, text: kit.percent(c.probability) },
        marked: c.id === ids.at(-1),
      })),
    );
    visited[i] = measure(ids, length, weights, logits, T);
    draw(i);
    const best = visited[i];
    said.show(
      `Step ${STEPS[i].toLocaleString("en")}: surprise ` +
        `${kit.number(best.first)} nats in the first telling, ` +
        `${kit.number(best.second)} in the second; the best head's ` +
        `induction score is ${kit.number(best.score)}.`,
    );
  });

  /** The surprise in both tellings, and the best induction score. */
  function measure(ids, length, weights, logits, T) {
    const V = now.info.config.n_vocab;
    const surprise = (from, to) => {
      let sum = 0;
      for (let t = from; t < to; t++) {
        const p = kit.softmax(logits.subarray((t - 1) * V, t * V));
        sum -= Math.log(p[ids[t]]) / (to - from);
      }
      return sum;
    };
    let score = 0;
    for (const layer of weights)
      for (let h = 0; h < layer.length / (T * T); h++) {
        let sum = 0;
        for (let t = length; t < T; t++)
          sum += layer[(h * T + t) * T + t - length + 1];
        score = Math.max(score, sum / (T - length));
      }
    return {
      first: surprise(1, length - 1),
      second: surprise(length + 1, ids.length),
      score,
    };
  }

  /** The curves have a point for each moment that was visited. */
  function draw(at) {
    const seen = STEPS.map((_, i) => i).filter((i) => visited[i]);
    const values = (key) => seen.map((i) => visited[i][key]);
    const losses = [...values("first"), ...values("second")];
    const x = seen.map((i) => STEPS[i]);
    const last = STEPS.at(-1);
    const surprise = kit.curve({
      ...{ label: "Surprise over training", x, last, unit: " steps" },
      top: Math.max(7, Math.ceil(Math.max(...losses))),
      lines: [
        {
          ...{ name: "surprise, first telling", color: "position" },
          values: values("first"),
        },
        {
          ...{ name: "surprise, second telling (nats)", color: "surprise" },
          values: values("second"),
        },
      ],
    });
    const score = kit.curve({
      ...{ label: "Induction score over training", x, last, top: 1 },
      unit: " steps",
      lines: [
        {
          ...{ name: "best induction score", color: "query" },
          values: values("score"),
        },
      ],
    });
    const here = seen.indexOf(at);
    surprise.show(here);
    score.show(here);
    chart.replaceChildren(kit.columns(surprise.root, score.root));
  }

  async function learn() {
    play.disabled = true;
    for (let i = 0; i < STEPS.length; i++) {
      moment.show(i);
      await update();
      await new Promise((done) => setTimeout(done, 350));
    }
    play.disabled = false;
  }

  body.append(
    field.root,
    kit.row(moment.root, which.root, play),
    kit.columns(map.root, bars.root),
    chart,
    said.root,
  );
  await update();
  return () => now.close();
};
