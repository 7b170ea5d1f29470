/** A canvas to draw on with a finger, a pen or a mouse. */

// The width of the ink as a share of the pad: about that of the digits in MNIST.
const INK = 0.075;
const MILLISECONDS_PER_LENGTH = 420;

/**
 * Emits "change" whenever there is more or less ink, and "rest" when the hand is lifted.
 */
export class Pad extends EventTarget {
  /** What has been drawn: lists of points from 0 to 1, from the left and from the top. */
  strokes = [];
  #canvas;
  #context;
  #pointer = null;
  #writing = 0;

  constructor(canvas) {
    super();
    this.#canvas = canvas;
    this.#context = canvas.getContext("2d");
    canvas.addEventListener("pointerdown", (event) => this.#begin(event));
    canvas.addEventListener("pointermove", (event) => this.#go(event));
    for (const end of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(end, (event) => this.#end(event));
    }
    new ResizeObserver(() => this.#fit()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#draw());
  }

  get isEmpty() {
    return this.strokes.length === 0;
  }

  clear() {
    this.#change([]);
    this.#emit("rest");
  }

  undo() {
    this.#change(this.strokes.slice(0, -1));
    this.#emit("rest");
  }

  /** Write strokes as a hand would, point by point; at once if motion is not wanted. */
  async write(strokes) {
    this.#change([]);
    const writing = this.#writing;
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) {
      this.#change(strokes);
    } else {
      await this.#animate(strokes, writing);
    }
    if (writing === this.#writing || this.strokes === strokes) this.#emit("rest");
  }

  async #animate(strokes, writing) {
    const start = await frame();
    const whole = total(strokes);
    for (let share = 0; share < 1; ) {
      share = Math.min(1, ((await frame()) - start) / (MILLISECONDS_PER_LENGTH * whole));
      // A hand that draws, clears or writes something else comes first.
      if (writing !== this.#writing) return;
      this.strokes = beginning(strokes, share * whole);
      this.#changed();
    }
  }

  #begin(event) {
    if (this.#pointer !== null || event.button !== 0) return;
    event.preventDefault();
    this.#canvas.setPointerCapture(event.pointerId);
    this.#pointer = event.pointerId;
    this.#change([...this.strokes, [this.#place(event)]]);
  }

  #go(event) {
    if (event.pointerId !== this.#pointer) return;
    // Between two frames a pen can report many places.
    const events = event.getCoalescedEvents?.() ?? [];
    this.strokes.at(-1).push(...(events.length ? events : [event]).map((each) => this.#place(each)));
    this.#changed();
  }

  #end(event) {
    if (event.pointerId !== this.#pointer) return;
    this.#pointer = null;
    this.#emit("rest");
  }

  #place(event) {
    const box = this.#canvas.getBoundingClientRect();
    return {
      x: Math.min(1, Math.max(0, (event.clientX - box.left) / box.width)),
      y: Math.min(1, Math.max(0, (event.clientY - box.top) / box.height)),
    };
  }

  #change(strokes) {
    this.#writing += 1;
    this.strokes = strokes;
    this.#changed();
  }

  #changed() {
    this.#draw();
    this.#emit("change");
  }

  #emit(name) {
    this.dispatchEvent(new Event(name));
  }

  #fit() {
    this.#canvas.width = this.#canvas.clientWidth * devicePixelRatio;
    this.#canvas.height = this.#canvas.clientHeight * devicePixelRatio;
    this.#draw();
  }

  #draw() {
    const { width, height } = this.#canvas;
    const context = this.#context;
    context.reset();
    context.scale(width, height);
    context.lineWidth = INK;
    context.lineCap = context.lineJoin = "round";
    context.strokeStyle = getComputedStyle(this.#canvas).color;
    for (const stroke of this.strokes) {
      context.beginPath();
      trace(context, stroke);
      context.stroke();
    }
  }
}

/** A smooth line: curves from middle to middle, the points pulling at them. */
function trace(context, stroke) {
  const last = stroke.at(-1);
  context.moveTo(stroke[0].x, stroke[0].y);
  for (let index = 1; index < stroke.length - 1; index++) {
    const [point, next] = [stroke[index], stroke[index + 1]];
    context.quadraticCurveTo(point.x, point.y, (point.x + next.x) / 2, (point.y + next.y) / 2);
  }
  context.lineTo(last.x, last.y);
}

function frame() {
  return new Promise(requestAnimationFrame);
}

function total(strokes) {
  return strokes.reduce((sum, stroke) => sum + lengths(stroke).at(-1), 0);
}

/** How far it is along a stroke to each of its points. */
function lengths(stroke) {
  let sum = 0;
  return stroke.map((point, index) => {
    const before = stroke[Math.max(0, index - 1)];
    return (sum += Math.hypot(point.x - before.x, point.y - before.y));
  });
}

/** The strokes up to a length. */
function beginning(strokes, length) {
  const begun = [];
  for (const stroke of strokes) {
    if (length <= 0) break;
    const reached = lengths(stroke);
    const whole = stroke.filter((_, index) => reached[index] <= length);
    if (whole.length < stroke.length) whole.push(between(stroke, reached, whole.length, length));
    begun.push(whole);
    length -= reached.at(-1);
  }
  return begun;
}

function between(stroke, reached, index, length) {
  const [from, to] = [stroke[index - 1], stroke[index]];
  const share = (length - reached[index - 1]) / (reached[index] - reached[index - 1]);
  return { x: from.x + share * (to.x - from.x), y: from.y + share * (to.y - from.y) };
}
