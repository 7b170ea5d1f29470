/**
 * From strokes to the picture that the student knows: as the digits of MNIST were made.
 *
 * There, each digit was scaled until its longer side measured 20 pixels and moved until its centre
 * of mass was in the middle of 28x28. Strokes are drawn here with the mean width of MNIST's, however
 * large they were on the pad.
 */

export const SIDE = 28;

const LONGER_SIDE = 20;
const CENTRE_OF_MASS = 14;
const HALF_WIDTH = 1.45;
const LEVELS_OF_GREY = 256;
// A dot stays one: what is smaller than this share of the pad is not enlarged further.
const SMALLEST = 0.12;

/**
 * The picture of a digit.
 *
 * @param {{x: number, y: number}[][]} strokes points from 0 to 1, from the left and from the top.
 * @returns {Float32Array} 28 rows of 28 pixels, from 0 (paper) to 1 (ink).
 */
export function picture(strokes) {
  const points = strokes.flat();
  if (points.length === 0) return new Float32Array(SIDE * SIDE);
  const [left, right] = range(points.map((point) => point.x));
  const [top, bottom] = range(points.map((point) => point.y));
  const longer = Math.max(right - left, bottom - top, SMALLEST);
  const scale = (LONGER_SIDE - 2 * HALF_WIDTH) / longer;
  const placed = (across, along) =>
    strokes.map((stroke) =>
      stroke.map(({ x, y }) => ({
        x: (x - (left + right) / 2) * scale + across,
        y: (y - (top + bottom) / 2) * scale + along,
      })),
    );
  const middle = (SIDE - 1) / 2;
  const mass = centreOfMass(ink(placed(middle, middle)));
  const pixels = ink(placed(middle + CENTRE_OF_MASS - mass.x, middle + CENTRE_OF_MASS - mass.y));
  return pixels.map((value) => Math.round(value * (LEVELS_OF_GREY - 1)) / (LEVELS_OF_GREY - 1));
}

/** How much of each pixel is covered by strokes, their points in pixels. */
function ink(strokes) {
  const pixels = new Float32Array(SIDE * SIDE);
  for (const stroke of strokes) {
    stroke.forEach((point, index) => cover(pixels, stroke[Math.max(0, index - 1)], point));
  }
  return pixels;
}

/** Ink on the line from one point to another; its edges fade over one pixel. */
function cover(pixels, from, to) {
  const reach = HALF_WIDTH + 0.5;
  const [left, right] = range([from.x, to.x]);
  const [top, bottom] = range([from.y, to.y]);
  for (let y = Math.max(0, Math.ceil(top - reach)); y <= Math.min(SIDE - 1, bottom + reach); y++) {
    for (let x = Math.max(0, Math.ceil(left - reach)); x <= Math.min(SIDE - 1, right + reach); x++) {
      const covered = Math.min(1, reach - distance({ x, y }, from, to));
      const place = y * SIDE + x;
      if (covered > pixels[place]) pixels[place] = covered;
    }
  }
}

function distance(point, from, to) {
  const [width, height] = [to.x - from.x, to.y - from.y];
  const squared = width * width + height * height;
  const along = (point.x - from.x) * width + (point.y - from.y) * height;
  const share = squared === 0 ? 0 : Math.min(1, Math.max(0, along / squared));
  return Math.hypot(point.x - from.x - share * width, point.y - from.y - share * height);
}

function centreOfMass(pixels) {
  let [mass, x, y] = [0, 0, 0];
  pixels.forEach((value, place) => {
    mass += value;
    x += value * (place % SIDE);
    y += value * Math.floor(place / SIDE);
  });
  return { x: x / mass, y: y / mass };
}

function range(values) {
  return [Math.min(...values), Math.max(...values)];
}
