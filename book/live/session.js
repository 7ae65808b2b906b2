// The other end of the machine: one model and its tokenizer, and what can be
// asked of them. It runs in a Worker, or in the page where there are none.
(function (GPT2) {
  "use strict";

  /**
   * Bytes in memory as a file that can be read. A Blob would do, but Workers
   * of WebKit cannot read one on a page from `file://`.
   */
  class Bytes {
    constructor(bytes) {
      this.bytes = bytes;
      this.size = bytes.length;
    }
    slice(from, to) {
      return new Bytes(this.bytes.subarray(from, to));
    }
    async arrayBuffer() {
      return this.bytes.slice().buffer;
    }
  }

  /** A file of the page, which reads it for a Worker: see `machine.js`. */
  class Distant {
    constructor(port, number, { name, size }, from = 0) {
      Object.assign(this, { port, number, name, size, from });
    }
    slice(from, to) {
      const size = Math.min(to, this.size) - from;
      return new Distant(this.port, this.number, { size }, this.from + from);
    }
    arrayBuffer() {
      const { port1, port2 } = new MessageChannel();
      const end = this.from + this.size;
      this.port.postMessage([this.number, this.from, end], [port2]);
      return new Promise((resolve, reject) => {
        port1.onmessage = ({ data: { bytes, error } }) => {
          port1.close();
          if (bytes) resolve(bytes);
          else reject(new Error(error));
        };
      });
    }
  }

  /** A shipped model's files, which are strings, as what a reader opens. */
  function unpack(files) {
    const encoder = new TextEncoder();
    const bytesOf = (name, text) =>
      name.endsWith(".safetensors")
        ? GPT2.fromBase64(text)
        : encoder.encode(text);
    return new Map(
      Object.entries(files).map(([name, text]) => [
        name,
        new Bytes(bytesOf(name, text)),
      ]),
    );
  }

  GPT2.fromBase64 = function (text) {
    if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
    const characters = atob(text);
    const bytes = new Uint8Array(characters.length);
    for (let i = 0; i < bytes.length; i++) bytes[i] = characters.charCodeAt(i);
    return bytes;
  };

  // So long may a generation go on before it hands over its tokens, in ms: a
  // figure gets them sooner than it can draw, and others can ask in between.
  const BURST = 8;

  class Session {
    #model = null;
    #tokenizer = null;
    #memory = undefined; // in which all models lie, one after the other
    #known = []; // the ids whose keys and values are in the cache
    #running = new Map(); // generations, by number
    #count = 0;

    // The model.

    async inspect(files, dtype) {
      const { plan } = await GPT2.readFolder(asMap(files), dtype);
      return plan;
    }

    async open(files, { name, dtype, shipped }, onProgress) {
      const folder = Array.isArray(files) ? asMap(files) : unpack(files);
      const found = await GPT2.readFolder(folder, dtype); // or all stays
      this.#forget();
      try {
        return await this.#fill(folder, found, { name, dtype, onProgress });
      } catch (error) {
        if (files !== shipped.files) error.info = await this.#restore(shipped);
        throw error;
      }
    }

    async #restore({ name, files }) {
      const folder = unpack(files);
      const found = await GPT2.readFolder(folder);
      return this.#fill(folder, found, { name });
    }

    async #fill(folder, found, { name, dtype, onProgress }) {
      const options = { dtype, onProgress, memory: this.#memory };
      this.#model = await GPT2.readModel(folder, found, options);
      this.#memory = this.#model.math.memory;
      this.#tokenizer = found.tokenizer;
      const { n_vocab, start, end, tokens, added } = found.tokenizer;
      const { config, parameters, bytes } = found.plan;
      return {
        name,
        config,
        parameters,
        bytes,
        kernels: this.#model.math.kind,
        tokenizer: {
          ...{ n_vocab, start, end },
          added: [...added].map((id) => tokens[id]),
        },
      };
    }

    #forget() {
      this.#model = this.#tokenizer = null;
      this.#known = [];
      this.#running.clear();
    }

    // Text and tokens.

    encode(text, special) {
      return this.#tokenizer.encode(text, special);
    }
    encodePrompt(text, special) {
      return this.#tokenizer.encodePrompt(text, special);
    }
    decode(ids) {
      return this.#tokenizer.decode(ids);
    }
    texts(ids) {
      return ids.map((id) => this.#text(id));
    }
    spell(ids) {
      return ids.map((id) => this.#tokenizer.tokens[id] ?? "");
    }
    split(text) {
      return this.#tokenizer.split(text);
    }
    steps(piece) {
      return this.#tokenizer.steps(piece);
    }

    /** Rows that pad a table beyond the vocabulary stand for no text. */
    #text(id) {
      const { tokens } = this.#tokenizer;
      return id < tokens.length ? this.#tokenizer.decode([id]) : "";
    }

    checkStory(text) {
      return GPT2.checkStory(text);
    }

    // Numbers.

    /** The logits after the last token, of the tokens that there are (V). */
    #next(ids, edits) {
      const V = this.#tokenizer.n_vocab;
      if (edits.length) {
        this.#known = []; // the cache has what the edits have made
        const watch = GPT2.watcher(this.#model, ids.length, {}, [], edits);
        const options = { lastOnly: true, watch };
        return this.#model.logits(ids, options).subarray(0, V);
      }
      // Keys and values of the tokens that are the same as the last time are
      // still in the cache.
      let same = 0;
      const most = Math.min(this.#known.length, ids.length - 1);
      while (same < most && this.#known[same] === ids[same]) same++;
      this.#known = [];
      const options = { past: same, lastOnly: true };
      const logits = this.#model.logits(ids.slice(same), options);
      this.#known = [...ids];
      return logits.subarray(0, V);
    }

    predict(ids, { k, sampling, edits }) {
      const logits = this.#next(ids, edits);
      const chances = GPT2.distribution(logits, sampling, ids);
      const probabilities = GPT2.softmax(Float64Array.from(logits));
      const candidates = GPT2.largest(logits, k).map((id) => ({
        id,
        text: this.#text(id),
        logit: logits[id],
        probability: probabilities[id],
        chance: chances[id],
      }));
      return { candidates, sampling };
    }

    run(ids, { record, edits }) {
      const trace = { ids, config: this.#model.config };
      const watch = GPT2.watcher(
        this.#model,
        ids.length,
        trace,
        record,
        edits,
      );
      this.#known = [];
      const lastOnly = !record.includes("logits");
      const logits = this.#model.logits(ids, { lastOnly, watch });
      if (!lastOnly) trace.logits = logits;
      trace.last = logits.slice(-this.#model.config.n_vocab);
      return trace;
    }

    unembed(x, norm) {
      return this.#model.read(x, norm);
    }

    top(x, k, norm) {
      const { n_embd: C } = this.#model.config;
      const V = this.#tokenizer.n_vocab;
      const found = [];
      for (let at = 0; at < x.length; at += C) {
        const one = x.subarray(at, at + C);
        const logits = this.#model.read(one, norm).subarray(0, V);
        const probabilities = GPT2.softmax(Float64Array.from(logits));
        found.push(
          GPT2.largest(logits, k).map((id) => ({
            id,
            text: this.#text(id),
            logit: logits[id],
            probability: probabilities[id],
          })),
        );
      }
      return found;
    }

    #table(name) {
      const tables = { token: this.#model.wte, position: this.#model.wpe };
      if (!Object.hasOwn(tables, name))
        throw new Error(`table must be token or position; got ${name}`);
      return tables[name];
    }

    vectors(name, indices) {
      const table = this.#table(name);
      indices ??= Array.from({ length: table.N }, (_, i) => i);
      for (const i of indices)
        if (!(Number.isInteger(i) && i >= 0 && i < table.N))
          throw new Error(`the table has no row ${i}`);
      return this.#model.rows(table, indices);
    }

    nearest(x, k, name) {
      const table = this.#table(name);
      const isToken = name === "token";
      const N = isToken ? this.#tokenizer.n_vocab : table.N;
      const cosines = GPT2.cosines(this.#model, x, table).subarray(0, N);
      return GPT2.largest(cosines, k).map((id) => ({
        id,
        ...(isToken && { text: this.#text(id) }),
        cosine: cosines[id],
      }));
    }

    votes(ids, { id, against, position = ids.length - 1 }) {
      this.#known = [];
      return GPT2.votes(this.#model, ids, id, against, position);
    }

    /** The milliseconds that a token takes: the least of a few tries. */
    pace() {
      this.#known = [];
      const { n_ctx } = this.#model.config;
      const times = [];
      for (let past = 0; past < Math.min(6, n_ctx); past++) {
        const start = performance.now();
        this.#model.logits([0], { past, lastOnly: true });
        times.push(performance.now() - start);
      }
      return Math.min(...times);
    }

    // Generation, a token at a time.

    begin(ids, { sampling = {}, seed, edits, end = true }) {
      GPT2.distribution(Float32Array.of(0), sampling); // checks the settings
      const random = seed === undefined ? Math.random : GPT2.seeded(seed);
      const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
      const state = { ids: [...ids], sampling, random, edits, end, decoder };
      this.#running.set(++this.#count, state);
      return this.#count;
    }

    /**
     * The next tokens of a generation: as many as a few milliseconds give, and
     * `null` after the last.
     */
    step(number, most) {
      const state = this.#running.get(number);
      if (!state) throw new Error("another model has been opened meanwhile");
      const until = performance.now() + BURST;
      const found = [];
      do found.push(this.#draw(state));
      while (
        found.at(-1) !== null &&
        found.length < most &&
        performance.now() < until
      );
      return found;
    }

    #draw(state) {
      const { ids, sampling, random, edits, decoder } = state;
      if (ids.length >= this.#model.config.n_ctx) return null;
      const logits = this.#next(ids, edits);
      const chances = GPT2.distribution(logits, sampling, ids);
      const id = GPT2.draw(chances, random());
      if (state.end && id === this.#tokenizer.end) return null;
      ids.push(id);
      const bytes = this.#tokenizer.bytes(id);
      const text = decoder.decode(bytes, { stream: true });
      return { id, text, probability: chances[id] };
    }

    end(number) {
      this.#running.delete(number);
    }
  }

  function asMap(files) {
    return new Map(files.map((file) => [file.name, file]));
  }

  GPT2.Session = Session;

  /** Answer one request: `receive` gets progress, and the result or error. */
  GPT2.answer = async function (session, { method, args }, receive) {
    const onProgress = (progress) => receive({ progress });
    try {
      const result = await session[method](...args, onProgress);
      receive({ result });
    } catch (error) {
      receive({ error: error.message, info: error.info });
    }
  };

  /** In a Worker: answer what the page asks. */
  GPT2.serve = function (scope) {
    const session = new Session();
    scope.onmessage = ({ data: { method, args, port } }) => {
      if (port)
        args[0] = args[0].map((file, i) => new Distant(port, i, file));
      GPT2.answer(session, { method, args }, (message) =>
        scope.postMessage(message, buffers(message.result)),
      );
    };
  };

  /** The memory in a result that can be moved instead of copied. */
  function buffers(result) {
    const found = new Set();
    const visit = (value) => {
      if (ArrayBuffer.isView(value)) found.add(value.buffer);
      else if (Array.isArray(value)) {
        if (typeof value[0] === "object") value.forEach(visit);
      } else if (value && typeof value === "object")
        Object.values(value).forEach(visit);
    };
    visit(result);
    return [...found];
  }
})((globalThis.GPT2 ??= {}));
