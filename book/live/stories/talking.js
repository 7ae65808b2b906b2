// Plots with dialogue, a guessing game and a strange noise:
// `gpt2/stories/talking.py`.
(function (GPT2) {
  "use strict";

  const plots = (GPT2.plots ??= {});

  // Guessing.

  plots.guessing = function (t) {
    const a = t.hero;
    const it = t.see({ article: true, onlyOne: true });
    t.say(` behind ${a.his} back. ${a.He} had found it`);
    const place = t.place();
    t.say(`.\n"Guess what I have," ${a.he} said to`);
    const b = t.friend();
    t.say(".");
    question(t, it);
    guesses(t, b, it);
    if (t.either(`\n${a.name} put`, '\n"You may keep it')) {
      t.say(` the ${it.name} back ${t.where(place)},`);
      t.one(
        " so that somebody else could find it.",
        " because it looked lonely.",
      );
    } else {
      t.speak(a, `. So now ${b.name} had ${it.a_full}.`);
      t.coda();
    }
  };

  /** Ask a question, and answer it truthfully. */
  function question(t, it) {
    const EAT = "good to eat";
    const asked = t.pick(
      [EAT, ...Object.keys(GPT2.WORDS.COLOURS)],
      (what) => ` "Is it ${what}`,
    );
    t.say(`?" "${asked === it.adjective ? "Yes" : "No"}`);
    if (asked === EAT) t.say(", unless you are a goat");
    t.say('."');
  }

  /** Guess once or twice, or give up. */
  function guesses(t, b, it) {
    const { NEXT_GROUP, THINGS } = GPT2.WORDS;
    const a = t.hero;
    const group = NEXT_GROUP[it.noun.group];
    const others = THINGS.filter((n) => n.group === group && !n.many);
    const guess = t.pick(
      [it.noun, ...others],
      ({ word }) => ` "Is it ${GPT2.aOrAn(word)} ${word}`,
    );
    t.say('?" "');
    const yes = `Yes," said ${a.name}.`;
    if (guess === it.noun) {
      t.say(yes, " It took only one guess.");
      return;
    }
    t.say('No."');
    if (t.either(' "Is it', ' "I give up')) {
      t.say(` ${GPT2.aOrAn(it.name)} ${it.name}?" "${yes}`);
      t.say(" It took only two guesses.");
    } else
      t.say(
        `," said ${b.name}. So ${a.name} showed ${b.him} the ${it.full}.`,
      );
  }

  // A strange noise.

  plots.noise = function (t) {
    const { ANIMALS, GOING, MONSTERS, MEANINGS, OUTDOORS, PREDICAMENTS } =
      GPT2.WORDS;
    const a = t.hero;
    const sound = (animal) => ANIMALS[animal][0];
    const animal = t.pick(
      Object.keys(ANIMALS),
      (animal) => `. "${sound(animal)}`,
    );
    t.say('," it went. "It must be a ');
    const monster = t.one(...MONSTERS);
    t.say('," whispered');
    const b = t.friend();
    t.say(`.\n${a.name} took ${a.his}`);
    const it = t.see();
    t.one(", just in case,", ", to look bigger,");
    t.say(" and they");
    t.some(GOING, " to");
    t.place(OUTDOORS, { spot: true });
    t.say(
      `. But there was no ${monster},`,
      ` only ${GPT2.aOrAn(animal)} ${animal},`,
    );
    t.some(PREDICAMENTS);
    if (t.either(`.\n"${sound(animal)}`, '.\n"And what')) {
      t.say(`," it said, which is ${animal} for "`);
      t.one(...MEANINGS);
      t.coda();
    } else {
      t.say(` ${it.was} the ${it.name} for?" asked ${b.name}. "`);
      t.one(
        "You never know",
        `Without ${it.it} I am never brave`,
        "Ask me tomorrow",
      );
      t.speak(a);
    }
  };
})((globalThis.GPT2 ??= {}));
