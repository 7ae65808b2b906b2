// Reads a vocabulary from its files, as in `gpt2/tokenizer/files.py`,
// `contents.py`, `configuration.py` and `pipeline.py`.
(function (GPT2) {
  "use strict";

  const PAIRS = [
    ["vocab.json", "merges.txt"],
    ["encoder.json", "vocab.bpe"],
  ];
  const ONE = "tokenizer.json";
  const SETTINGS = "tokenizer_config.json";
  const NAMES = "special_tokens_map.json";
  const ADDED = "added_tokens.json";
  const END_OF_TEXT = "<|endoftext|>";
  const ROLES = ["bos", "eos", "unk", "sep", "pad", "cls", "mask"];
  const EXTRA = ["additional_special_tokens", "extra_special_tokens"];
  const CLASSES = [
    ...["GPT2Tokenizer", "GPT2TokenizerFast"],
    ...["PreTrainedTokenizerFast", "TokenizersBackend"],
  ];
  const LONGEST_TOKEN = 1024;
  const FLAGS = ["lstrip", "rstrip", "single_word", "normalized"];

  const isObject = (value) =>
    typeof value === "object" && value !== null && !Array.isArray(value);
  const shown = (value) => (JSON.stringify(value) ?? `${value}`).slice(0, 80);
  const refuse = (message) => {
    throw new Error(message);
  };

  /** The files that a vocabulary would be read from, without settings. */
  GPT2.vocabularyFiles = function (folder) {
    if (folder.has(ONE)) return [ONE];
    return PAIRS.find(([ids]) => folder.has(ids)) ?? [];
  };

  /**
   * @param {Map<string, Blob>} folder
   * @returns {Promise<GPT2.Tokenizer>}
   */
  GPT2.readTokenizer = async function (folder) {
    const names = GPT2.vocabularyFiles(folder);
    if (!names.length)
      refuse(`there is neither ${ONE} nor vocab.json among the files`);
    const object = (name) =>
      GPT2.naming(name, async () =>
        folder.has(name)
          ? GPT2.parseObject(await GPT2.textOf(folder, name), "the file")
          : {},
      );
    const small = {};
    for (const name of [SETTINGS, NAMES, ADDED, "config.json"])
      small[name] = await object(name);
    const said = await GPT2.naming(SETTINGS, async () => configuration(small));
    const first = await object(names[0]);
    const contents =
      names.length === 1
        ? await GPT2.naming(ONE, async () => readOne(first))
        : {
            ids: asIds(first, names[0]),
            merges: await GPT2.naming(names[1], async () =>
              mergeLines(await GPT2.textOf(folder, names[1])),
            ),
            added: addedBeside(small, said),
            settings: GPT2.plainSettings(),
          };
    if (names.length === 2) checkClass(small);
    return GPT2.naming(
      names[0],
      async () => new GPT2.Tokenizer(assemble(contents, said, names)),
    );
  };

  // The small files beside a vocabulary.

  function nameOf(token, key) {
    const name = isObject(token) ? token.content : token;
    if (typeof name !== "string" || !name)
      refuse(`expected a token for ${key}, got ${shown(token)}`);
    return name;
  }

  /** What the small files say: roles, special tokens, flags, ids. */
  function configuration(small) {
    const settings = small[SETTINGS];
    // The older file counts where the newer does not list the added tokens.
    const whole =
      settings.added_tokens_decoder != null
        ? settings
        : { ...settings, ...small[NAMES] };
    const roles = {};
    for (const role of ROLES) {
      const token = whole[`${role}_token`];
      if (token != null) roles[role] = nameOf(token, `${role}_token`);
    }
    const others = EXTRA.flatMap((key) => {
      const listed = isObject(whole[key])
        ? Object.values(whole[key])
        : (whole[key] ?? []);
      if (!Array.isArray(listed)) refuse(`${key} is no list`);
      return listed.map((token) => nameOf(token, key));
    });
    const flags = {};
    for (const key of ["add_prefix_space", "add_bos_token", "add_eos_token"]) {
      const flag = settings[key] ?? null;
      if (flag !== null && typeof flag !== "boolean")
        refuse(`${key} must be true or false; got ${shown(flag)}`);
      flags[key] = flag;
    }
    const ids = {};
    for (const role of ["bos", "eos"]) {
      const found = small["config.json"][`${role}_token_id`];
      const id = Array.isArray(found) ? found[0] : found;
      if (Number.isInteger(id)) ids[role] = id;
    }
    return {
      roles,
      special: [...new Set([...Object.values(roles), ...others])],
      added: readDecoder(settings.added_tokens_decoder),
      flags,
      ids,
    };
  }

  /** The special token in a role; a choice goes before the default. */
  function choose(said, role, special) {
    const named = [...special].find(([, id]) => id === said.ids[role]);
    for (const name of [said.roles[role], named?.[0]])
      if (name && name !== END_OF_TEXT) return name;
    return special.has(END_OF_TEXT) ? END_OF_TEXT : "";
  }

  function readDecoder(listed) {
    const added = new Map();
    for (const [number, token] of Object.entries(listed ?? {})) {
      if (!isObject(token) || !/^\d{1,9}$/.test(number))
        refuse(`${shown(token)} is no token's id`);
      added.set(nameOf(token, number), {
        id: Number(number),
        special: token.special ?? false,
        finding: readFinding({ special: false, ...token }),
      });
    }
    return added;
  }

  function readFinding(token) {
    const { special = true } = token;
    if (typeof special !== "boolean")
      refuse(`special must be true or false; got ${shown(special)}`);
    const finding = { normalized: !special };
    for (const flag of FLAGS)
      if (flag in token) {
        finding[flag] = token[flag];
        if (typeof token[flag] !== "boolean")
          refuse(`${flag} must be true or false; got ${shown(token[flag])}`);
      }
    return finding;
  }

  function addedBeside(small, said) {
    const added = new Map(said.added);
    for (const [name, id] of asIds(small[ADDED], ADDED)) {
      const special = said.special.includes(name);
      const finding = { normalized: !special };
      if (!added.has(name)) added.set(name, { id, special, finding });
    }
    return added;
  }

  function checkClass(small) {
    for (const name of [SETTINGS, "config.json"]) {
      const kind = small[name].tokenizer_class;
      if (typeof kind !== "string") continue;
      if (!CLASSES.includes(kind))
        refuse(
          `${name}: the tokenizer_class is ${shown(kind)}, which splits text ` +
            "in another way than GPT2Tokenizer",
        );
      return;
    }
  }

  // The vocabulary itself.

  function asIds(object, name) {
    const ids = new Map(Object.entries(object));
    for (const [token, id] of ids)
      if (!token || token.length > LONGEST_TOKEN || !Number.isSafeInteger(id))
        refuse(`${name}: ${shown(token)} with id ${shown(id)} is no token`);
    return ids;
  }

  function mergeLines(text) {
    const lines = text.replaceAll("\r\n", "\n").split("\n");
    if (lines[0].startsWith("#version")) lines.shift();
    return lines.filter(Boolean);
  }

  /** A `tokenizer.json`. */
  function readOne(whole) {
    const { model } = whole;
    if (!isObject(model) || (model.type ?? "BPE") !== "BPE")
      refuse(`expected a BPE model, got ${shown(model?.type ?? model)}`);
    if (!isObject(model.vocab) || !Array.isArray(model.merges))
      refuse("the model has no vocab or no merges");
    const merges = model.merges.map((merge) => {
      const parts = typeof merge === "string" ? [merge] : merge;
      if (!Array.isArray(parts) || parts.some((p) => typeof p !== "string"))
        refuse(`the merge ${shown(merge)} is not two tokens`);
      return parts.join(" ");
    });
    const added = new Map();
    for (const token of whole.added_tokens ?? []) {
      if (!isObject(token) || !Number.isSafeInteger(token.id))
        refuse(`the added token ${shown(token)} has no id`);
      const name = nameOf(token, "an added token");
      if (added.has(name))
        refuse(`the added token ${shown(name)} is repeated`);
      const finding = readFinding(token);
      added.set(name, {
        id: token.id,
        special: token.special ?? true,
        finding,
      });
    }
    const settings = readPipeline(whole);
    return { ids: asIds(model.vocab, "vocab"), merges, added, settings };
  }

  // The pipeline in a `tokenizer.json`: only what is close to GPT-2's.

  const PATTERN =
    String.raw`'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+` +
    String.raw`| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`;
  const SAME_PATTERNS = [
    PATTERN,
    PATTERN.replace("'s|'t|'re|'ve|'m|'ll|'d", "'(?:[sdmt]|ll|ve|re)"),
  ];
  const FORMS = ["NFC", "NFD", "NFKC", "NFKD"];

  const refuseStep = (what, found) =>
    refuse(
      `${what} ${shown(found)} would give other ids than GPT-2's; encode the ` +
        "text with the library that wrote the file",
    );

  /** The steps of a sequence; or the step itself; or nothing. */
  function stepsOf(step, key) {
    if (step?.type === "Sequence" && Array.isArray(step[key]))
      return step[key].flatMap((each) => stepsOf(each, key));
    return step == null ? [] : [step];
  }

  function readPipeline(whole) {
    for (const name of [
      ...["dropout", "continuing_subword_prefix", "end_of_word_suffix"],
      "byte_fallback",
    ])
      if (whole.model[name])
        refuseStep(`the model's ${name}`, whole.model[name]);
    if (whole.decoder != null && whole.decoder.type !== "ByteLevel")
      refuseStep("the decoder", whole.decoder);
    const settings = GPT2.plainSettings();
    for (const step of stepsOf(whole.normalizer, "normalizers")) {
      if (!FORMS.includes(step.type)) refuseStep("the normalizer", step);
      settings.normalizers.push(step.type);
    }
    readSplit(settings, whole.pre_tokenizer);
    for (const step of stepsOf(whole.post_processor, "processors"))
      readTemplate(settings, step);
    return settings;
  }

  function readSplit(settings, step) {
    const steps = stepsOf(step, "pretokenizers");
    const last = steps.pop();
    if (last?.type !== "ByteLevel") refuseStep("the pre_tokenizer", step);
    const { add_prefix_space: spaced = true, use_regex = true } = last;
    let splits = use_regex;
    if (steps.length === 1 && !spaced && !splits)
      splits = isGpt2s(steps.pop());
    if (typeof spaced !== "boolean" || splits !== true)
      refuseStep("the pre_tokenizer", step);
    settings.addPrefixSpace = spaced;
    if (!steps.length) return;
    const alone = steps[0].individual_digits ?? false;
    if (steps.length > 1 || steps[0].type !== "Digits")
      refuseStep("the pre_tokenizer", step);
    settings.digits = alone ? "each" : "runs";
  }

  const isGpt2s = (step) =>
    step.type === "Split" &&
    !step.invert &&
    SAME_PATTERNS.includes(step.pattern?.Regex) &&
    step.behavior === "Isolated";

  function readTemplate(settings, step) {
    if (step.type === "ByteLevel") return;
    let around;
    if (step.type === "TemplateProcessing") around = aroundText(step);
    else if (["RobertaProcessing", "BertProcessing"].includes(step.type))
      around = [[step.cls?.[1]], [step.sep?.[1]]];
    if (around?.length !== 2 || !around.flat().every(Number.isInteger))
      refuseStep("the post_processor", step);
    settings.before = [...around[0], ...settings.before];
    settings.after = [...settings.after, ...around[1]];
  }

  /** The ids before and after the text in a template. */
  function aroundText({ single, special_tokens: names }) {
    const parts = [[]];
    for (const item of Array.isArray(single) ? single : [])
      if (item?.Sequence) parts.push([]);
      else
        parts.at(-1).push(...(names?.[item?.SpecialToken?.id]?.ids ?? [NaN]));
    return parts;
  }

  // Everything together, checked.

  function assemble(contents, said, names) {
    const { merges } = contents;
    const added = withNamed(contents, said);
    const ids = new Map(contents.ids);
    const made = new Set(merges.map((merge) => merge.split(" ").join("")));
    for (const [name, { id }] of added) {
      if ((ids.get(name) ?? id) !== id)
        refuse(`${shown(name)} has two ids, ${id} and ${ids.get(name)}`);
      if (!made.has(name) && !GPT2.BYTE_OF.has(name)) ids.delete(name);
    }
    const known = new Map(ids);
    for (const [name, { id }] of added) known.set(name, id);
    checkOrder(known);
    const ordinary = takeOrdinary(ids, merges);
    const special = new Map(ids); // what is left
    const marked = [...added].filter(([, token]) => token.special);
    for (const name of [...marked.map(([name]) => name), ...said.special])
      special.set(name, known.get(name));
    const settings = { ...contents.settings };
    for (const [name, { id, finding }] of added) {
      if (!special.has(name)) settings.words.set(name, id);
      settings.finding.set(name, finding);
    }
    configure(settings, said, special, names.length === 1);
    for (const id of [...settings.before, ...settings.after])
      if (!(id >= 0 && id < known.size)) refuse(`there is no token ${id}`);
    return { ids: ordinary, merges, special, settings };
  }

  /** The added tokens, and the named ones without an id: they get the next. */
  function withNamed(contents, said) {
    const added = new Map(contents.added);
    let next = -1;
    for (const id of contents.ids.values()) next = Math.max(next, id);
    for (const { id } of added.values()) next = Math.max(next, id);
    for (const name of said.special)
      if (!contents.ids.has(name) && !added.has(name))
        added.set(name, {
          id: ++next,
          special: true,
          finding: { normalized: false },
        });
    return added;
  }

  function checkOrder(known) {
    const byId = [...known].sort(([, a], [, b]) => a - b);
    byId.forEach(([token, id], expected) => {
      if (id !== expected)
        refuse(
          `${shown(token)} has id ${id}; expected each id from 0 to ` +
            `${byId.length - 1} once, and ${expected} next`,
        );
    });
  }

  /** Move the bytes and the merged tokens out of `ids`: spelled, with ids. */
  function takeOrdinary(ids, merges) {
    const ordinary = new Map();
    const take = (token) => {
      if (!ids.has(token)) return false;
      ordinary.set(token, ids.get(token));
      return ids.delete(token);
    };
    for (const character of GPT2.BYTE_OF.keys()) take(character);
    let highest = -1;
    for (const merge of merges) {
      const parts = merge.split(" ");
      if (parts.length !== 2 || !parts.every((part) => ordinary.has(part)))
        refuse(`the merge ${shown(merge)} joins tokens not made before it`);
      const token = parts.join("");
      if (!take(token))
        refuse(
          `the merge ${shown(merge)} makes a token that has no id or was ` +
            "already made",
        );
      if (ordinary.get(token) < highest)
        refuse(`the merge ${shown(merge)} has an id below an earlier one's`);
      highest = ordinary.get(token);
    }
    for (const token of ids.keys())
      if (isOnePiece(token))
        refuse(`no merge makes the token ${shown(token)}`);
    return ordinary;
  }

  /** Whether a token is within one piece, so that merges can make it. */
  function isOnePiece(token) {
    const bytes = Array.from(token, (c) => GPT2.BYTE_OF.get(c));
    if (bytes.includes(undefined)) return false;
    const text = new TextDecoder().decode(new Uint8Array(bytes));
    return GPT2.Tokenizer.prototype.split(text).length === 1;
  }

  /** Add what the small files say of the settings. */
  function configure(settings, said, special, inPipeline) {
    settings.eos = choose(said, "eos", special);
    if (!settings.eos)
      refuse(
        "no token is known to end a text: write an eos_token to " + SETTINGS,
      );
    settings.bos = choose(said, "bos", special) || settings.eos;
    const disagree = (key) =>
      refuse(
        `${SETTINGS} sets ${key} to ${said.flags[key]}, and ${ONE} says ` +
          "otherwise",
      );
    const { add_prefix_space: spaced } = said.flags;
    if (spaced !== null && spaced !== settings.addPrefixSpace) {
      if (inPipeline) disagree("add_prefix_space");
      settings.addPrefixSpace = spaced;
    }
    for (const [key, side, name] of [
      ["add_bos_token", "before", settings.bos],
      ["add_eos_token", "after", settings.eos],
    ]) {
      const around = said.flags[key] ? [special.get(name)] : [];
      if (
        said.flags[key] === null ||
        String(settings[side]) === String(around)
      )
        continue;
      if (settings[side].length) disagree(key);
      settings[side] = around;
    }
  }
})((globalThis.GPT2 ??= {}));
