// The reader's own GPT-2 takes the place of the shipped one: all figures of
// the page draw themselves anew. Nothing leaves the machine.
"use strict";

GPT2.figures["own-model"] = async function (body, machine) {
  const kit = GPT2.kit;
  // Opening a model, or failing to, draws this figure anew; what is said after
  // that belongs to the new one.
  const said = (GPT2.saidOfModels = kit.status());
  const size = (bytes) => `${(bytes / 1e6).toFixed(0)} MB`;
  let files = null;

  const id = `live-files-${Math.random().toString(36).slice(2)}`;
  const input = kit.h("input", {
    ...{ id, type: "file", multiple: true, class: "live-files" },
    onchange: () => look(input.files),
  });
  const drop = kit.h(
    "div",
    {
      class: "live-drop",
      ondragover(event) {
        event.preventDefault();
        drop.classList.add("live-over");
      },
      ondragleave: () => drop.classList.remove("live-over"),
      ondrop(event) {
        event.preventDefault();
        drop.classList.remove("live-over");
        look(event.dataTransfer.files);
      },
    },
    kit.h(
      "label",
      { for: id },
      "Drop model.safetensors, config.json and the vocabulary here, " +
        "or choose them:",
    ),
    input,
  );
  const facts = kit.h("table", { class: "live-facts" }, kit.h("tbody"));
  const bar = kit.h("progress", { max: 1, value: 0, "aria-label": "Reading" });
  bar.hidden = true;
  const open = kit.button("Open it", () => take(files), "live-main");
  const half = kit.button("Open it in bfloat16", () =>
    take(files, { dtype: "bfloat16" }),
  );
  const back = kit.button("Back to the story model", () => take());
  open.hidden = half.hidden = true;
  back.hidden = machine.info.name === "story";

  function show(info, notes = [], more = []) {
    const { n_layer, n_embd, n_head, n_ctx, n_vocab } = info.config;
    const rows = [
      ["Model", info.name],
      ["Parameters", info.parameters.toLocaleString("en")],
      ["Layers, width, heads", `${n_layer}, ${n_embd}, ${n_head}`],
      ["Positions, tokens", `${n_ctx}, ${n_vocab.toLocaleString("en")}`],
      ["Memory", size(info.memory ?? info.bytes)],
      ...more,
      ...notes.map((note) => ["Note", note]),
    ];
    const create = () =>
      kit.h("tr", {}, kit.h("th", { scope: "row" }), kit.h("td"));
    kit.each(facts.tBodies[0], rows, create, (row, [name, value]) => {
      row.children[0].textContent = name;
      row.children[1].textContent = value;
    });
  }

  /** Read headers and settings; say what opening will take. */
  async function look(chosen) {
    open.hidden = half.hidden = true;
    try {
      files = Array.from(chosen);
      said.show("Looking at the files …");
      const found = await machine.inspect(files);
      const rounded = await machine.inspect(files, { dtype: "bfloat16" });
      show(found, found.notes);
      const less = rounded.memory < found.memory;
      said.show(
        `Opening it takes ${size(found.memory)} of memory` +
          (less ? `; rounded to bfloat16, ${size(rounded.memory)}.` : "."),
      );
      open.hidden = false;
      half.hidden = !less;
      open.focus();
    } catch (error) {
      said.fail(error);
    }
  }

  async function take(chosen, options) {
    const figure = body.closest("gpt2-live");
    const buttons = [open, half, back];
    bar.hidden = false;
    for (const button of buttons) button.disabled = true;
    said.show("Reading the weights …");
    try {
      const onProgress = ({ done, all }) => (bar.value = done / all);
      await machine.open(chosen, { onProgress, ...options });
    } catch (error) {
      GPT2.saidOfModels.fail(error);
    }
    bar.hidden = true;
    for (const button of buttons) button.disabled = false;
    figure.focus({ preventScroll: true }); // the button that was pressed is gone
  }

  /** Add how fast the model is in this browser. */
  async function time() {
    const ms = await machine.pace();
    if (files) return; // others are looked at by now
    const pace = ms < 1 ? "less than 1 ms" : `${ms.toFixed(0)} ms`;
    show(machine.info, [], [["A token takes", `${pace} here`]]);
  }

  show(machine.info);
  body.append(drop, facts, kit.row(open, half, back), bar, said.root);
  said.show(`All figures of this page run on ${machine.info.name}.`);
  if (machine.info.name !== "story") time().catch(said.fail);
};
