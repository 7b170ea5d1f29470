"""What the arguments of `prune` mean together, once they do not contradict one another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keras_kd._checks import check_choice, check_number, problem
from keras_kd.compression.pruning.patterns import Blocks, MByN, Pattern, Single, check_pair
from keras_kd.compression.pruning.targets import FinalSparsity

_SCHEDULES = ("polynomial", "constant")


def pattern_of(block_size: Any, block_pooling: Any, m_by_n: Any) -> Pattern:
    """The pattern that `prune` is asked for.

    Raises:
        ValueError: if the arguments contradict one another, or are no pattern.
    """
    if m_by_n is not None and block_size is not None:
        raise problem(
            f"m_by_n={m_by_n!r} with block_size={block_size!r}",
            "one of the two",
            "leave the other out",
        )
    if block_pooling is not None and block_size is None:
        raise problem(
            f"block_pooling={block_pooling!r} without blocks",
            "the size of the blocks too",
            "pass block_size=(4, 1), or leave block_pooling out",
        )
    if block_size is not None:
        return Blocks(block_size, "AVG" if block_pooling is None else block_pooling)
    if m_by_n is not None:
        return MByN(*check_pair("m_by_n", m_by_n, "(zeros, out of how many), such as (2, 4)"))
    return Single()


def final_sparsity_of(schedule: Any, given: Mapping[str, Any], pattern: Pattern) -> FinalSparsity:
    """The sparsity that `prune` is asked for.

    Args:
        schedule: see `prune`.
        given: the arguments that a schedule has, by name, None where they were left out.
        pattern: m by n settles the sparsity.

    Raises:
        TypeError: if `schedule` is none.
        ValueError: if the arguments contradict one another.
    """
    final = given["final_sparsity"]
    unwanted: tuple[str, ...] = ()
    if isinstance(schedule, str):
        check_choice("schedule", schedule, _SCHEDULES)
        unwanted = ("initial_sparsity", "power") if schedule == "constant" else ()
    else:
        final = _final_of(schedule)
        unwanted = tuple(given)
    contradicting = [name for name in unwanted if given[name] is not None]
    if contradicting:
        raise problem(
            f"schedule={schedule!r} with {', '.join(contradicting)}",
            "a schedule that these belong to",
            "leave them out",
        )
    if not isinstance(pattern, MByN):
        return 0.8 if final is None else final
    share = pattern.zeros / pattern.of
    if final is not None and (not isinstance(final, int | float) or abs(final - share) > 1e-6):
        raise problem(
            f"m_by_n={(pattern.zeros, pattern.of)} with final_sparsity={final!r}",
            "no final_sparsity other than m / n",
            "leave final_sparsity out, or choose another m_by_n",
        )
    return share


def _final_of(schedule: Any) -> float | None:
    """The last sparsity of a `PruningSchedule`; None where it does not say."""
    is_schedule = any(base.__name__ == "PruningSchedule" for base in type(schedule).__mro__)
    if not is_schedule:
        raise problem(
            f"schedule={schedule!r}",
            "'polynomial', 'constant' or an object of tfmot.sparsity.keras.PruningSchedule",
            "choose one of these, or subclass PruningSchedule",
            kind=TypeError,
        )
    return getattr(schedule, "final_sparsity", getattr(schedule, "target_sparsity", None))


def curve_of(
    schedule: Any, initial: float | None, power: float | None, lowest: float
) -> tuple[float | None, float]:
    """The initial sparsity, None for the final one, and the exponent.

    Raises:
        TypeError: if one of them is no number.
        ValueError: if one is out of range; `lowest` is the lowest final sparsity of a layer.
    """
    if schedule == "constant":
        return None, 1.0
    initial = 0.0 if initial is None else initial
    initial = check_number(
        "initial_sparsity", initial, at_least=0, at_most=lowest, fix="leave it at 0.0"
    )
    power = 3.0 if power is None else power
    return initial, check_number("power", power, above=0, fix="3 prunes most at the beginning")
