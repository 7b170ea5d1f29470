"""The checkpoint that all workers of a training begin with, and the directory of each worker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from keras_kd._checks import problem

if TYPE_CHECKING:
    import tensorflow as tf

    from keras_kd.callbacks.checkpoints import Checkpoint

# More than a worker keeps; all tell the others as many, so that the shapes are the same.
_MOST = 4


class Held(NamedTuple):
    """A checkpoint as other workers need to know it.

    Attributes:
        number: how many batches were read before it.
        run: of its training, drawn when that was begun.
    """

    number: int
    run: int


def number_of_workers(strategy: Any) -> int:
    """How many processes take each step together."""
    replicas: int = strategy.num_replicas_in_sync
    # Without a strategy there are no devices to count.
    return 1 if replicas == 1 else replicas // len(strategy.extended.worker_devices)


def folder_of_worker(strategy: Any) -> str:
    """The name of a directory that is this worker's alone, the same in each of its processes."""
    place = strategy.cluster_resolver
    return f"{place.task_type}-{place.task_id}"


def newest_of_all(held: Sequence[Sequence[Held]]) -> Held | None:
    """The last checkpoint that all workers have; None where the training has not begun.

    A worker saves after a step that all have taken, and none ends the next step before all have
    saved. After a kill one worker has therefore at most one checkpoint more than another, and the
    last two of each have one in common.

    Args:
        held: those of each worker.

    Raises:
        ValueError: if steps are saved, and no checkpoint is on all workers.
    """
    common = set(held[0]).intersection(*held[1:])
    if common:
        return max(common)
    if all(one.number == 0 for each in held for one in each):
        # Killed while the first one was saved, before any step.
        return None
    raise problem(
        f"checkpoints of {len(held)} workers, none of which all have: "
        f"{'; '.join(_described(index, each) for index, each in enumerate(held))}",
        "the complete directory of each worker",
        "restore the missing directory, or delete those of all workers to begin anew",
    )


def _described(index: int, held: Sequence[Held]) -> str:
    steps = " and ".join(str(one.number) for one in sorted(held))
    return f"worker {index} after {steps} steps" if steps else f"worker {index} without any"


def begin_together(
    strategy: tf.distribute.Strategy, read: Callable[[], Sequence[Checkpoint]], seed: int
) -> tuple[Checkpoint | None, int, int]:
    """What a worker begins with, after it has heard from all others; each of them calls this.

    Args:
        strategy: of all workers.
        read: gives the checkpoints of this training that this worker has and can read.
        seed: of the order of the data, if this worker were alone.

    Returns:
        The checkpoint, `None` for a training from its beginning; then the seed and the number of
        the run for that, which are those of the first worker.

    Raises:
        ValueError: if a worker cannot read its checkpoints, has those of another training, or has
            none in common with the others.
    """
    found: Sequence[Checkpoint] = ()
    error: Exception | None = None
    try:
        found = read()
    except (OSError, ValueError) as reason:
        # The others wait for what this worker has to tell.
        error = reason
    held = [Held(each.number, each.run) for each in found[:_MOST]]
    run = int(np.random.SeedSequence().generate_state(1)[0])
    table = np.full((_MOST + 1, 2), -1, np.int64)
    table[0] = (-1, -1) if error else (seed, run)
    table[1 : len(held) + 1] = np.reshape(held, (-1, 2))
    tables = _of_all_workers(strategy, table)
    if error is not None:
        raise error
    failed = [index for index, one in enumerate(tables) if one[0, 0] < 0]
    if failed:
        raise problem(
            f"worker {failed[0]} of {len(tables)}, which cannot begin",
            "checkpoints of this training, or none, on each worker",
            f"read the error of worker {failed[0]}",
        )
    everywhere = [[Held(*map(int, row)) for row in one[1:] if row[0] >= 0] for one in tables]
    chosen = newest_of_all(everywhere)
    checkpoint = None if chosen is None else found[held.index(chosen)]
    return checkpoint, int(tables[0][0, 0]), int(tables[0][0, 1])


def _of_all_workers(strategy: Any, table: np.ndarray) -> list[np.ndarray]:
    """The tables of all workers, in their order."""
    import tensorflow as tf

    with strategy.scope():
        own = strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(table[np.newaxis])
        )
        each = strategy.gather(own, axis=0).numpy()
    # Each replica of a worker has sent it.
    return list(each[:: len(strategy.extended.worker_devices)])
