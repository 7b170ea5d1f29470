/** The page: what is drawn goes to the student, what it says goes to the bars. */

import { Answer } from "./answer.js";
import { SIDE, picture } from "./digit.js";
import { handwritten } from "./handwriting.js";
import { Pad } from "./pad.js";
import { Student } from "./student.js";

const TIMES_KEPT = 50;

const find = (selector) => document.querySelector(selector);
const pad = new Pad(find("#pad"));
const answer = new Answer(find("#answer"));
const preview = find("#preview").getContext("2d");
const cards = fetch("models/cards.json").then((response) => response.json());
const students = new Map();
const times = [];

let student = null;
let isThinking = false;
let isOutdated = false;

/** Ask the student about what is on the pad; whatever is drawn meanwhile is asked about next. */
async function think() {
  isOutdated = true;
  if (isThinking || student === null) return;
  isThinking = true;
  find("#answer").ariaBusy = true;
  while (isOutdated) {
    isOutdated = false;
    const pixels = picture(pad.strokes);
    show(pixels);
    if (pad.isEmpty) {
      answer.clear();
      continue;
    }
    const asked = student;
    const { probabilities, milliseconds } = await asked.answer(pixels);
    if (pad.isEmpty || asked !== student) {
      isOutdated = true;
      continue;
    }
    const said = answer.show(probabilities);
    if (!document.body.hasAttribute("data-drawing")) answer.say(said);
    time(milliseconds);
  }
  isThinking = false;
  find("#answer").ariaBusy = false;
}

/** The picture as the student gets it. */
function show(pixels) {
  const image = preview.createImageData(SIDE, SIDE);
  pixels.forEach((value, place) => {
    image.data.set([255, 255, 255, Math.round(255 * value)], 4 * place);
  });
  preview.putImageData(image, 0, 0);
}

function time(milliseconds) {
  times.push(milliseconds);
  if (times.length > TIMES_KEPT) times.shift();
  const median = times.toSorted((one, other) => one - other)[times.length >> 1];
  find("#time").textContent = `${median.toFixed(2)} ms`;
}

async function choose(name) {
  document.body.dataset.model = "loading";
  try {
    const file = `digits/${name}.tflite`;
    if (!students.has(name)) students.set(name, Student.load(`models/${file}`));
    const [chosen, card] = [await students.get(name), (await cards)[file]];
    // Another may have been chosen while this one was loading.
    if (find("input[name=student]:checked").value !== name) return;
    student = chosen;
    times.length = 0;
    find("#size").textContent = `${(student.bytes / 1000).toFixed(1)} kB`;
    find("#accuracy").textContent = `${(100 * card.accuracy).toFixed(2)} %`;
    document.body.dataset.model = "ready";
    think();
  } catch (error) {
    students.delete(name);
    document.body.dataset.model = "failed";
    find("#problem").textContent = `The student could not be loaded. ${error.message}`;
    throw error;
  }
}

function act(action) {
  const actions = { clear: () => pad.clear(), undo: () => pad.undo() };
  actions[action]();
}

pad.addEventListener("change", () => {
  document.body.toggleAttribute("data-empty", pad.isEmpty);
  document.body.toggleAttribute("data-drawing", true);
  think();
});
pad.addEventListener("rest", () => {
  document.body.toggleAttribute("data-drawing", false);
  think();
});
for (const button of document.querySelectorAll("button[data-action]")) {
  button.addEventListener("click", () => act(button.dataset.action));
}
for (const button of document.querySelectorAll("button[data-digit]")) {
  button.addEventListener("click", () => pad.write(handwritten(button.dataset.digit)));
}
for (const choice of document.querySelectorAll("input[name=student]")) {
  choice.addEventListener("change", () => choose(choice.value));
}
addEventListener("keydown", (event) => {
  const command = event.ctrlKey || event.metaKey;
  if (command && event.key === "z") act("undo");
  else if (command || event.altKey) return;
  else if (["Escape", "Backspace", "Delete"].includes(event.key)) act("clear");
  else if (/^[0-9]$/.test(event.key)) pad.write(handwritten(event.key));
  else return;
  event.preventDefault();
});
choose(find("input[name=student]:checked").value);
