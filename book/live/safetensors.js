// Reads a safetensors file: eight bytes with the length of a JSON header,
// the header, then the numbers of all tensors.
(function (GPT2) {
  "use strict";

  const SIZES = { F32: 4, F16: 2, BF16: 2 };

  /**
   * @param {ArrayBuffer} buffer A whole file.
   * @returns {Map<string, {shape: number[], data: Float32Array}>}
   */
  function readSafetensors(buffer) {
    const view = new DataView(buffer);
    if (buffer.byteLength < 8)
      throw new Error(`a file of ${buffer.byteLength} bytes has no header`);
    const length = Number(view.getBigUint64(0, true));
    const start = 8 + length;
    if (start > buffer.byteLength)
      throw new Error(
        `the header should have ${length} bytes, but the file ends after ` +
          `${buffer.byteLength}`,
      );
    const text = new TextDecoder().decode(new Uint8Array(buffer, 8, length));
    let header;
    try {
      header = JSON.parse(text);
    } catch (error) {
      throw new Error(`the header is no JSON: ${error.message}`);
    }
    const tensors = new Map();
    for (const [name, entry] of Object.entries(header)) {
      if (name === "__metadata__") continue;
      const [begin, end] = place(name, entry, buffer.byteLength - start);
      const bytes = buffer.slice(start + begin, start + end); // aligned
      tensors.set(name, {
        shape: entry.shape,
        data: toFloat32(bytes, entry.dtype),
      });
    }
    return tensors;
  }

  /** Check one tensor's entry; return its first byte and the one after. */
  function place(name, { dtype, shape, data_offsets: offsets }, room) {
    if (!Object.hasOwn(SIZES, dtype))
      throw new Error(
        `${name}: dtype must be F32, F16 or BF16; got ${dtype}`,
      );
    const isCount = (n) => Number.isSafeInteger(n) && n >= 0;
    if (!Array.isArray(shape) || !shape.every(isCount))
      throw new Error(`${name}: ${JSON.stringify(shape)} is no shape`);
    const needed = shape.reduce((a, b) => a * b, 1) * SIZES[dtype];
    const [begin, end] = Array.isArray(offsets) ? offsets : [];
    if (!isCount(begin) || !isCount(end) || end - begin !== needed)
      throw new Error(
        `${name}: the shape [${shape}] needs ${needed} bytes of ${dtype}, ` +
          `but the offsets are ${JSON.stringify(offsets)}`,
      );
    if (end > room)
      throw new Error(
        `${name}: ends at byte ${end}, but the file has ${room} bytes of ` +
          "tensors: it is not complete",
      );
    return [begin, end];
  }

  /** Widen little-endian numbers; every float16 and bfloat16 is exact. */
  function toFloat32(buffer, dtype) {
    if (dtype === "F32") return new Float32Array(buffer);
    const halves = new Uint16Array(buffer);
    const numbers = new Float32Array(halves.length);
    if (dtype === "BF16") {
      // The upper half of a float32.
      const bits = new Uint32Array(numbers.buffer);
      for (let i = 0; i < halves.length; i++) bits[i] = halves[i] << 16;
    } else {
      const table = halfTable();
      for (let i = 0; i < halves.length; i++) numbers[i] = table[halves[i]];
    }
    return numbers;
  }

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

  GPT2.readSafetensors = readSafetensors;
})((globalThis.GPT2 ??= {}));
