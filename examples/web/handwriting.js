/** Digits as a hand writes them, for those who cannot draw, or want to see it done. */

// Paths of SVG on a pad of 100 by 100, a stroke each.
const PATHS = [
  ["M52 17 C25 17 24 83 50 83 C76 83 77 17 50 17"],
  ["M40 31 L53 17 L52 83"],
  ["M29 35 C30 11 70 12 69 36 C68 54 41 66 28 82 L74 81"],
  ["M30 24 C44 11 70 18 67 34 C65 46 54 48 45 48 C60 48 73 56 69 70 C64 87 38 87 28 74"],
  ["M37 18 L31 54 L73 53", "M63 32 L61 84"],
  ["M70 19 L38 20 L34 47 C50 39 72 46 71 64 C69 85 40 87 28 76"],
  ["M61 17 C40 26 28 52 32 68 C37 88 68 86 68 66 C67 48 40 50 33 67"],
  ["M28 22 L72 21 C60 42 52 60 46 83"],
  ["M65 28 C56 13 34 17 36 34 C38 50 69 52 67 70 C64 87 33 87 34 70 C35 54 64 46 65 28"],
  ["M66 33 C60 15 35 18 34 36 C33 55 60 55 66 35 L60 84"],
];
const STEP = 1.5;

/** The strokes of a digit: lists of points from 0 to 1. */
export function handwritten(digit) {
  return PATHS[digit].map((data) => {
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("d", data);
    const steps = Math.ceil(path.getTotalLength() / STEP);
    return Array.from({ length: steps + 1 }, (_, index) => {
      const { x, y } = path.getPointAtLength((index / steps) * path.getTotalLength());
      return { x: x / 100, y: y / 100 };
    });
  });
}
