// Plots of giving, counting, swapping and a journey with a present:
// `gpt2/stories/dealing.py`.
(function (GPT2) {
  "use strict";

  const plots = (GPT2.plots ??= {});

  // Counting.

  plots.counting = function (t, verb) {
    const { ACTIVITIES, COUNTED, NUMBERS, SIZES } = GPT2.WORDS;
    const a = t.hero;
    const first = t.number(3, 4, 5, 6);
    const size = t.some(SIZES);
    const items = COUNTED.filter((item) => item.verb === verb);
    const { many } = t.pick(items, ({ many }) => ` ${many}`);
    t.say(" and put them");
    const where = t.where(t.place());
    let b = null;
    if (!t.either(`. Then ${a.he} ${verb}`, ". Along came")) {
      b = t.friend();
      t.say(" with");
    }
    const total = first + t.number(1, 2, 3, 4);
    t.say(` more. That made ${NUMBERS[total]}.`);
    const { left, eater } = eaten(t, total);
    const number = GPT2.capital(NUMBERS[left]);
    t.say(
      ` How many were left? ${number} ${size} ${many}, still ${where}.`,
      `\n${a.name} shared them with`,
    );
    if (b) t.say(` ${b.name}`);
    else {
      t.friend();
      t.say(", who was");
      t.some(ACTIVITIES);
    }
    const odd = left % 2 === 1;
    t.say(`: ${NUMBERS[Math.floor(left / 2)]} each${odd ? ", and" : "."}`);
    if (odd) t.say(` one for ${eater}.`);
    t.coda();
  };

  /** Lose one or two: how many are left, and who took the others. */
  function eaten(t, total) {
    const a = t.hero;
    const [gift, drop] = [`\n${a.name} gave`, "\nLater"];
    const way = t.one("\nBut the", gift, drop);
    if (way === gift) {
      const left = total - t.number(1, 2);
      t.say(" to");
      const eater = t.relative().name;
      t.one(", who said thank you.", ", who was hungry.");
      return { left, eater };
    }
    if (way === drop) {
      t.say(` ${a.he} dropped`);
      const left = total - t.number(1, 2);
      t.one(" in a puddle.", " on somebody's head.");
      return { left, eater: "the birds" };
    }
    const eater = `the ${t.animal()}`;
    t.say(" was hungry, and ate");
    const left = total - t.number(1, 2);
    t.say(".");
    return { left, eater };
  }

  // Swapping.

  plots.swapping = function (t) {
    const { NAMES, OUTDOORS, RELATIVES } = GPT2.WORDS;
    const a = t.hero;
    const mine = t.see({ article: true });
    t.say(", but wanted");
    const friends = NAMES.filter(({ she }) => she !== a.she);
    const b = t.meet([...friends, ...RELATIVES]);
    t.say("'s");
    const wish = t.see();
    t.say(`. ${b.name}`);
    if (t.either(" wanted", " was tired of")) threeOwners(t, b, mine, wish);
    else {
      t.say(` ${wish.it}.\nSo they met`);
      t.place(OUTDOORS);
      t.say(" and swapped.");
      twoOwners(t, b, mine, wish);
    }
  };

  /** Let each of three give to the one who wants it: who has what now? */
  function threeOwners(t, b, mine, wish) {
    const { OUTDOORS, RELATIVES } = GPT2.WORDS;
    const a = t.hero;
    const c = RELATIVES.includes(b) ? t.friend() : t.relative();
    t.say("'s");
    const third = t.see();
    t.say(`, and ${c.name}`);
    t.one(" had always dreamed of", " could not live without");
    t.say(` ${mine.a_full}.\nSo they all met`);
    t.place(OUTDOORS);
    t.say(
      `. ${a.name} gave the ${mine.name} to ${c.name},`,
      ` ${c.name} gave the ${third.name} to ${b.name}`,
      ` and ${b.name} gave the ${wish.name} to ${a.name}.`,
      `\nThen off they went, the ${mine.name} to ${c.name},`,
      ` the ${third.name} to ${b.name} and the ${wish.name} to ${a.name}.`,
    );
    t.coda();
  }

  /** Who has what after a swap of two, and perhaps swap back. */
  function twoOwners(t, b, mine, wish) {
    const a = t.hero;
    if (t.either(` Now ${a.name} had`, " But the next day they")) {
      t.say(
        ` the ${wish.full}, and ${b.name} had the ${mine.full}.`,
        " Nobody was sorry.",
      );
      t.coda();
    } else {
      t.say(
        ` swapped back, because ${a.name} missed the ${mine.name}.`,
        ` So ${b.name} had the ${wish.full} again,`,
        ` and ${a.name} had the ${mine.full}.`,
      );
      t.coda({ sameDay: false });
    }
  }

  // A journey.

  plots.journey = function (t) {
    const { INDOORS, LEGS } = GPT2.WORDS;
    const a = t.hero;
    const it = t.see({ article: true });
    t.say(" to");
    const old = t.relative();
    t.say(",");
    const legs = ["", ",", " and"].map((link, i) =>
      t.pick(LEGS.slice(3 * i, 3 * i + 3), ([out]) => `${link} ${out}`),
    );
    t.say(`. On the way ${a.he} met`);
    const animal = t.animal({ article: true });
    t.one(
      '.\n"Just what I always wanted',
      '.\n"How kind',
      '.\n"Now I can sleep again',
    );
    t.say(`," said ${old.name}, and put ${it.it}`);
    t.place(INDOORS);
    t.say(
      '. "Did you meet anybody?"',
      ` "Only ${GPT2.aOrAn(animal)} ${animal}," said ${a.name}.\nThen`,
    );
    const [third, second, first] = legs.map(([, back]) => back);
    t.say(` ${a.name} went home, ${first}, ${second} and ${third}`);
    if (t.home) t.say(`, to the ${t.home}`);
    t.say(".");
  };
})((globalThis.GPT2 ??= {}));
