// Plots about searching: `gpt2/stories/seeking.py`. In all plots `a` is the
// hero, `b` the friend and `it` the thing.
(function (GPT2) {
  "use strict";

  const plots = (GPT2.plots ??= {});

  // Lost and found.

  plots.lost = function (t) {
    const { FINDS, INDOORS } = GPT2.WORDS;
    const a = t.hero;
    t.say(` ${a.his}`);
    const it = t.see();
    t.say(".");
    let home = null;
    if (t.either(` ${it.They} ${it.was} not`, ` ${a.He} looked`)) {
      home = t.place(INDOORS);
      t.say(`, where ${it.they} belonged.`);
    } else {
      t.one(" everywhere twice", " in every pocket");
      t.say(", but found only");
      t.some(FINDS, ".");
    }
    find(t, askAfter(t, it), it);
    if (home) {
      t.say(`\nThat night the ${it.full} ${it.was} back ${t.where(home)}.`);
      return;
    }
    const again = `\n${a.name} never lost ${it.it} again.`;
    t.coda({ other: `${again} Well, not until Tuesday.` });
  };

  /** Ask somebody whether they have seen it: the friend. */
  function askAfter(t, it) {
    const { ACTIVITIES } = GPT2.WORDS;
    const a = t.hero;
    const question = `\n"Have you seen my ${it.name}?" ${a.he} asked`;
    const first = t.either(question, "\nJust then");
    const b = t.friend();
    if (first) {
      t.say(", who was");
      t.some(ACTIVITIES, ".");
    } else {
      t.say(
        ' came by. "What are you looking for?"',
        ` "My ${it.full}," said ${a.name}.`,
      );
    }
    return b;
  }

  /** Find it, by a hint or by asking an animal. */
  function find(t, b, it) {
    const { ANIMALS, OUTDOORS } = GPT2.WORDS;
    if (t.either(' "I saw', ' "Ask the')) {
      t.say(` ${it.it}`);
      t.place(OUTDOORS);
      t.speak(b);
      t.say(`\nAnd there ${it.they} ${it.was},`);
      t.one(
        " as good as new.",
        " just a little bit muddy.",
        " with a snail on top.",
      );
      return;
    }
    const animal = t.animal();
    t.speak(b);
    t.say(`\nThe ${animal} was`);
    t.place(OUTDOORS);
    t.one(
      `, talking to the ${it.full}.`,
      `, fast asleep on the ${it.full}.`,
      `, with the ${it.full} on its head.`,
    );
    const [sound] = ANIMALS[animal];
    t.say(` "${sound}," it said, and`);
    t.one(
      ` gave ${it.it} back.`,
      " looked at its feet.",
      " pretended to be a stone.",
    );
  }

  // Hidden and sought.

  plots.hidden = function (t) {
    const { ERRANDS, INDOORS, OUTDOORS } = GPT2.WORDS;
    const a = t.hero;
    t.say(` ${a.his}`);
    const it = t.see();
    const first = t.place(INDOORS);
    t.say(" and went out to");
    t.some(ERRANDS, ".");
    const thinks = t.either('\n"This will be funny', "\nIn came");
    if (thinks) t.say('," thought');
    const b = t.friend();
    t.say(`${thinks ? "," : ""} and hid`);
    t.say(` the ${it.full}`);
    const now = t.place(OUTDOORS);
    t.say(".");
    const seen = ` ${a.name} saw it all through the window.`;
    const knows =
      seen ===
      t.one(
        seen,
        ` ${a.name} was far away and saw nothing.`,
        " Nobody saw it but the cat, and cats do not tell.",
      );
    if (t.either(` "${a.He} will look`, "\nSoon"))
      t.say(` ${t.where(first)}," ${b.name} thought.\nSoon`);
    const place = t.where(knows ? now : first);
    t.say(` ${a.name} came back and looked ${place}`);
    if (knows) known(t, b, it);
    else unknown(t, b, it, now);
    const turn = `\nThen it was ${a.name}'s turn to hide something.`;
    if (t.coda({ other: `${turn} ${b.name} is still looking` }))
      t.one(".", ", and it is nearly winter.");
  };

  /** Find it at once, to the friend's surprise. */
  function known(t, b, it) {
    const a = t.hero;
    t.say(`, and there ${it.they} ${it.was}. `);
    t.say(`"How did you know?" asked ${b.name}.`);
    if (!t.either(' "', ` ${a.name} only smiled.`)) return;
    t.one(
      "Your ears went red",
      "A little bird told me",
      "I have very good eyes",
    );
    t.speak(a);
  }

  /** Look in the wrong place, and get help. */
  function unknown(t, b, it, now) {
    t.say(`, but ${it.they} ${it.was} gone.`);
    if (t.either(' "Cold', ` ${b.name} could not keep`))
      t.say(
        `," laughed ${b.name}. "Warmer. Hot." And there ${it.they} ${it.was},`,
        ` ${t.where(now)}.`,
      );
    else
      t.say(
        ` the secret. "${it.They} ${it.be} ${t.where(now)}," ${b.he} said.`,
      );
  }

  // Kept in a box.

  plots.boxed = function (t) {
    const { CONTAINERS, FINDS, INDOORS, OUTDOORS } = GPT2.WORDS;
    t.say(` ${t.hero.his}`);
    const it = t.see();
    t.say(" into a");
    const box = t.some(CONTAINERS, ".\nBut");
    const b = t.friend();
    let inside = `The ${it.full}`;
    let hideout = null;
    if (t.either(` took ${it.it} out, hid ${it.it}`, ` opened the ${box}`)) {
      hideout = t.place(INDOORS);
      t.say(" and put ");
      inside = GPT2.capital(t.one(...FINDS));
      t.say(` in the ${box} instead.`);
    } else {
      t.one(
        `, said good night to the ${it.name}`,
        `, gave the ${it.name} a kiss`,
      );
      t.say(" and shut it again.");
    }
    t.say(" Then");
    const old = t.relative();
    t.say(` carried the ${box} to`);
    const now = t.place(OUTDOORS, { spot: true });
    t.say(
      `.\n"Where is my ${box}?" "${GPT2.capital(t.where(now))},"`,
      ` said ${old.name}. And what was inside? ${inside}.`,
    );
    if (hideout)
      t.say(
        ` "And my ${it.name}?" "${GPT2.capital(t.where(hideout))},"`,
        ` said ${b.name}.`,
      );
    t.coda();
  };
})((globalThis.GPT2 ??= {}));
