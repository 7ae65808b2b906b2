// Reads a safetensors file, as in `gpt2/weights/safetensors_header.py`: eight
// bytes with the length of a JSON header, the header, then the numbers of all
// tensors. Nothing that the header says is believed before it is checked.
(function (GPT2) {
  "use strict";

  const BYTES = { F32: 4, F16: 2, BF16: 2 };
  // What other tensors may have: they are skipped, but have to fit.
  const OTHERS = { F64: 8, I64: 8, U64: 8, I32: 4, U32: 4, I16: 2, U16: 2 };
  const SMALL = { I8: 1, U8: 1, BOOL: 1 };
  const ALL = { ...BYTES, ...OTHERS, ...SMALL };
  const LARGEST_HEADER = 16_000_000; // GPT-2 XL's has 60,000 bytes
  const SLICE = 2 ** 23;

  async function bytesOf(file, from, to) {
    const buffer = await file.slice(from, to).arrayBuffer();
    if (buffer.byteLength !== to - from)
      throw new Error(`the file ends before byte ${to}`);
    return buffer;
  }

  /**
   * @param {Blob} file A safetensors file.
   * @returns {Promise<Map<string, {dtype, shape, begin, end}>>} The tensors,
   *   with their first byte in the file and the one after their last.
   */
  GPT2.readHeader = async function (file) {
    if (file.size < 8)
      throw new Error(`a file of ${file.size} bytes has no header`);
    const first = new DataView(await bytesOf(file, 0, 8));
    const length = Number(first.getBigUint64(0, true));
    if (length > Math.min(file.size - 8, LARGEST_HEADER))
      throw new Error(
        `the first bytes ask for a header of ${length} bytes, which is too ` +
          `much for a file of ${file.size}: it is no safetensors file, or ` +
          "not complete",
      );
    const text = new TextDecoder().decode(await bytesOf(file, 8, 8 + length));
    const header = GPT2.parseObject(text, "the header");
    const entries = new Map();
    for (const [name, entry] of Object.entries(header))
      if (name !== "__metadata__")
        entries.set(name, place(name, entry, 8 + length));
    checkPlaces(entries, 8 + length, file.size);
    return entries;
  };

  /** Parse a JSON object. */
  GPT2.parseObject = function (text, name) {
    let value;
    try {
      value = JSON.parse(text);
    } catch (error) {
      throw new Error(`${name} is no JSON: ${error.message}`);
    }
    if (typeof value !== "object" || value === null || Array.isArray(value))
      throw new Error(`${name} must be a JSON object`);
    return value;
  };

  /** Check one tensor's entry by itself. */
  function place(name, entry, start) {
    const { dtype, shape, data_offsets: offsets } = entry ?? {};
    if (!Object.hasOwn(ALL, dtype))
      throw new Error(`${name}: the dtype ${dtype} is unknown`);
    const isCount = (n) => Number.isSafeInteger(n) && n >= 0;
    if (!Array.isArray(shape) || shape.length > 8 || !shape.every(isCount))
      throw new Error(`${name}: ${JSON.stringify(shape)} is no shape`);
    const needed = shape.reduce((a, b) => a * b, 1) * ALL[dtype];
    const [begin, end] = Array.isArray(offsets) ? offsets : [];
    if (!isCount(begin) || !isCount(end) || end - begin !== needed)
      throw new Error(
        `${name}: the shape [${shape}] needs ${needed} bytes of ${dtype}, ` +
          `but the offsets are ${JSON.stringify(offsets)}`,
      );
    return { dtype, shape, begin: start + begin, end: start + end };
  }

  /** Refuse tensors that overlap, leave a gap or exceed the file. */
  function checkPlaces(entries, start, size) {
    let free = start;
    const inOrder = [...entries].sort(
      ([, a], [, b]) => a.begin - b.begin || a.end - b.end,
    );
    for (const [name, { end }] of inOrder)
      if (end > size)
        throw new Error(
          `${name}: ends at byte ${end}, but the file has ${size} bytes: it ` +
            "is not complete",
        );
    for (const [name, { begin, end }] of inOrder) {
      if (begin !== free)
        throw new Error(
          `${name}: begins at byte ${begin}, but the tensor before it ends ` +
            `at ${free}`,
        );
      free = end;
    }
    if (free !== size)
      throw new Error(`the last ${size - free} bytes belong to no tensor`);
  }

  /**
   * Read tensors, in the order of the file and slice by slice, so that little
   * memory is needed.
   *
   * @param {Blob} file
   * @param {[string, object][]} entries Names and entries of `readHeader`.
   * @yields {{name, at, numbers}} A part of a tensor, from its number `at`:
   *   a Float32Array, or the bits of bfloat16 numbers as a Uint16Array.
   */
  GPT2.readTensors = async function* (file, entries) {
    const inOrder = [...entries].sort(([, a], [, b]) => a.begin - b.begin);
    const end = Math.max(...inOrder.map(([, entry]) => entry.end));
    let [from, to, slice] = [0, 0, null];
    for (const [name, entry] of inOrder) {
      const size = BYTES[entry.dtype];
      for (let at = entry.begin; at < entry.end;) {
        if (at < from || at + size > to) {
          [from, to] = [at, Math.min(end, at + SLICE)];
          slice = await bytesOf(file, from, to);
        }
        const whole = to - at - ((to - at) % size);
        const stop = Math.min(entry.end, at + whole);
        const bytes = slice.slice(at - from, stop - from); // aligned
        const numbers = decode(bytes, entry.dtype);
        yield { name, at: (at - entry.begin) / size, numbers };
        at = stop;
      }
    }
  };

  function decode(bytes, dtype) {
    if (dtype === "F32") return new Float32Array(bytes);
    if (dtype === "BF16") return new Uint16Array(bytes);
    const bits = new Uint16Array(bytes);
    const table = halfTable();
    return Float32Array.from(bits, (half) => table[half]);
  }

  /** Widen bfloat16, the upper half of a float32: every number is exact. */
  GPT2.widen = function (halves) {
    const numbers = new Float32Array(halves.length);
    const bits = new Uint32Array(numbers.buffer);
    for (let i = 0; i < halves.length; i++) bits[i] = halves[i] << 16;
    return numbers;
  };

  /** Numbers of `readTensors` as float32. */
  GPT2.asFloat32 = (numbers) =>
    numbers instanceof Uint16Array ? GPT2.widen(numbers) : numbers;

  /** The bits of numbers of `readTensors`, rounded to the nearest bfloat16. */
  GPT2.asBfloat16 = function (numbers) {
    if (numbers instanceof Uint16Array) return numbers;
    const bits = new Uint32Array(numbers.buffer);
    const halves = new Uint16Array(bits.length);
    for (let i = 0; i < bits.length; i++) {
      const toEven = 0x7fff + ((bits[i] >>> 16) & 1);
      halves[i] = (bits[i] + toEven) >>> 16;
    }
    return halves;
  };

  let halves = null;

  /** All 65536 float16 numbers, by their bits: sign, 5 of exponent, 10. */
  function halfTable() {
    if (halves !== null) return halves;
    halves = new Float32Array(65536);
    for (let bits = 0; bits < 65536; bits++) {
      const sign = bits & 0x8000 ? -1 : 1;
      const exponent = (bits >> 10) & 31;
      const fraction = (bits & 1023) / 1024;
      if (exponent === 31) halves[bits] = fraction ? NaN : sign * Infinity;
      else if (exponent === 0) halves[bits] = sign * fraction * 2 ** -14;
      else halves[bits] = sign * (1 + fraction) * 2 ** (exponent - 15);
    }
    return halves;
  }
})((globalThis.GPT2 ??= {}));
