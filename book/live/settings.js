// What is done to a text before its bytes are merged, as in
// `gpt2/tokenizer/settings.py`. GPT-2 itself only splits it.
(function (GPT2) {
  "use strict";

  /** GPT-2's own settings; see `gpt2.tokenizer.settings.Settings`. */
  GPT2.plainSettings = () => ({
    normalizers: [], // Unicode normalization forms
    digits: null, // "each" by itself or "runs" are split off
    addPrefixSpace: false,
    before: [], // ids that go before those of a text
    after: [],
    bos: "<|endoftext|>",
    eos: "<|endoftext|>",
    words: new Map(), // added tokens that any text spells, with their ids
    finding: new Map(), // how added tokens are found
  });

  const SPACES_BEFORE = /\p{White_Space}*$/u;
  const SPACES_AFTER = /^\p{White_Space}*/u;
  const IN_WORD = /[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]/u;

  /** Finds added tokens in text: at each place the longest. */
  class Search {
    constructor(ids, finding) {
      Object.assign(this, { ids, finding });
      const names = [...ids.keys()].sort((a, b) => b.length - a.length);
      const escaped = names.map((name) =>
        name.replace(/[\\^$.*+?()[\]{}|/]/g, String.raw`\$&`),
      );
      this.pattern = names.length ? new RegExp(escaped.join("|"), "gu") : null;
    }

    /** Yield the text between the tokens, and their ids, in order. */
    *split(text) {
      let begin = 0;
      for (const match of this.pattern ? text.matchAll(this.pattern) : []) {
        const how = this.finding.get(match[0]);
        let start = match.index;
        let stop = start + match[0].length;
        if (how.single_word && touchesAWord(text, start, stop)) continue;
        if (how.lstrip) {
          const [spaces] = text.slice(begin, start).match(SPACES_BEFORE);
          start -= spaces.length;
        }
        if (how.rstrip) stop += text.slice(stop).match(SPACES_AFTER)[0].length;
        if (begin < start) yield text.slice(begin, start);
        yield this.ids.get(match[0]);
        begin = stop;
      }
      if (begin < text.length) yield text.slice(begin);
    }
  }

  function touchesAWord(text, start, stop) {
    const before = [...text.slice(Math.max(0, start - 2), start)].at(-1) ?? "";
    const after = [...text.slice(stop, stop + 2)][0] ?? "";
    return IN_WORD.test(before) || IN_WORD.test(after);
  }

  /** Applies settings to texts. */
  class Preparation {
    constructor(settings, special) {
      this.settings = settings;
      this.searches = [false, true].map((allowed) =>
        this.#build(new Map([...(allowed ? special : []), ...settings.words])),
      );
    }

    /** The search before normalizing, and the one after it. */
    #build(ids) {
      const { words, finding } = this.settings;
      const sides = [[], []];
      for (const [name, id] of ids) {
        const normalized = words.has(name);
        const how = finding.get(name) ?? { normalized };
        const key = how.normalized ? this.#normalize(name) : name;
        sides[how.normalized ? 1 : 0].push([key, id, how]);
      }
      return sides.map(
        (side) =>
          new Search(
            new Map(side.map(([key, id]) => [key, id])),
            new Map(side.map(([key, , how]) => [key, how])),
          ),
      );
    }

    #normalize(text) {
      for (const form of this.settings.normalizers)
        text = text.normalize(form);
      return text;
    }

    /** Split off digits and set prefix spaces. */
    #segments(text) {
      const { digits, addPrefixSpace } = this.settings;
      let parts = [text];
      if (digits) {
        const { digit } = GPT2.UNICODE_16;
        const each = digits === "runs" ? `${digit}+` : digit;
        parts = text.split(new RegExp(`(${each})`, "u")).filter(Boolean);
      }
      if (!addPrefixSpace) return parts;
      return parts.map((part) => (part.startsWith(" ") ? part : ` ${part}`));
    }

    /** Yield the text to merge, and the ids of added tokens, in order. */
    *parts(text, special) {
      const [raw, normal] = this.searches[special ? 1 : 0];
      for (const part of raw.split(text))
        if (typeof part === "number") yield part;
        else
          for (const piece of normal.split(this.#normalize(part)))
            if (typeof piece === "number") yield piece;
            else yield* this.#segments(piece);
    }
  }

  GPT2.Preparation = Preparation;
})((globalThis.GPT2 ??= {}));
