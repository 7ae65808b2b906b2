// <gpt2-live figure="…">: a figure that the reader can touch. This script is
// all that a page loads; the kit, the figure, the engine and the model follow
// when the reader asks for them.
(function (GPT2) {
  "use strict";

  // The folder that has this one, `_static/live/`.
  GPT2.root ??= new URL("..", document.currentScript.src).href;
  GPT2.figures = {};

  const loaded = new Map();

  /** Load a script of the book's own, once. */
  function load(path) {
    if (!loaded.has(path))
      loaded.set(
        path,
        new Promise((done, failed) => {
          const script = document.createElement("script");
          script.src = GPT2.root + path;
          script.onload = done;
          script.onerror = () => {
            loaded.delete(path);
            script.remove();
            failed(new Error(`${path} cannot be loaded`));
          };
          document.head.append(script);
        }),
      );
    return loaded.get(path);
  }

  function make(tag, kind, text = "") {
    const element = document.createElement(tag);
    element.className = kind;
    element.textContent = text;
    return element;
  }

  let count = 0;

  /**
   * Its attributes: `figure`, the name of a file of this folder; `label`, its
   * title; `try`, what to try; `text`, what it begins with; `model`, which of
   * the shipped models it is about, or `none`. What stands inside is the
   * still.
   */
  class Figure extends HTMLElement {
    connectedCallback() {
      if (this.start) return;
      const still = make("div", "live-still");
      still.append(...this.childNodes);
      const title = make("p", "live-title", this.getAttribute("label"));
      title.id = `live-title-${count++}`;
      const words = make("div", "live-words");
      words.append(title, make("p", "live-try", this.getAttribute("try")));
      this.start = make("button", "live-button live-start", "Touch it");
      this.start.type = "button";
      this.start.setAttribute("aria-describedby", title.id);
      this.start.addEventListener("click", () => this.begin());
      const head = make("div", "live-head");
      head.append(words, this.start);
      this.said = make("p", "live-status");
      this.said.setAttribute("role", "status");
      this.body = make("div", "live-body");
      this.setAttribute("role", "group");
      this.setAttribute("aria-labelledby", title.id);
      this.replaceChildren(head, still, this.said, this.body);
    }

    /** Load what the figure needs, and put it in the place of the still. */
    async begin() {
      this.start.disabled = true;
      this.said.textContent = "Reading the model …";
      try {
        const name = this.getAttribute("figure");
        const needed = ["machine", "figures/kit", `figures/${name}`];
        await Promise.all(needed.map((path) => load(`${path}.js`)));
        const model = this.getAttribute("model") ?? "story";
        const machine = model === "none" ? null : await GPT2.machine(model);
        await this.draw(machine);
        machine?.addEventListener("model", () => this.draw(machine));
        this.said.textContent = "";
        this.start.remove();
        this.classList.add("live-started");
        this.tabIndex = -1; // the button had the focus and is gone
        this.focus({ preventScroll: true });
      } catch (error) {
        this.start.disabled = false;
        this.said.textContent = error.message;
      }
    }

    /** Draw the figure for a machine, from the beginning. */
    async draw(machine) {
      const body = make("div", "live-body");
      const name = this.getAttribute("figure");
      await GPT2.figures[name](body, machine, {
        text: this.getAttribute("text") ?? "",
      });
      this.body.replaceWith(body);
      this.body = body;
    }
  }

  // The page is painted before the frames of the figures are.
  const style = document.createElement("link");
  style.rel = "stylesheet";
  style.href = `${GPT2.root}figures/style.css`;
  style.onload = () => customElements.define("gpt2-live", Figure);
  document.head.append(style);
})((globalThis.GPT2 ??= {}));
