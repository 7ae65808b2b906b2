// What the files of a checkpoint are, and what they need, before much of them
// is read, as in `gpt2/weights/loading.py`.
(function (GPT2) {
  "use strict";

  const WEIGHTS = "model.safetensors";
  const CONFIG = "config.json";
  const MOST_BYTES = 64e6; // GPT-2's tokenizer.json has 2 to 4 MB
  const DTYPES = { F32: "float32", F16: "float16", BF16: "bfloat16" };
  // Weights that are not read here; `gpt2 convert` reads most of them.
  const OTHERS =
    /^(pytorch_model.*\.bin|.*\.(pt|pth|ckpt|h5|gguf|onnx)|.*\.index\.json)$/;

  /** Run something; what is wrong names the file. */
  GPT2.naming = async function (name, run) {
    try {
      return await run();
    } catch (error) {
      throw new Error(`${name}: ${error.message}`);
    }
  };

  /** The text of a file, if it is there and not too large for one. */
  GPT2.textOf = async function (folder, name) {
    const file = folder.get(name);
    if (!file) throw new Error(`there is no ${name} among the files`);
    if (file.size > MOST_BYTES)
      throw new Error(`it has ${file.size} bytes; at most ${MOST_BYTES} fit`);
    const decoder = new TextDecoder("utf-8", { fatal: true });
    return decoder.decode(await file.arrayBuffer());
  };

  function checkWeights(folder) {
    if (folder.has(WEIGHTS)) return;
    const other = [...folder.keys()].find((name) => OTHERS.test(name));
    throw new Error(
      other === undefined
        ? `there is no ${WEIGHTS} among the files`
        : `${other} cannot be read here, only ${WEIGHTS}; "gpt2 convert" ` +
            "writes one",
    );
  }

  /**
   * A tokenizer gives no id that the model lacks: special tokens beyond the
   * table, such as a `[PAD]` that was added without resizing the model, are
   * refused when they are met, all others at once.
   */
  function fit(tokenizer, n_vocab) {
    const { before, after } = tokenizer.settings;
    const ends = [tokenizer.start, tokenizer.end, ...before, ...after];
    const needed = Math.max(...ends, tokenizer.highest);
    if (needed >= n_vocab)
      throw new Error(
        `the vocabulary needs the id ${needed}, and the model has ${n_vocab} ` +
          "rows",
      );
    tokenizer.rows = n_vocab;
  }

  function describe(matched, tokenizer, config) {
    const kinds = new Set([...matched.values()].map((entry) => entry.dtype));
    const notes = [];
    const n = tokenizer.tokens.length;
    if (n < config.n_vocab)
      notes.push(`${config.n_vocab - n} rows of the table stand for no token`);
    if (n > config.n_vocab)
      notes.push(
        `the model has no row for ${n - config.n_vocab} added tokens`,
      );
    return { dtype: [...kinds].map((kind) => DTYPES[kind]).join(", "), notes };
  }

  /**
   * @param {Map<string, Blob>} folder The files by name; others do no harm.
   * @param {string} [dtype] "bfloat16" rounds the weights to it.
   * @returns {Promise<object>} `plan`, as `machine.inspect` returns it, and
   *   `config`, `matched`, `tokenizer`.
   */
  GPT2.readFolder = async function (folder, dtype) {
    if (dtype !== undefined && dtype !== "bfloat16")
      throw new Error(`dtype must be bfloat16 or left out; got ${dtype}`);
    checkWeights(folder);
    const config = await GPT2.naming(CONFIG, async () => {
      const text = await GPT2.textOf(folder, CONFIG);
      return GPT2.readConfig(GPT2.parseObject(text, "the file"));
    });
    const matched = await GPT2.naming(WEIGHTS, async () =>
      GPT2.matchTensors(await GPT2.readHeader(folder.get(WEIGHTS)), config),
    );
    const tokenizer = await GPT2.readTokenizer(folder);
    fit(tokenizer, config.n_vocab);
    const layout = [...GPT2.layout(config).values()];
    const parameters = layout
      .map(({ shape }) => shape.reduce((a, b) => a * b, 1))
      .reduce((a, b) => a + b, 0);
    const rounded = dtype === "bfloat16";
    const memory = await GPT2.memoryFor(matched, config, rounded);
    const used = [WEIGHTS, CONFIG, ...GPT2.vocabularyFiles(folder)];
    const plan = {
      name: "your model",
      config,
      parameters,
      ...describe(matched, tokenizer, config),
      bytes: memory.weights,
      memory: memory.all,
      files: used,
    };
    return { plan, config, matched, tokenizer };
  };

  /** Read a model that `readFolder` has found, where it will compute. */
  GPT2.readModel = async function (folder, found, options = {}) {
    const { plan, config, matched } = found;
    const { dtype, onProgress, memory } = options;
    const rounded = dtype === "bfloat16";
    const math = await GPT2.newMath(plan.memory, { rounded, memory });
    const weights = await GPT2.naming(WEIGHTS, () =>
      GPT2.readWeights(folder.get(WEIGHTS), matched, math, onProgress),
    );
    return new GPT2.Model(config, weights, math);
  };
})((globalThis.GPT2 ??= {}));
