// Byte-level BPE, as in `gpt2/tokenizer/bpe.py` and `tokenizer.py`: text to
// token ids and back.
(function (GPT2) {
  "use strict";

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
  GPT2.BYTE_OF = BYTE_OF;

  let pattern = null;

  /**
   * The split pattern of GPT-2. A piece is an English contraction such as 's;
   * or letters, digits or other symbols, with at most one space before them;
   * or white space, without the space that belongs to the next word.
   * JavaScript's \s has U+FEFF and lacks U+0085, so the Unicode property
   * stands in its place.
   */
  function splitPattern() {
    const { letter, digit } = GPT2.UNICODE_16;
    return (pattern ??= new RegExp(
      `'s|'t|'re|'ve|'m|'ll|'d| ?${letter}+| ?${digit}+` +
        String.raw`| ?(?:(?!${letter}|${digit})\P{White_Space})+` +
        String.raw`|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+`,
      "gu",
    ));
  }

  class Tokenizer {
    /**
     * @param {object} vocabulary From `readTokenizer`: `ids`, a Map from the
     *   ordinary tokens, spelled, to their ids; `merges`, pairs such as "t h"
     *   in their order; `special`, a Map from special tokens to ids; and
     *   `settings`.
     */
    constructor({ ids, merges, special, settings }) {
      Object.assign(this, { ids, special, settings });
      this.ranks = new Map(merges.map((pair, rank) => [pair, rank]));
      this.tokens = []; // as the files spell them, by id
      this.added = new Set();
      for (const [token, id] of ids) this.tokens[id] = token;
      for (const [name, id] of [...special, ...settings.words]) {
        if (this.tokens[id] === undefined) this.added.add(id);
        this.tokens[id] ??= name;
      }
      this.preparation = new GPT2.Preparation(settings, special);
      this.known = new Map(); // ids of pieces
      this.rows = this.tokens.length; // of the model: ids below are in use
    }

    /** The highest id of an ordinary token. */
    get highest() {
      return [...this.ids.values()].reduce((a, b) => Math.max(a, b), 0);
    }
    /** The number of tokens that the model can have. */
    get n_vocab() {
      return Math.min(this.rows, this.tokens.length);
    }

    /** The id of the token that begins a text. */
    get start() {
      return this.special.get(this.settings.bos);
    }
    /** The id of the token that ends one. */
    get end() {
      return this.special.get(this.settings.eos);
    }

    /** Split text into pieces; no token crosses from one into the next. */
    split(text) {
      return text.match(splitPattern()) ?? [];
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

    /** The ids of one piece, which are remembered. */
    #idsOf(piece) {
      let ids = this.known.get(piece);
      if (!ids) {
        ids = this.steps(piece)
          .at(-1)
          .map((token) => {
            const id = this.ids.get(token);
            if (id === undefined)
              throw new Error(
                `the vocabulary has no token for the byte ` +
                  `${BYTE_OF.get(token)} of ${JSON.stringify(piece)}`,
              );
            return id;
          });
        if (this.known.size > 10_000) this.known.clear();
        if (piece.length < 100) this.known.set(piece, ids);
      }
      return ids;
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
      const ids = [];
      for (const part of this.preparation.parts(text, special))
        if (typeof part === "number") ids.push(part);
        else
          for (const piece of this.split(part))
            for (const id of this.#idsOf(piece)) ids.push(id);
      for (const id of ids)
        if (id >= this.rows)
          throw new Error(
            `the text has ${this.tokens[id]}, token ${id}, for which the ` +
              "model has no row",
          );
      return ids;
    }

    /** Encode a prompt: a text with the tokens that go around it. */
    encodePrompt(text, special = false) {
      const { before, after } = this.settings;
      const ids = [...before, ...this.encode(text, special), ...after];
      return ids.length ? ids : [this.start];
    }

    /** The bytes of a token; an added token's are its name's. */
    bytes(id) {
      const token = this.tokens[id];
      if (token === undefined) throw new Error(`there is no token ${id}`);
      if (this.added.has(id)) return new TextEncoder().encode(token);
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
