// What the files of a checkpoint are and need, before much of them is read.
(function (GPT2) {
  "use strict";

  /** Run something on a file; what is wrong names the file. */
  GPT2.naming = async function (name, run) {
    try {
      return await run();
    } catch (error) {
      throw new Error(`${name}: ${error.message}`);
    }
  };

  /**
   * @param {Map<string, Blob>} folder The files by name; others do no harm.
   * @param {string} [dtype] "bfloat16" rounds the weights to it.
   * @returns {Promise<object>} `plan`, as `machine.inspect` returns it, and
   *   `config`, `matched`, `tokenizer`.
   */
  GPT2.readFolder = async function (folder, dtype) {
    const text = async (name) => {
      const file = folder.get(name);
      if (!file) throw new Error(`there is no ${name} among the files`);
      return new TextDecoder().decode(await file.arrayBuffer());
    };
    const weights = "model.safetensors";
    if (!folder.has(weights))
      throw new Error(`there is no ${weights} among the files`);
    const [config, fields] = await GPT2.naming("config.json", async () => {
      const read = GPT2.parseObject(await text("config.json"), "the file");
      return [GPT2.readConfig(read), read];
    });
    const matched = await GPT2.naming(weights, async () =>
      GPT2.matchTensors(await GPT2.readHeader(folder.get(weights)), config),
    );
    const settings = folder.has("tokenizer_config.json")
      ? JSON.parse(await text("tokenizer_config.json"))
      : {};
    const tokenizer = new GPT2.Tokenizer(
      await text("vocab.json"),
      await text("merges.txt"),
    );
    tokenizer.start = tokenizer.end = tokenizer.ids.get("<|endoftext|>");
    tokenizer.before = settings.add_bos_token ? [tokenizer.start] : [];
    const sizes = [...matched.values()].map((e) =>
      e.shape.reduce((a, b) => a * b, 1),
    );
    const parameters = sizes.reduce((a, b) => a + b, 0);
    const { weights: bytes, all: memory } = GPT2.Wasm.bytes(
      matched,
      config,
      dtype === "bfloat16",
      GPT2.ROWS,
    );
    const plan = {
      name: "your model",
      config,
      parameters,
      dtype: "float32",
      bytes,
      memory,
      files: { weights, config: "config.json", tokenizer: ["vocab.json"] },
      notes: [],
    };
    return { plan, config, matched, tokenizer };
  };
})((globalThis.GPT2 ??= {}));
