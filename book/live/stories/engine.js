// Whether a text is a story, and if not, where it leaves the language: `check`
// and the reader of `gpt2/stories/engine.py`. The words come from the Python:
// see `words_script` in `book/live_scripts.py`.
(function (GPT2) {
  "use strict";

  class NotAStory extends Error {
    constructor(verdict) {
      super("not a story");
      this.verdict = verdict;
    }
  }

  /** Reads a text: takes the options that the text takes. */
  class Reader {
    #text;
    #told = 0;

    constructor(text) {
      this.#text = text;
    }

    /** Take the option that the text continues with: its index. */
    choose(options) {
      const fits = (option) => this.#text.startsWith(option, this.#told);
      const taken = options.findIndex(fits);
      if (taken < 0) throw new NotAStory(this.#stray(options));
      this.#told += options[taken].length;
      return taken;
    }

    /** The text must end where the story does. */
    finish() {
      if (this.#told < this.#text.length) throw new NotAStory(this.#stray([]));
    }

    /** The verdict on the first character that fits no option. */
    #stray(options) {
      const text = this.#text;
      const told = this.#told;
      const shared = options.map((option) => {
        let count = 0;
        while (count < option.length && option[count] === text[told + count])
          count++;
        return count;
      });
      const most = Math.max(0, ...shared);
      const offset = told + most;
      const before = text.slice(0, offset);
      const word = Math.max(told, before.lastIndexOf(" ") + 1);
      const nearest = options.filter((_, i) => shared[i] === most);
      const expected = nearest.map((option) => option.slice(word - told));
      const found = Array.from(text.slice(word)); // no half characters
      return {
        offset,
        line: before.split("\n").length,
        found: found.slice(0, offset - word + 20).join(""),
        expected: [...new Set(expected)],
      };
    }
  }

  /**
   * Check whether a text is a story.
   *
   * @returns {object|null} `null` for a story. Otherwise, as the attributes of
   *   `gpt2.stories.Verdict`, `{offset, line, found, expected}`: the first
   *   wrong character and its line, the text from the beginning of that word
   *   on, and what could have come instead; nothing if the text should end.
   */
  GPT2.checkStory = function (text) {
    const reader = new Reader(text);
    try {
      GPT2.tell(new GPT2.Story(reader));
      reader.finish();
    } catch (error) {
      if (error instanceof NotAStory) return error.verdict;
      throw error;
    }
    return null;
  };
})((globalThis.GPT2 ??= {}));
