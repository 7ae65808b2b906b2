// Plots about promises, something borrowed and something wished for:
// `gpt2/stories/promising.py`.
(function (GPT2) {
  "use strict";

  const plots = (GPT2.plots ??= {});

  // Borrowed.

  plots.borrowed = function (t) {
    const { ANIMALS, INDOORS, MEANINGS, TIMES } = GPT2.WORDS;
    const a = t.hero;
    const it = t.see({ article: true });
    t.say(" from");
    const b = t.friend();
    t.say(`. "Put ${it.it} back`);
    const home = t.place(INDOORS);
    t.say(" before ");
    const meals = Object.values(TIMES).map(([meal]) => meal);
    const due = t.one(...(t.time ? [TIMES[t.time][0]] : meals));
    t.say(`," said ${b.name}. "I promise."\n${a.name} showed ${it.it} to the`);
    const animal = t.animal();
    t.say(`. "${ANIMALS[animal][0]}," it said, which means "`);
    t.one(...MEANINGS);
    t.say(` ${a.name}`);
    const [back, before] = [`back ${t.where(home)}`, `before ${due}`];
    if (t.either(" remembered the promise", " forgot the promise")) {
      t.one(" and ran.", ", and ran like the wind.");
      t.say(`\nJust ${before}, the ${it.full} ${it.was} ${back}.`);
      t.coda();
    } else {
      broken(t, b, it);
      const always = `From then on ${it.they} ${it.was} always`;
      t.say(` ${always} ${back} ${before}.`);
      t.coda({ sameDay: false });
    }
  };

  /** Leave it out all night, and apologize. */
  function broken(t, b, it) {
    t.one(" and went to play.\n", " and fell asleep.\n");
    t.one(
      `${it.They} lay out all night, and a family of snails moved in.`,
      `In the night a hedgehog slept on ${it.it}.`,
      `In the morning a bird had built a nest on ${it.it}.`,
    );
    t.say(` "You promised," sighed ${b.name}. ${t.hero.name} said sorry`);
    t.one(" twice.", " in three languages.", " with a cake.");
  }

  // Wished for.

  plots.wished = function (t) {
    const { CHORES, INDOORS } = GPT2.WORDS;
    const a = t.hero;
    const b = t.friend();
    t.say("'s");
    const it = t.see();
    t.say(`. "You can have ${it.it} if you `);
    const [, done, undone] = t.pick(CHORES, ([chore]) => chore);
    t.speak(b);
    t.say(' "I promise."');
    if (t.either(`\nSo ${a.name}`, `\nBut ${a.name}`)) {
      t.say(` ${done}.`);
      t.one(
        " It took all day.",
        ` ${a.He} even sang while ${a.he} did it.`,
        ` Then ${a.he} had to lie down.`,
      );
      paid(t, b, it);
      return;
    }
    t.one(" fell asleep", " talked to a snail instead");
    t.say(
      `, and ${undone}.`,
      `\nSo ${b.name} kept the ${it.full} and put ${it.it} back`,
    );
    t.place(INDOORS);
    t.say(`. "Tomorrow?" asked ${a.name}. "Tomorrow," said ${b.name}.`);
    t.coda();
  };

  /** Keep the promise at once, or after a sleepless night. */
  function paid(t, b, it) {
    const { INDOORS } = GPT2.WORDS;
    const a = t.hero;
    const kept = ' "A promise is a promise';
    if (t.either(kept, ' "I have changed my mind')) {
      t.speak(b, `, and gave ${a.him} the ${it.full}.\n${a.He} put ${it.it}`);
      t.place(INDOORS);
      t.say(` and looked at ${it.it}`);
      t.one(
        " until the moon came up.",
        ` until ${a.his} eyes closed.`,
        " until supper was cold.",
      );
    } else {
      t.speak(b, `. But ${b.he} could not sleep.\nIn the morning the`);
      t.say(` ${it.full} ${it.was}`);
      t.place(INDOORS);
      t.say(`, with a note for ${a.name}:${kept}."`);
    }
    t.coda({ sameDay: false });
  }
})((globalThis.GPT2 ??= {}));
