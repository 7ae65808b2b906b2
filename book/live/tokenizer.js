// Byte-level BPE, as in `gpt2/tokenizer/bpe.py`: text to token ids and back.
(function (GPT2) {
  "use strict";

  // The split pattern of GPT-2. JavaScript's \s has U+FEFF and lacks U+0085,
  // so the Unicode property stands in its place. \p{L} and \p{N} are as new
  // as the browser: letters newer than Unicode 16 may be split differently.
  const SPLIT_PATTERN = new RegExp(
    String.raw`'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+` +
      String.raw`| ?[^\p{White_Space}\p{L}\p{N}]+` +
      String.raw`|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+`,
    "gu",
  );

  /** The printable character that spells each byte in the files: 256. */
  const ALPHABET = (() => {
    let hidden = 0;
    return Array.from({ length: 256 }, (_, byte) => {
      const visible =
        (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte !== 0xad);
      return String.fromCharCode(visible ? byte : 0x100 + hidden++);
    });
  })();
  const BYTE_OF = new Map(ALPHABET.map((spelled, byte) => [spelled, byte]));

  class Tokenizer {
    /**
     * @param {string} vocabulary The text of `vocab.json`.
     * @param {string} merges The text of `merges.txt`.
     * @param {string[]} special Tokens that are not spelled in bytes.
     */
    constructor(vocabulary, merges, special = ["<|endoftext|>"]) {
      this.ids = new Map(Object.entries(JSON.parse(vocabulary)));
      this.tokens = [];
      for (const [token, id] of this.ids) this.tokens[id] = token;
      const missing = ALPHABET.find((character) => !this.ids.has(character));
      if (missing !== undefined)
        throw new Error(`vocab.json has no token for the byte ${missing}`);
      this.special = special.filter((token) => this.ids.has(token));
      const lines = merges.split(/\r?\n/).filter(Boolean);
      if (lines[0]?.startsWith("#version")) lines.shift();
      this.ranks = new Map(lines.map((pair, rank) => [pair, rank]));
      for (const pair of lines)
        if (!this.ids.has(pair.replace(" ", "")))
          throw new Error(`vocab.json has no token for the merge ${pair}`);
    }

    /** Split text into pieces; no token crosses from one into the next. */
    split(text) {
      return text.match(SPLIT_PATTERN) ?? [];
    }

    /**
     * Merge one piece, the lowest-ranked pair first.
     *
     * A merge makes only pairs of a higher rank, so all pairs of one rank can
     * merge in one pass, from the left.
     *
     * @param {string} piece A piece of text, or any text.
     * @returns {string[][]} The tokens, spelled, after 0, 1, 2 ... merges.
     */
    steps(piece) {
      const bytes = new TextEncoder().encode(piece);
      let parts = Array.from(bytes, (byte) => ALPHABET[byte]);
      const steps = [parts];
      for (;;) {
        let lowest = Infinity;
        let best = null;
        for (let i = 0; i + 1 < parts.length; i++) {
          const rank = this.ranks.get(`${parts[i]} ${parts[i + 1]}`);
          if (rank < lowest) [lowest, best] = [rank, [parts[i], parts[i + 1]]];
        }
        if (best === null) return steps;
        const merged = [];
        for (let i = 0; i < parts.length; i++) {
          const here = parts[i] === best[0] && parts[i + 1] === best[1];
          merged.push(here ? parts[i] + parts[++i] : parts[i]);
        }
        steps.push((parts = merged));
      }
    }

    /**
     * @param {string} text
     * @param {boolean} special Whether special tokens in the text are encoded
     *   as what they are; otherwise they are text like any other.
     * @returns {number[]} Token ids.
     */
    encode(text, special = false) {
      if (/\p{Surrogate}/u.test(text))
        throw new Error("the text has a lone surrogate, so no UTF-8");
      if (special) {
        for (const token of this.special) {
          const at = text.indexOf(token);
          if (at < 0) continue;
          const after = text.slice(at + token.length);
          return [
            ...this.encode(text.slice(0, at), true),
            this.ids.get(token),
            ...this.encode(after, true),
          ];
        }
      }
      return this.split(text).flatMap((piece) =>
        this.steps(piece).at(-1).map((token) => this.ids.get(token)),
      );
    }

    /** A prompt: a text with the tokens that go before it. */
    encodePrompt(text, special = false) {
      const ids = [...this.before, ...this.encode(text, special)];
      return ids.length ? ids : [this.start];
    }

    /** The bytes of a token; a special token's are its name's. */
    bytes(id) {
      const token = this.tokens[id];
      if (token === undefined) throw new Error(`there is no token ${id}`);
      if (this.special.includes(token)) return new TextEncoder().encode(token);
      return Uint8Array.from(token, (character) => BYTE_OF.get(character));
    }

    /** Decode ids; bytes that are no UTF-8 become U+FFFD. */
    decode(ids) {
      const bytes = Array.from(ids).flatMap((id) => [...this.bytes(id)]);
      const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
      return decoder.decode(new Uint8Array(bytes));
    }
  }

  GPT2.Tokenizer = Tokenizer;
})((globalThis.GPT2 ??= {}));
