// The memory of a story, as in `gpt2/stories/memory.py`. Here nothing is drawn
// and nothing asked, so there are no probabilities, and texts have no marks.
(function (GPT2) {
  "use strict";

  GPT2.aOrAn = (word) => ("aeiou".includes(word[0]) ? "an" : "a");
  GPT2.capital = (text) => text[0].toUpperCase() + text.slice(1);

  /** A thing with its adjective, and the words that must agree with it. */
  function thing(noun, adjective) {
    const { word, many } = noun;
    const full = `${adjective} ${word}`;
    return {
      ...{ noun, adjective, full, name: word },
      a_full: `${many ? "some" : GPT2.aOrAn(adjective)} ${full}`,
      it: many ? "them" : "it",
      they: many ? "they" : "it",
      They: many ? "They" : "It",
      was: many ? "were" : "was",
      be: many ? "are" : "is",
    };
  }

  /** A story being read: everything told so far, and what may come. */
  GPT2.Story = class {
    people = []; // in order of appearance; the first is the hero
    noun = null; // the last thing
    places = [];
    weather = null;
    time = "";
    home = "";
    pet = null; // its name and animal
    trait = "";
    #reader;

    constructor(reader) {
      this.#reader = reader;
    }

    get hero() {
      return this.people[0];
    }

    // Choosing.

    say(...parts) {
      this.#reader.choose([parts.join("")]);
    }

    /** Tell the text of one of several values: the value. */
    pick(values, form) {
      return values[this.#reader.choose(values.map(form))];
    }

    /** Tell one of several texts: the text. */
    one(...texts) {
      return this.pick(texts, (text) => text);
    }

    /** Tell one of two texts: whether it is the first. */
    either(first, second) {
      return this.one(first, second) === first;
    }

    /** Tell one of a list, after a space: the one. */
    some(texts, end = "") {
      const told = this.pick(texts, (text) => ` ${text}`);
      if (end) this.say(end);
      return told;
    }

    /** Tell one of several numbers in words: the number. */
    number(...numbers) {
      return this.pick(numbers, (n) => ` ${GPT2.WORDS.NUMBERS[n]}`);
    }

    // Introducing people, things and places.

    /** Tell the name of a new person. */
    meet(among) {
      const person = this.pick(among, ({ name }) => ` ${name}`);
      this.people.push(person);
      return person;
    }

    /** A boy if the hero is a girl, and vice versa. */
    friend() {
      const { NAMES } = GPT2.WORDS;
      return this.meet(NAMES.filter(({ she }) => she !== this.hero.she));
    }

    relative() {
      return this.meet(GPT2.WORDS.RELATIVES);
    }

    /**
     * Tell a new thing, ` red kite`, of the group after the last thing's; with
     * an article, ` a red kite`, the article says whether it is plural.
     */
    see({ article = false, onlyOne = false } = {}) {
      const { ADJECTIVES, NEXT_GROUP, THINGS } = GPT2.WORDS;
      const looks = Object.keys(ADJECTIVES).flatMap((adjective) => {
        if (!article) return [{ adjective, text: ` ${adjective}` }];
        const an = GPT2.aOrAn(adjective);
        const one = { adjective, many: false, text: ` ${an} ${adjective}` };
        const some = { adjective, many: true, text: ` some ${adjective}` };
        return onlyOne ? [one] : [one, some];
      });
      const { adjective, many } = this.pick(looks, ({ text }) => text);
      const group = this.noun && NEXT_GROUP[this.noun.group];
      const nouns = THINGS.filter(
        (noun) =>
          [null, noun.group].includes(group) &&
          [undefined, noun.many].includes(many),
      );
      this.noun = this.pick(nouns, ({ word }) => ` ${word}`);
      return thing(this.noun, adjective);
    }

    /** Tell a new place, ` in the barn`, or its `spot` alone, ` the barn`. */
    place(among = GPT2.WORDS.PLACES, { spot = false } = {}) {
      const form = (place) => ` ${spot ? place.spot : this.where(place)}`;
      const place = this.pick(among, form);
      this.places.push(place);
      return place;
    }

    where({ where, spot }) {
      return `${where} ${spot}`;
    }

    /** Tell an animal, ` duck` or ` a duck`. */
    animal({ article = false } = {}) {
      return this.pick(Object.keys(GPT2.WORDS.ANIMALS), (animal) =>
        article ? ` ${GPT2.aOrAn(animal)} ${animal}` : ` ${animal}`,
      );
    }

    // Sentences that fit in many places.

    /** Close a quote and tell who spoke, `," said Ella.` */
    speak({ name }, end = ".") {
      this.say(`," said ${name}${end}`);
    }

    /**
     * End by referring to how the story began, if there is anything to refer
     * to; `other` is a text that can come instead.
     *
     * @returns {boolean} Whether `other` was told.
     */
    coda({ sameDay = true, other } = {}) {
      const { name, he } = this.hero;
      const { trait, weather, time, home, pet } = this;
      const trip = `\nThen ${name} went home to the ${home}`;
      const told =
        pet && ` and told ${pet.name} the ${pet.animal} all about it`;
      const ways = [
        other && ["other", other],
        trait && ["trait", `\nAs for ${name}`],
        sameDay && weather && ["weather", `\nOutside, ${weather.still}.`],
        sameDay && time && ["day", `\nIt had been a very good ${time}.`],
        home && ["home", `${trip}${told ?? ""}.`],
      ].filter(Boolean);
      if (!ways.length) return false;
      const all = [...ways, ["night", `\nAnd ${name}`]];
      const [way] = this.pick(all, ([, text]) => text);
      if (way === "trait") this.say(`, who ${trait}, ${he}`);
      if (way === "trait" || way === "night")
        this.some(GPT2.WORDS.NIGHTS, ".");
      return way === "other";
    }
  };
})((globalThis.GPT2 ??= {}));
