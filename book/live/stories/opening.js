// How a story begins and leads into one of the plots:
// `gpt2/stories/opening.py`.
(function (GPT2) {
  "use strict";

  /** The first words of each plot, and the plot. */
  const plots = () => ({
    " could not find": GPT2.plots.lost,
    " lost": GPT2.plots.lost,
    " put": GPT2.plots.hidden,
    " packed": GPT2.plots.boxed,
    " hid": GPT2.plots.guessing,
    " heard a strange noise": GPT2.plots.noise,
    " borrowed": GPT2.plots.borrowed,
    " wanted": GPT2.plots.wished,
    " picked": (t) => GPT2.plots.counting(t, "picked"),
    " baked": (t) => GPT2.plots.counting(t, "baked"),
    " found": (t) => GPT2.plots.counting(t, "found"),
    " had": GPT2.plots.swapping,
    " set out to take": GPT2.plots.journey,
  });

  /** Tell one story from beginning to end. */
  GPT2.tell = function (t) {
    const form = begin(t);
    const more = { name: [" lived in a", ", who"], once: [] }[form];
    const starts = Object.keys(plots());
    let start = t.one(...starts, ...(more ?? [", who"]));
    if (start === ", who") {
      t.trait = t.some(GPT2.WORDS.TRAITS, ",");
      start = t.one(...starts);
    } else if (start === " lived in a") {
      home(t);
      t.one(" One day", " Yesterday");
      t.say(` ${t.hero.he}`);
      start = t.one(...starts);
    }
    plots()[start](t);
  };

  /** Introduce the hero: the form of the opening. */
  function begin(t) {
    const { NAMES, TIMES, TRAITS, WEATHERS } = GPT2.WORDS;
    const beginnings = [
      ["one", "One"],
      ["it", "It was"],
      ["once", "There was once a"],
      ...WEATHERS.map((weather) => ["sky", weather.now, weather]),
      ...NAMES.map((person) => ["name", person.name, person]),
    ];
    const [form, , known] = t.pick(beginnings, ([, text]) => text);
    if (form === "name") t.people.push(known);
    else if (form === "once") {
      const girl = t.either(" girl called", " boy called");
      const hero = t.meet(NAMES.filter(({ she }) => she === girl));
      t.say(", who");
      t.trait = t.some(TRAITS, `. One day ${hero.he}`);
    } else if (form === "sky") {
      t.weather = known;
      t.say(", and");
      t.meet(NAMES);
    } else {
      const sky = ({ adjective }) =>
        ` ${form === "one" ? adjective.split(" ")[1] : adjective}`;
      t.weather = t.pick(WEATHERS, sky);
      t.time = t.some(Object.keys(TIMES), form === "one" ? "," : ", and");
      t.meet(NAMES);
    }
    return form;
  }

  /** Tell where the hero lives, and perhaps with which pet. */
  function home(t) {
    t.home = t.some(GPT2.WORDS.HOMES);
    if (t.either(" with", ".")) {
      const animal = t.animal({ article: true });
      t.say(" called");
      t.pet = { name: t.some(GPT2.WORDS.PETS, "."), animal };
    }
  }
})((globalThis.GPT2 ??= {}));
