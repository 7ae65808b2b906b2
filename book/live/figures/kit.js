// What the live figures are made of: text fields, sliders, token chips, bars,
// heat maps, curves. Every part is an object with `root`, the element, and
// `show`, which brings it up to date and keeps its elements, and so the focus.
(function (GPT2) {
  "use strict";

  /** Create an element; an attribute `on…` is a listener. */
  function h(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value === undefined || value === null || value === false) continue;
      if (name.startsWith("on"))
        element.addEventListener(name.slice(2), value);
      else element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...children.flat().filter((child) => child !== null));
    return element;
  }

  /** Create an SVG element, in the same way. */
  function svg(tag, attributes = {}, ...children) {
    const space = "http://www.w3.org/2000/svg";
    const element = document.createElementNS(space, tag);
    for (const [name, value] of Object.entries(attributes))
      if (name.startsWith("on"))
        element.addEventListener(name.slice(2), value);
      else if (value !== null) element.setAttribute(name, value);
    element.append(...children);
    return element;
  }

  // An id. In a notebook, each figure brings this script once more.
  const unique = () => `live-${(GPT2.count = (GPT2.count ?? 0) + 1)}`;

  /** A token's text with visible spaces and line breaks. */
  const shown = (text) =>
    text.replaceAll(" ", "␣").replaceAll("\n", "↵") || "∅";

  function number(value, digits = 2) {
    const text = value.toFixed(digits);
    if (Number(text) === 0) return text.replace("-", ""); // no minus zero
    return text.replace("-", "\u2212");
  }

  function percent(p) {
    if (p > 0 && p < 0.0005) return "< 0.1%";
    if (p < 1 && p >= 0.9995) return "> 99.9%";
    return `${(100 * p).toFixed(1)}%`;
  }

  /** Probabilities from logits. */
  function softmax(logits) {
    let highest = -Infinity;
    for (const logit of logits) highest = Math.max(highest, logit);
    const p = Float64Array.from(logits, (logit) => Math.exp(logit - highest));
    const sum = p.reduce((all, power) => all + power, 0);
    return p.map((power) => power / sum);
  }

  /**
   * Make elements of a list agree with data: create what is missing, remove
   * what is too much, and let `update(element, item, i)` do the rest.
   */
  function each(parent, items, create, update) {
    while (parent.children.length > items.length) parent.lastChild.remove();
    while (parent.children.length < items.length)
      parent.append(create(parent.children.length));
    items.forEach((item, i) => update(parent.children[i], item, i));
  }

  /**
   * Wrap an asynchronous function so that its calls do not overlap: while one
   * runs, only the last of those that came in the meantime waits for it.
   */
  function latest(run) {
    let waiting = null;
    let running = null;
    const work = async () => {
      while (waiting) {
        const given = waiting;
        waiting = null;
        await run(...given);
      }
    };
    return (...given) => {
      waiting = given;
      running ??= work().finally(() => (running = null));
      return running;
    };
  }

  function textField({ label, value, change, size = "wide" }) {
    const id = unique();
    const input = h("input", {
      id,
      type: "text",
      value,
      autocomplete: "off",
      autocapitalize: "off",
      spellcheck: "false",
      oninput: () => change(input.value),
    });
    const name = h("label", { for: id }, label);
    const root = h("div", { class: `live-field live-${size}` }, name, input);
    return { root, input, show: (text) => (input.value = text) };
  }

  function slider({ label, min, max, step, value, form = String, change }) {
    const id = unique();
    const output = h("span", { class: "live-value", "aria-hidden": "true" });
    const input = h("input", { id, type: "range", min, max, step });
    const show = (now) => {
      input.value = now;
      const text = form(Number(input.value));
      output.textContent = text;
      input.setAttribute("aria-valuetext", text);
    };
    input.addEventListener("input", () => {
      show(input.value);
      change(Number(input.value));
    });
    show(value);
    const name = h("label", { for: id }, label);
    const root = h("div", { class: "live-slider" }, name, output, input);
    const limit = (most) => {
      input.max = most;
      show(Math.min(Number(input.value), most));
    };
    return { root, input, show, limit, value: () => Number(input.value) };
  }

  /** A list to choose from: `options` are [value, text] pairs. */
  function choice({ label, options, value, change }) {
    const id = unique();
    const select = h("select", {
      id,
      onchange: () => change(select.value),
    });
    const show = (pairs, now) => {
      select.replaceChildren(
        ...pairs.map(([key, text]) => h("option", { value: key }, text)),
      );
      select.value = now;
    };
    show(options, value);
    const name = h("label", { for: id }, label);
    const root = h("div", { class: "live-field" }, name, select);
    return { root, select, show, value: () => select.value };
  }

  function button(text, press, kind = "") {
    const attributes = { type: "button", class: `live-button ${kind}` };
    return h("button", { ...attributes, onclick: press }, text);
  }

  const row = (...children) => h("div", { class: "live-row" }, ...children);
  const columns = (...children) =>
    h("div", { class: "live-columns" }, ...children);
  const note = (...children) => h("p", { class: "live-note" }, ...children);

  /** A part with a small title over it. */
  const part = (title, ...children) =>
    h(
      "div",
      { class: "live-part" },
      h("p", { class: "live-part-title" }, title),
      ...children,
    );

  /** A line that a screen reader speaks when it changes. */
  function status() {
    const root = h("p", { class: "live-status", role: "status" });
    return {
      root,
      show(...text) {
        root.classList.remove("live-error");
        root.replaceChildren(...text);
      },
      fail(error) {
        root.classList.add("live-error");
        root.textContent = error.message ?? String(error);
      },
    };
  }

  /**
   * The tokens of a text, as boxes; with `select`, they are buttons.
   *
   * `show(tokens, {selected, shares, color})`: `shares`, from 0 to 1, deepen
   * the colour of the boxes.
   */
  function chips({ label, select, hover }) {
    const root = h("div", {
      class: "live-chips",
      role: "group",
      "aria-label": label,
    });
    const create = (i) => {
      if (!select) return h("span", { class: "live-chip" });
      const listeners = { onclick: () => select(i) };
      if (hover) {
        listeners.onpointerenter = () => hover(i);
        listeners.onfocus = () => hover(i);
      }
      return h("button", { type: "button", class: "live-chip", ...listeners });
    };
    function show(tokens, { selected, shares, color, ids } = {}) {
      each(root, tokens, create, (chip, token, i) => {
        chip.replaceChildren(shown(token));
        if (ids) chip.append(h("small", {}, String(ids[i])));
        if (select) chip.setAttribute("aria-pressed", String(i === selected));
        chip.classList.toggle("live-chip-special", token === "(end)");
        if (shares)
          chip.style.setProperty("--share", Math.min(1, shares[i] ?? 0));
        chip.classList.toggle("live-shaded", Boolean(shares));
        chip.dataset.color = color ?? "token";
      });
    }
    return { root, show };
  }

  /**
   * Horizontal bars, as a table: `show(rows)` with `label`, `value` (from 0 to
   * 1, or from -1 to 1 if `signed`), `text`, and perhaps `before` (a pale bar
   * behind it), `marked` and `color`.
   */
  function bars({ caption, head, signed = false, color = "probability" }) {
    const body = h("tbody");
    const root = h(
      "table",
      { class: `live-bars${signed ? " live-signed" : ""}` },
      h("caption", {}, caption),
      h("colgroup", {}, h("col", { class: "live-names" }), h("col")),
      h(
        "thead",
        {},
        h("tr", {}, ...head.map((name) => h("th", { scope: "col" }, name))),
      ),
      body,
    );
    const create = () =>
      h(
        "tr",
        {},
        h("th", { scope: "row" }),
        h(
          "td",
          {},
          h(
            "div",
            { class: "live-line" },
            h("div", { class: "live-before" }),
            h("div", { class: "live-bar" }),
          ),
          h("span", { class: "live-number" }),
        ),
      );
    function place(bar, value) {
      const share = Math.min(1, Math.abs(value || 0));
      bar.style.width = `${(signed ? 50 : 100) * share}%`;
      if (signed) bar.style.left = `${value < 0 ? 50 - 50 * share : 50}%`;
      bar.classList.toggle("live-negative", value < 0);
    }
    function show(rows) {
      each(body, rows, create, (line, item) => {
        line.children[0].textContent = item.label;
        const [track, text] = line.children[1].children;
        place(track.children[0], item.before ?? 0);
        place(track.children[1], item.value);
        text.textContent = item.text;
        line.dataset.color = item.color ?? color;
        line.classList.toggle("live-marked", Boolean(item.marked));
        line.classList.toggle("live-out", Boolean(item.out));
      });
    }
    return { root, show };
  }

  /** The words for a token of a machine: its text, or "(end)". */
  const named = (machine, { id, text }) =>
    id === machine.info.tokenizer.end ? "(end)" : text;

  /** A text's tokens, with what the model wants before them. */
  async function read(machine, text) {
    const ids = Array.from(await machine.encodePrompt(text));
    const texts = await machine.texts(ids);
    const names = texts.map((text, i) =>
      named(machine, { id: ids[i], text }),
    );
    return { ids, names };
  }

  /** The heads of a model, as options of a choice. */
  function headOptions({ n_layer, n_head }) {
    const layers = Array.from({ length: n_layer }, (_, layer) => layer);
    return layers.flatMap((layer) =>
      Array.from({ length: n_head }, (_, head) => {
        const name = `${layer}.${head}`;
        return [name, name];
      }),
    );
  }

  /** Bars of the likeliest next tokens, before and after a change. */
  function guesses(caption) {
    const head = ["token", "probability"];
    const table = bars({ caption, head });
    /**
     * @param {object[]} after Candidates of `machine.predict`, of which the
     *   first `n` are shown, and that which was the first before.
     * @param {object[]} before Candidates before the change.
     */
    function show(machine, after, before, n = 6) {
      const old = new Map(before.map((c) => [c.id, c.probability]));
      const first = { ...before[0], probability: 0 };
      const rows = after.slice(0, n);
      if (!rows.some(({ id }) => id === first.id))
        rows[n - 1] = after.find(({ id }) => id === first.id) ?? first;
      table.show(
        rows.map((candidate) => ({
          label: shown(named(machine, candidate)),
          value: candidate.probability,
          before: old.get(candidate.id) ?? 0,
          text: percent(candidate.probability),
        })),
      );
    }
    return { root: table.root, show };
  }

  /** Run an asynchronous update; what goes wrong is said in `status`. */
  const updating = (status, update) =>
    latest(async (...given) => {
      try {
        await update(...given);
      } catch (error) {
        status.fail(error);
      }
    });

  /**
   * A matrix as coloured cells, in a table whose numbers are there for those
   * who cannot see colours. `show({values, rows, columns, hidden, limit,
   * color, picked, numbers})`; `pick(row, column)` if cells can be pressed.
   */
  function heat({ caption, pick }) {
    const id = unique();
    const head = h("tr");
    const body = h("tbody");
    const table = h(
      "table",
      { class: "live-heat", "aria-labelledby": id },
      h("thead", {}, head),
      body,
    );
    const box = h("div", { class: "live-scroll" }, table);
    // What is wider than its box can be scrolled with the keyboard.
    const fit = () =>
      (box.tabIndex = box.scrollWidth > box.clientWidth ? 0 : -1);
    new ResizeObserver(fit).observe(box);
    const root = part(caption, box);
    root.firstChild.id = id;
    function cell(td, r, c, now) {
      const value = now.values[r * now.columns.length + c];
      const hidden = now.hidden?.(r, c) ?? false;
      const text = hidden ? "hidden" : number(value, now.digits ?? 2);
      let inside = td.firstElementChild;
      if (!inside) {
        const kind = { class: "live-cell" };
        inside = pick
          ? h("button", { ...kind, type: "button" })
          : h("span", kind);
        if (pick) inside.addEventListener("click", () => pick(r, c));
        td.append(inside);
      }
      const share = hidden ? 0 : value / (now.limit || 1);
      inside.style.setProperty("--share", Math.min(1, Math.abs(share)));
      inside.dataset.color = share < 0 ? "slate" : (now.color ?? "stream");
      inside.classList.toggle("live-masked", hidden);
      const marked = now.marked?.(r, c) ?? false;
      inside.classList.toggle("live-marked-cell", marked);
      const picked = now.picked?.[0] === r && now.picked?.[1] === c;
      inside.classList.toggle("live-picked", picked);
      const seen = now.numbers && !hidden;
      inside.replaceChildren(
        h("span", { class: seen ? "" : "live-unseen" }, text),
      );
      if (pick) {
        inside.setAttribute("aria-pressed", String(picked));
        const where = `${now.rows[r]}, ${now.columns[c]}: ${text}`;
        inside.setAttribute("aria-label", where);
      }
    }
    function show(now) {
      each(
        head,
        ["", ...now.columns],
        (i) => (i ? h("th", { scope: "col" }) : h("td")),
        (th, name) => th.replaceChildren(h("span", {}, name)),
      );
      table.classList.toggle("live-dense", now.columns.length > 8);
      each(
        body,
        now.rows,
        () => h("tr", {}, h("th", { scope: "row" })),
        (line, name, r) => {
          line.firstElementChild.textContent = name;
          line.classList.toggle("live-line-picked", now.line === r);
          const cells = line.children.length - 1;
          for (let c = cells; c < now.columns.length; c++)
            line.append(h("td"));
          for (let c = cells; c > now.columns.length; c--)
            line.lastChild.remove();
          now.columns.forEach((_, c) => cell(line.children[c + 1], r, c, now));
        },
      );
      fit();
    }
    return { root, show };
  }

  /** A vector as a square of coloured cells: amber above 0, slate below. */
  function grid({ label, point, color = "stream" }) {
    const root = h("div", { class: "live-grid", role: "img" });
    function show(vector, { limit, chosen } = {}) {
      const width = Math.ceil(Math.sqrt((vector.length * 4) / 3));
      root.style.setProperty("--columns", width);
      let most = 1e-9;
      for (const value of vector) most = Math.max(most, Math.abs(value));
      const full = limit || most;
      each(
        root,
        Array.from(vector),
        (i) =>
          h("i", point ? { onpointerenter: () => point(i) } : {}),
        (cell, value, i) => {
          const share = Math.min(1, Math.abs(value) / full);
          cell.style.setProperty("--share", share);
          cell.dataset.color = value < 0 ? "slate" : color;
          cell.classList.toggle("live-picked", i === chosen);
        },
      );
      const low = number(Math.min(...vector));
      const high = number(Math.max(...vector));
      root.setAttribute(
        "aria-label",
        `${label}: ${vector.length} numbers from ${low} to ${high}`,
      );
    }
    return { root, show };
  }

  /**
   * A line chart. `lines` have `name`, `color`, `values` (one for each of
   * `x`, from 0 to `last`); `show(i)` moves the mark to place i.
   */
  function curve({ label, x, lines, top, last, unit = "" }) {
    const [width, height, left, bottom, above] = [360, 130, 34, 20, 8];
    const right = width - 12;
    const across = (value) => left + ((right - left) * value) / last;
    const up = (value) =>
      height - bottom - ((height - bottom - above) * value) / top;
    const mark = svg("line", {
      class: "live-mark",
      y1: above,
      y2: height - bottom,
    });
    const dots = lines.map((line) =>
      svg("circle", { r: 4, "data-color": line.color }),
    );
    const path = (values) =>
      values
        .map((v, i) => `${i ? "L" : "M"}${across(x[i])} ${up(v)}`)
        .join("");
    const root = svg(
      "svg",
      {
        class: "live-curve",
        viewBox: `0 0 ${width} ${height}`,
        role: "img",
        "aria-label": label,
      },
      svg("path", {
        class: "live-axis",
        d: `M${left} ${above}V${height - bottom}H${right}`,
      }),
      ...[0, top].map((v) =>
        svg("text", { x: left - 5, y: up(v) + 4, class: "live-tick-y" }, v),
      ),
      ...[0, last].map((v) =>
        svg(
          "text",
          {
            ...{ x: across(v) + (v ? 12 : 4), y: height - 5 },
            class: "live-tick-x",
          },
          `${v.toLocaleString("en")}${v ? unit : ""}`,
        ),
      ),
      mark,
      ...lines.map((line) =>
        svg("path", { d: path(line.values), "data-color": line.color }),
      ),
      ...dots,
    );
    const legend = h(
      "p",
      { class: "live-legend" },
      ...lines.map((line) =>
        h("span", { "data-color": line.color }, line.name),
      ),
    );
    return {
      root: h("div", {}, legend, root),
      show(i) {
        mark.setAttribute("x1", across(x[i]));
        mark.setAttribute("x2", across(x[i]));
        dots.forEach((dot, n) => {
          dot.setAttribute("cx", across(x[i]));
          dot.setAttribute("cy", up(lines[n].values[i]));
        });
      },
    };
  }

  GPT2.kit = {
    ...{ h, svg, shown, number, percent, each, latest, updating, softmax },
    ...{ textField, slider, choice, button, row, columns, note, part },
    ...{ status, chips, bars, heat, grid, curve, guesses },
    ...{ named, read, headOptions },
  };
})((globalThis.GPT2 ??= {}));
