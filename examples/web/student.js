/** A distilled student in LiteRT, compiled to WebAssembly. */

import { Tensor, loadAndCompile, loadLiteRt } from "@litertjs/core";

import { SIDE } from "./digit.js";

const RUNTIME = new URL("node_modules/@litertjs/core/wasm/", document.baseURI).href;

let runtime;

export class Student {
  #model;
  #input;

  constructor(model, bytes) {
    this.#model = model;
    [this.#input] = model.getInputDetails();
    /** The size of the file. */
    this.bytes = bytes;
  }

  /** Fetch a .tflite file, and the runtime if it is the first. */
  static async load(url) {
    runtime ??= loadLiteRt(RUNTIME);
    const [content] = await Promise.all([fetched(url), runtime]);
    const model = await loadAndCompile(content, { accelerator: "wasm" });
    const student = new Student(model, content.length);
    // The first answer prepares the runtime's kernels; a person should not wait for that.
    await student.answer(new Float32Array(SIDE * SIDE));
    return student;
  }

  /**
   * What the student says about one picture.
   *
   * @param {Float32Array} pixels 28 rows of 28, from 0 to 1.
   * @returns {Promise<{probabilities: Float32Array, milliseconds: number}>} one probability for
   *     each digit, and how long it took.
   */
  async answer(pixels) {
    const start = performance.now();
    const input = new Tensor(pixels, this.#input.shape);
    let outputs = [];
    try {
      outputs = await this.#model.run([input]);
      // A copy: the memory belongs to the runtime, and is freed below.
      const probabilities = Float32Array.from(outputs[0].toTypedArray());
      return { probabilities, milliseconds: performance.now() - start };
    } finally {
      for (const tensor of [input, ...outputs]) tensor.delete();
    }
  }
}

async function fetched(url) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url}: ${response.status} ${response.statusText}`);
  return new Uint8Array(await response.arrayBuffer());
}
