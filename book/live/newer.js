// Letters and digits as of Unicode 16, as in `gpt2/tokenizer/newer.py`: to a
// browser with another Unicode, other characters are letters.
(function (GPT2) {
  "use strict";

  // Newer than Unicode 16: the lists of `newer.py`.
  const NEWER = {
    letters: `
    558 58B-58C 88F C5C CDC 208F 209D-209F A7CE-A7CF A7D2 A7D4 A7DD
    A7E2 A7F1 AB6C-AB6D 107BB-107BF 10940-10959 10EC5-10EC7
    10ED9-10EEE 11B0A 11DB0-11DDB 11DF1 16EA0-16EB8 16EBB-16ED3
    16FF2-16FF3 187F8-187FF 18CD6-18CDA 18D09-18D20 18D80-18DF2
    18E00-19191 191A0-191D2 1B123-1B128 1B168 1D6A6 1DF1F-1DF24
    1DF2B-1DF81 1DF90-1DF96 1DFCD-1DFFF 1E6C0-1E6DE 1E6E0-1E6E2
    1E6E4-1E6E5 1E6E7-1E6ED 1E6F0-1E6F4 1E6FE-1E6FF 2B73A-2B73F 2B81E
    2CEA2-2CEAD 323B0-33479 3D000-3FC3F
    `,
    digits: `
    11DE0-11DE9 1246F 12475-1247F 12550-12686 16FF4-16FF6
    `,
  };

  // New in Unicode 15, 15.1 and 16, and so unknown to a browser that is older.
  const LATE = {
    letters: `
    1C89-1C8A A7CB-A7CD A7DA-A7DC 105C0-105F3 10D4A-10D65 10D6F-10D85
    10EC2-10EC4 1123F-11240 11380-11389 1138B 1138E 11390-113B5 113B7
    113D1 113D3 11BC0-11BE0 11F02 11F04-11F10 11F12-11F33 1342F
    13441-13446 13460-143FA 16100-1611D 16D40-16D6C 18CFF 1B132 1B155
    1DF25-1DF2A 1E030-1E06D 1E4D0-1E4EB 1E5D0-1E5ED 1E5F0 2B739
    2EBF0-2EE5D 31350-323AF
    `,
    digits: `
    10D40-10D49 116D0-116E3 11BF0-11BF9 11F50-11F59 16130-16139
    16D70-16D79 1CCF0-1CCF9 1D2C0-1D2D3 1E4F0-1E4F9 1E5F1-1E5FA
    `,
  };
  GPT2.NEWER = NEWER;
  GPT2.LATE = LATE;

  /** The inside of a set of code points that are listed in hex. */
  const ranges = (listed) =>
    listed.replace(/[0-9A-F]+/g, String.raw`\u{$&}`).replace(/\s/g, "");

  const known = (property, kind) =>
    `(?:(?![${ranges(NEWER[kind])}])` +
    String.raw`[\p{${property}}${ranges(LATE[kind])}])`;

  /** Patterns of one letter and of one digit. */
  GPT2.UNICODE_16 = {
    letter: known("L", "letters"),
    digit: known("N", "digits"),
  };
})((globalThis.GPT2 ??= {}));
