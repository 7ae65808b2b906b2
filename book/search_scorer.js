// How the search orders what it finds: first the chapter that explains a term,
// then the glossary and the index, then what has the words in its title. The
// API reference comes last: whoever types "attention" has not asked for a
// module. Whoever types `gpt2.attention` or `MultiHeadAttention` has.
const asked = new URLSearchParams(window.location.search).get("q") ?? "";
const isCode = /[._(]|[a-z][A-Z]/.test(asked);
const LATER = { "book/api": isCode ? 0 : 40, "book/glossary": 1, "book/terms": 2 };

var Scorer = {
  score: ([docname, , , , score]) => score - (LATER[docname] ?? 0),

  // The rest are Sphinx's own numbers, which this object takes the place of.
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};

// A formula is TeX until MathJax draws it. What the search quotes has the short
// ones as they are, and a mark in place of the others. Search is defined in the
// script before the one that this file becomes part of.
const FORMULA = /(<(?:span|div) class="math[^>]*>)\s*\\[([]([^<]*?)\\[)\]]/g;
const readable = (_, tag, tex) => tag + (/[\\{}]/.test(tex) ? "…" : tex);
const { htmlToText } = Search;
Search.htmlToText = (html, anchor) =>
  htmlToText(html.replace(FORMULA, readable), anchor);
