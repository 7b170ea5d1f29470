/** What the student says: the digit, and a bar for each that it might be. */

const WORDS = [
  ...["a zero", "a one", "a two", "a three", "a four"],
  ...["a five", "a six", "a seven", "an eight", "a nine"],
];
// Below this, the student is guessing.
const SURE = 0.6;

export class Answer {
  #root;
  #bars;
  #text;

  constructor(root) {
    this.#root = root;
    this.#bars = WORDS.map((word, digit) => bar(digit));
    root.querySelector("ol").replaceChildren(...this.#bars);
    this.#text = root.querySelector("[role=status]");
  }

  /** Show probabilities, one for each digit. */
  show(probabilities) {
    const best = probabilities.indexOf(Math.max(...probabilities));
    this.#root.dataset.state = probabilities[best] < SURE ? "unsure" : "sure";
    this.#root.querySelector(".digit").textContent = best;
    this.#bars.forEach((each, digit) => {
      fill(each, probabilities[digit]);
      each.toggleAttribute("data-best", digit === best);
    });
    return { digit: best, probability: probabilities[best] };
  }

  /** Say it in words, for screen readers too; not while a hand is still drawing. */
  say({ digit, probability }) {
    const start = probability < SURE ? "Perhaps" : "This is";
    this.#text.textContent = `${start} ${WORDS[digit]}: ${percent(probability)} sure.`;
  }

  clear() {
    this.#root.dataset.state = "waiting";
    this.#root.querySelector(".digit").textContent = "";
    this.#text.textContent = "";
    for (const each of this.#bars) {
      fill(each, 0);
      each.removeAttribute("data-best");
    }
  }
}

function bar(digit) {
  const item = document.createElement("li");
  item.innerHTML = `<b>${digit}</b><span class="track"><span></span></span><data value="0"></data>`;
  fill(item, 0);
  return item;
}

function fill(item, probability) {
  item.style.setProperty("--share", probability);
  const data = item.querySelector("data");
  data.value = probability;
  data.textContent = percent(probability);
}

function percent(share) {
  // Not 100 before it is, and not 0 where something is left.
  const tenths = share > 0.5 ? Math.floor(share * 1000) : Math.ceil(share * 1000 - 0.5);
  return `${(tenths / 10).toFixed(share > 0.9995 ? 0 : 1)} %`;
}
