"""Trials of a benchmark, several at a time, none of them twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

from loss_results import Results


@dataclass(frozen=True)
class Trial:
    """One training to be scored.

    Attributes:
        label: what a line of progress calls it.
        description: tells its result from others in the file.
        arguments: what the function that runs it is given first.
    """

    label: str
    description: dict[str, Any]
    arguments: tuple


def run_trials(
    measure: Callable[..., dict[str, float]],
    trials: Sequence[Trial],
    place: tuple,
    jobs: int,
    results: Results,
    teacher: tuple[Callable[..., float], dict[str, Any]],
) -> Iterator[str]:
    """Run what is missing in the results and yield a line on each trial as it ends.

    Args:
        measure: runs a trial in a process of its own: its accuracy in percent, its seconds, and
            whatever else is to be kept.
        trials: what is wanted.
        place: what each process is told of models and data, after a trial's own arguments.
        jobs: how many run at a time.
        results: where they are kept.
        teacher: what makes the teacher and gives its accuracy, before all others, and the
            description of that.
    """
    wanted = [trial for trial in trials if results.find(trial.description) is None]
    with workers(jobs) as pool:
        if wanted:
            score, description = teacher
            accuracy = pool.submit(score, *place).result()
            results.add(description, accuracy=accuracy)
            yield f"the teacher: {accuracy:.2f} %"
        running = {pool.submit(measure, *trial.arguments, *place): trial for trial in wanted}
        for number, future in enumerate(as_completed(running), 1):
            trial = running[future]
            start = f"{number}/{len(wanted)} {trial.label}:"
            if future.exception() is not None:
                yield f"{start} failed: {future.exception()}"
                continue
            measured = future.result()
            results.add(trial.description, **measured)
            yield f"{start} {measured['accuracy']:.2f} % ({measured['seconds']:.0f} s)"


def workers(count: int) -> ProcessPoolExecutor:
    """Processes of one core each."""
    return ProcessPoolExecutor(count, get_context("spawn"), one_thread)


def one_thread() -> None:
    """Make this process compute on one core and repeatably; before TensorFlow does anything."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.experimental.enable_op_determinism()
