// What a page of the book loads: the machine that its figures share. The
// engine and the model are fetched at the first call. See README.md.
(function (GPT2) {
  "use strict";

  const machines = new Map(); // promises by the name of the model
  const scripts = new Map(); // promises by address
  GPT2.shipped ??= {};

  /** The shared machine with a shipped model: a promise of a `Machine`. */
  GPT2.machine = function (name = "story") {
    if (!machines.has(name)) {
      const promise = start(name);
      machines.set(name, promise);
      promise.catch(() => machines.delete(name)); // so that one may try again
    }
    return machines.get(name);
  };

  async function start(name) {
    const waiting = [];
    if (!GPT2.engine) waiting.push(loadScript("engine.js"));
    if (!GPT2.shipped[name]) waiting.push(loadScript(`${name}.js`));
    await Promise.all(waiting);
    const files = { ...GPT2.shipped[name] };
    if (!Object.keys(files).length) throw new Error(`no model ${name} ships`);
    const machine = new Machine(name, files);
    try {
      await machine.open();
    } catch (error) {
      machine.close();
      throw error;
    }
    return machine;
  }

  /** Run a classic script, since modules and `fetch` need a server. */
  function loadScript(path) {
    const own = document.documentElement.dataset.content_root ?? "";
    const address = (GPT2.root ?? `${own}_static/live/`) + path;
    if (!scripts.has(address))
      scripts.set(
        address,
        new Promise((resolve, reject) => {
          const script = document.createElement("script");
          script.src = address;
          script.onload = resolve;
          script.onerror = () => {
            scripts.delete(address);
            reject(new Error(`${address} cannot be loaded`));
          };
          document.head.append(script);
        }),
      );
    return scripts.get(address);
  }

  // The two kinds of lines to a session: `send` a message, `end` it.

  /** To a Worker, which is made of the engine's own source. */
  function workerLine(receive, fail) {
    const source = `(${GPT2.engine})();\nGPT2.serve(self);\n`;
    const blob = new Blob([source], { type: "text/javascript" });
    const address = URL.createObjectURL(blob);
    const worker = new Worker(address);
    worker.onmessage = (event) => receive(event.data);
    worker.onerror = (event) => {
      event.preventDefault();
      fail(new Error(event.message || "the Worker has ended"));
    };
    return {
      worker: true,
      send({ method, args: [first, ...rest] }) {
        const isFiles = Array.isArray(first) && first[0] instanceof Blob;
        if (!isFiles) {
          worker.postMessage({ method, args: [first, ...rest] });
          return;
        }
        const port = reader(first);
        const named = first.map(({ name, size }) => ({ name, size }));
        worker.postMessage({ method, args: [named, ...rest], port }, [port]);
      },
      end() {
        worker.terminate();
        URL.revokeObjectURL(address);
      },
    };
  }

  /**
   * Read files for a Worker, which sends the number of one, and from where to
   * where: not every browser lets Workers read them on a page from `file://`.
   */
  function reader(files) {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = async ({ data: [i, from, to], ports: [answer] }) => {
      try {
        const bytes = await files[i].slice(from, to).arrayBuffer();
        answer.postMessage({ bytes }, [bytes]);
      } catch (error) {
        answer.postMessage({ error: error.message });
      }
    };
    return port2;
  }

  /** Within this page, where Workers are missing or forbidden. */
  function pageLine(receive) {
    GPT2.engine();
    const session = new GPT2.Session();
    return {
      worker: false,
      // Not at once: between two requests the page can be drawn.
      send: (message) =>
        setTimeout(() => GPT2.answer(session, message, receive)),
      end: () => {},
    };
  }

  // How each kind of edit finds its numbers in a trace.
  const RECORDED = { head: "mixed" };

  /**
   * Put the numbers that an edit needs in place of the traces that have them.
   *
   * @returns {object} The edit with `to`, or with `rows` (T, width).
   */
  function resolve({ to = "zero", ...edit }) {
    if (edit.part === "link") return edit;
    if (typeof to === "string") return { ...edit, to };
    const traces = Array.isArray(to) ? to : [to];
    const name = RECORDED[edit.part] ?? edit.part;
    const all = traces.map((trace) => {
      const recorded = trace?.[name]?.[edit.layer];
      if (!recorded)
        throw new Error(
          `the trace has no ${name} of layer ${edit.layer}; record it`,
        );
      const T = trace.ids.length;
      if (edit.part !== "head") return recorded;
      const D = recorded.length / (T * trace.config.n_head);
      return recorded.slice(edit.head * T * D, (edit.head + 1) * T * D);
    });
    const T = Math.min(...traces.map((trace) => trace.ids.length));
    const width = all[0].length / traces[0].ids.length;
    const rows = new Float32Array(T * width);
    for (const one of all)
      for (let i = 0; i < rows.length; i++) rows[i] += one[i] / all.length;
    return { ...edit, rows };
  }

  class Machine extends EventTarget {
    #files; // the shipped ones
    #name;
    #line;
    #waiting = []; // requests, of which the first is being answered
    #answered = false; // whether there has ever been an answer
    #closed = null;

    constructor(name, files) {
      super();
      this.#name = name;
      this.#files = files;
      try {
        this.#line = workerLine(
          (message) => this.#receive(message),
          (error) => this.#fail(error),
        );
      } catch {
        this.#stayInPage();
      }
    }

    #ask(method, args, { signal, onProgress } = {}) {
      return new Promise((resolve, reject) => {
        if (this.#closed) return reject(this.#closed);
        const request = { method, args, signal, onProgress, resolve, reject };
        this.#waiting.push(request);
        if (this.#waiting.length === 1) this.#send();
      });
    }

    /** Send the first request that nobody has given up. */
    #send() {
      while (this.#waiting[0]?.signal?.aborted) {
        const request = this.#waiting.shift();
        request.reject(request.signal.reason);
      }
      const first = this.#waiting[0];
      if (!first) return;
      try {
        this.#line.send({ method: first.method, args: first.args });
      } catch (error) {
        this.#receive({ error: error.message });
      }
    }

    #stayInPage() {
      this.#line = pageLine((message) => this.#receive(message));
    }

    #receive({ progress, error, info, result }) {
      if (progress) return this.#waiting[0]?.onProgress?.(progress);
      this.#answered = true;
      const request = this.#waiting.shift();
      if (info) this.#describe(info); // another model than was asked for
      if (error !== undefined) request?.reject(new Error(error));
      else request?.resolve(result);
      this.#send();
    }

    #describe(info) {
      this.info = { ...info, worker: this.#line.worker };
      this.dispatchEvent(new Event("model"));
    }

    #fail(error) {
      this.#line.end();
      if (!this.#answered) {
        // The Worker has not even begun: some pages forbid them.
        this.#stayInPage();
        return this.#send();
      }
      this.#stop(error);
    }

    #stop(error) {
      this.#closed = error;
      for (const request of this.#waiting.splice(0)) request.reject(error);
      machines.delete(this.#name);
    }

    close() {
      if (this.#closed) return;
      this.#line.end();
      this.#stop(new Error("the machine is closed"));
    }

    // Text and tokens.
    encode(text, { special = false, ...rest } = {}) {
      return this.#ask("encode", [text, special], rest);
    }
    encodePrompt(text, { special = false, ...rest } = {}) {
      return this.#ask("encodePrompt", [text, special], rest);
    }
    decode(ids) {
      return this.#ask("decode", [Array.from(ids)]);
    }
    texts(ids) {
      return this.#ask("texts", [Array.from(ids)]);
    }
    spell(ids) {
      return this.#ask("spell", [Array.from(ids)]);
    }
    split(text) {
      return this.#ask("split", [text]);
    }
    steps(piece) {
      return this.#ask("steps", [piece]);
    }

    checkStory(text) {
      return this.#ask("checkStory", [text]);
    }

    // The model.
    async predict(ids, { k = 10, sampling = {}, edits = [], ...rest } = {}) {
      const options = { k, sampling, edits: edits.map(resolve) };
      return this.#ask("predict", [Array.from(ids), options], rest);
    }
    async run(ids, { record = [], edits = [], ...rest } = {}) {
      const options = { record, edits: edits.map(resolve) };
      return this.#ask("run", [Array.from(ids), options], rest);
    }
    unembed(x, { norm = true, ...rest } = {}) {
      return this.#ask("unembed", [Float32Array.from(x), norm], rest);
    }
    top(x, { k = 10, norm = true, ...rest } = {}) {
      return this.#ask("top", [Float32Array.from(x), k, norm], rest);
    }
    vectors(table, indices, rest) {
      return this.#ask("vectors", [table, indices && [...indices]], rest);
    }
    nearest(x, { k = 10, table = "token", ...rest } = {}) {
      return this.#ask("nearest", [Float32Array.from(x), k, table], rest);
    }
    votes(ids, { id, against, position, ...rest } = {}) {
      const options = { id, against, position };
      return this.#ask("votes", [Array.from(ids), options], rest);
    }
    pace() {
      return this.#ask("pace", []);
    }
    async *generate(ids, { length, edits = [], signal, ...options } = {}) {
      const all = { ...options, edits: edits.map(resolve) };
      const key = await this.#ask("begin", [Array.from(ids), all], { signal });
      try {
        for (let left = length ?? Infinity; left > 0;) {
          const some = await this.#ask("step", [key, left], { signal });
          for (const next of some) {
            if (next === null) return;
            yield next;
            left--;
          }
        }
      } finally {
        if (!this.#closed) this.#ask("end", [key]).catch(() => {});
      }
    }

    // The reader's own model.
    inspect(files, { dtype, ...rest } = {}) {
      return this.#ask("inspect", [inOrder(files), dtype], rest);
    }
    async open(files, { dtype, name = "your model", ...rest } = {}) {
      const shipped = { name: this.#name, files: this.#files };
      const args = files
        ? [inOrder(files), { name, dtype, shipped }]
        : [this.#files, { name: this.#name, shipped }];
      this.#describe(await this.#ask("open", args, rest));
      return this.info;
    }
  }

  /**
   * Files in such an order that of those with the same name the last is the
   * one to take: that of the outermost folder.
   */
  function inOrder(files) {
    const depth = (file) => (file.webkitRelativePath ?? "").split("/").length;
    return Array.from(files).sort((a, b) => depth(b) - depth(a));
  }
})((globalThis.GPT2 ??= {}));
