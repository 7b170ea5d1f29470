"""Selection of students to train: the largest that fit, and smaller ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_kd._checks import one_line
from keras_kd.compression.bridge.weights import weight_name
from keras_kd.compression.pruning.channels import Channels
from keras_kd.compression.pruning.flow import shapes_of
from keras_kd.devices import Device
from keras_kd.search.family import samples
from keras_kd.search.forms import Form, Ladder, Proposal, kept_filters
from keras_kd.search.measuring import Cost

# So many real files are looked at along one arm before its best step is taken.
_MOST_MEASURES = 4
# A second, smaller student of an arm: two steps have three quarters of the weights.
_STEPS_DOWN = 2
# A bias, a scale and a zero point for the kernel, and the same for the bias.
_BYTES_PER_CHANNEL = 28
_DRAWS_PER_TRIAL = 4
# Where so many forms have no file for one reason, the others have none either.
_MOST_WITHOUT_FILE = 4
_LONGEST_REASON = 500


@dataclass(frozen=True)
class Found:
    """A proposal, and what was measured on its untrained file.

    Attributes:
        proposal: the student.
        cost: what its file takes; None where there is no file.
        reason: why there is none.
    """

    proposal: Proposal
    cost: Cost | None
    reason: str = ""

    def fits(self, device: Device) -> bool:
        """Whether it keeps all limits of the device."""
        return self.cost is not None and not self.cost.misses(device)


# Gives what was found of a proposal, measured now or remembered.
Look = Callable[[Proposal], Found]


def students_of_teacher(
    teacher: Any, device: Device, trials: int, look: Look, is_over: Callable[[], bool]
) -> list[Found]:
    """Forms of the teacher that fit.

    Along each way to make the teacher smaller (`Ladder.arms`) the largest form that fits is looked
    for: the weights and the activations of a form are counted, the counts are corrected by what the
    last real file took, and real files are measured around the step that should fit. Then smaller
    forms follow, until there are enough.

    Args:
        teacher: the model.
        device: what they should fit.
        trials: how many.
        look: measures a proposal.
        is_over: whether time is over; what was found until then is returned.
    """
    ladder = Ladder(teacher)
    # Raises, before anything is measured, if no layer can be made narrower.
    arms = ladder.arms
    guess = Guess(ladder, device)
    tops: list[tuple[Form, int]] = []
    found: dict[str, Found] = {}

    def keep(each: Found) -> None:
        if each.fits(device) and len(found) < trials:
            found.setdefault(each.proposal.name, each)

    reasons: list[str] = []

    def look_and_note(proposal: Proposal) -> Found:
        each = look(proposal)
        reasons.append(each.reason)
        return each

    def is_hopeless() -> bool:
        return len(reasons) >= _MOST_WITHOUT_FILE and reasons[0] != "" and len({*reasons}) == 1

    # The teacher itself shows how far off it is, and corrects the first guess.
    whole = look_and_note(ladder.form(Form(), 0))
    guess.correct(Form(), 0, whole)
    for arm in arms:
        if is_over() or is_hopeless() or len(tops) == trials:
            break
        step, best = widest(ladder, arm, device, guess, look_and_note, is_over)
        if best is not None:
            keep(best)
            tops.append((arm, step))
    down = _STEPS_DOWN
    while tops and len(found) < trials and down < len(ladder.WIDTHS) and not is_over():
        for arm, step in tops:
            smaller = step + down
            if smaller < len(ladder.WIDTHS) and len(found) < trials and not is_over():
                keep(look(ladder.form(arm, smaller)))
        down += _STEPS_DOWN
    return list(found.values())


def widest(
    ladder: Ladder,
    arm: Form,
    device: Device,
    guess: Guess,
    look: Look,
    is_over: Callable[[], bool] = lambda: False,
    most: int = _MOST_MEASURES,
) -> tuple[int, Found | None]:
    """The widest form of an arm that fits, as far as few files show.

    Args:
        ladder: of the teacher.
        arm: the way to make it smaller.
        device: what the form should fit.
        guess: what forms will take.
        look: measures a proposal.
        is_over: whether time is over.
        most: how many files are looked at.

    Returns:
        Its step on the ladder, and what was found there; None where none fits.
    """
    low, high = 0, len(ladder.WIDTHS) - 1
    best: tuple[int, Found | None] = (high, None)
    for _ in range(most):
        if low > high or is_over():
            break
        step = guess.first_that_fits(arm, low, high)
        found = look(ladder.form(arm, step))
        guess.correct(arm, step, found)
        if found.fits(device):
            best, high = (step, found), step - 1
            if guess.first_that_fits(arm, low, step) == step:
                break
        else:
            low = step + 1
    return best


def students_of_family(
    make: Callable[[Any], Any],
    device: Device,
    trials: int,
    seed: int,
    look: Look,
    is_over: Callable[[], bool],
) -> list[Found]:
    """Members of a user's family that fit, drawn at random; see `students_of_teacher`."""
    fitting: list[Found] = []
    most = _DRAWS_PER_TRIAL * trials
    for member, reason in samples(make, seed, most, 4 * most):
        if len(fitting) == trials or is_over():
            break
        if reason is None:
            each = look(member)
            if each.fits(device):
                fitting.append(each)
    return fitting


class Guess:
    """What forms will take, from counts, corrected by what files of the same structure took."""

    def __init__(self, ladder: Ladder, device: Device) -> None:
        self._ladder = ladder
        self._device = device
        self._counts: dict[Form, _Counts | None] = {}
        self._seen: dict[Form | None, _Correction] = {None: _Correction()}

    def correct(self, arm: Form, step: int, found: Found) -> None:
        """Learn from a real file."""
        counts = self._counted(arm, step)
        if found.cost is None or counts is None:
            return
        arena, latency = found.cost.arena_bytes or 0, found.cost.latency or 0.0
        # The last one of all represents structures of which no file was seen.
        self._seen[arm.structure] = self._seen[None] = _Correction(
            found.cost.flash_bytes - counts.bytes,
            arena / max(1, counts.activations),
            latency / max(1, counts.products),
        )

    def first_that_fits(self, arm: Form, low: int, high: int) -> int:
        """The first step from `low` to `high` that should fit; `high` if none should."""
        while low < high:
            middle = (low + high) // 2
            if self._should_fit(arm, middle):
                high = middle
            else:
                low = middle + 1
        return high

    def _should_fit(self, arm: Form, step: int) -> bool:
        counts = self._counted(arm, step)
        if counts is None:
            return True
        seen = self._seen.get(arm.structure, self._seen[None])
        pairs = (
            (counts.bytes + seen.flash_beyond, self._device.flash_bytes),
            (counts.activations * seen.arena_of_activations, self._device.ram_bytes),
            (counts.products * seen.latency_of_products, self._device.latency),
        )
        return all(limit is None or guess <= limit for guess, limit in pairs)

    def _counted(self, arm: Form, step: int) -> _Counts | None:
        form = self._ladder.form(arm, step).form
        if form not in self._counts:
            channels = self._ladder.channels(arm)
            self._counts[form] = channels and _counts(channels, form)
        return self._counts[form]


class _Correction(NamedTuple):
    """What real files took beside or for each unit of the counts."""

    flash_beyond: float = 0.0
    arena_of_activations: float = 1.0
    latency_of_products: float = 0.0


class _Counts(NamedTuple):
    """Of a form: the bytes of its weights, the most values needed at once, and its products."""

    bytes: int
    activations: int
    products: int


def _counts(channels: Channels, form: Form) -> _Counts:
    """The counts of a form, from the widest one of its structure: nothing is built."""
    removed = {group for groups, kept in kept_filters(channels, form) for group in groups[kept:]}

    def left(groups: np.ndarray) -> int:
        return int(np.sum(~np.isin(groups, list(removed))))

    axes = {
        (id(cut.layer), cut.weight, cut.axis): left(cut.groups)
        for cut in (*channels.reads, *channels.writes, *channels.carries)
    }
    sizes, positions = {}, {}
    for slot, shape in shapes_of(channels.graph).items():
        groups = channels.tensors.get(slot)
        inner = [size or 1 for size in shape[1:]]
        positions[slot] = math.prod(inner[:-1])
        sizes[slot] = math.prod(inner) if groups is None else positions[slot] * left(groups)
    activations = max(
        sum(sizes[slot] for slot in {*call.operands(), *call.results})
        for call in channels.graph.calls
    )
    size = products = 0
    for call in channels.graph.calls:
        for weight in call.layer.weights:
            shape = list(weight.shape)
            for axis in range(len(shape)):
                name = (id(call.layer), weight_name(weight))
                # Axes are counted from either end.
                for key in ((*name, axis), (*name, axis - len(shape))):
                    shape[axis] = axes.get(key, shape[axis])
            if len(shape) > 1:
                size += math.prod(shape) + _BYTES_PER_CHANNEL * shape[-1]
                products += math.prod(shape) * positions[call.results[0]]
    return _Counts(size, activations, products)


def measured(
    proposal: Proposal,
    measure: Callable[[keras.Model], Cost],
    check: Callable[[keras.Model], None],
) -> Found:
    """Build a proposal and measure its file.

    Args:
        proposal: the student.
        measure: gives the cost of an untrained student; raises ValueError where there is no file.
        check: raises ValueError if the student does not fit the teacher or the data.
    """
    try:
        student = proposal.build()
        check(student)
        return Found(proposal, measure(student))
    except (ValueError, TypeError) as error:
        return Found(proposal, None, one_line(error)[:_LONGEST_REASON])


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """The places of the points (cost, value) than which no other is both cheaper and better.

    Args:
        points: for each candidate its cost (less is better) and its value (more is better).
    """
    order = sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1]))
    chosen: list[int] = []
    best = -np.inf
    for place in order:
        if points[place][1] > best:
            best = points[place][1]
            chosen.append(place)
    return chosen


def rungs(trials: int, finalists: int, epochs: int) -> Iterator[tuple[int, int]]:
    """How many students are trained for how many epochs, rung after rung.

    Each rung keeps about a third of the students of the one before and trains each of them three
    times as long, so that all rungs cost about the same (successive halving: Jamieson and
    Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization", AISTATS
    2016).

    Args:
        trials: how many students begin.
        finalists: how many are trained in the last rung.
        epochs: of the last rung.
    """
    counts = [min(trials, finalists)]
    while counts[0] * 3 < trials:
        counts.insert(0, counts[0] * 3)
    if len(counts) > 1 and trials < 1.5 * counts[0]:
        # A rung that leaves almost all in distinguishes little.
        counts[0] = trials
    elif trials > counts[0]:
        counts.insert(0, trials)
    for number, count in enumerate(counts):
        yield count, max(1, round(epochs / 3 ** (len(counts) - 1 - number)))
