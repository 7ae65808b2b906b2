// How the search orders what it finds: first the chapter that explains a
// term, then the glossary and the index, then whatever has the words in its title, and the
// API reference last. Whoever types "attention" has not asked for a module.
var Scorer = {
  score: ([docname, , , , score]) => {
    if (docname === "book/api") return score - 40;
    if (docname === "book/glossary") return score - 1;
    if (docname === "book/terms") return score - 2;
    return score;
  },

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
