"""A user's family of students: a function of KerasTuner's `HyperParameters`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_kd._checks import one_line, problem
from keras_kd.compression.bridge import graph as graphs


@dataclass(frozen=True)
class OfUser:
    """A member of a user's family: `make` is a function of `keras_tuner.HyperParameters`."""

    make: Callable[[Any], Any]
    values: Mapping[str, Any]
    seed: int

    @property
    def name(self) -> str:
        """See `Proposal`."""
        return ", ".join(f"{key}={_short(value)}" for key, value in self.values.items()) or "model"

    def build(self) -> keras.Model:
        """See `Proposal`."""
        keras.utils.set_random_seed(self.seed)
        hyperparameters = tuner().HyperParameters()
        hyperparameters.values = dict(self.values)
        return checked(self.make(hyperparameters))

    def settings(self) -> dict[str, Any]:
        """See `Proposal`."""
        return dict(self.values)

    def code(self) -> str:
        """See `Proposal`."""
        called = getattr(self.make, "__name__", "")
        # A lambda and an object that is called have no name of their own.
        called = called if called.isidentifier() else "build_student"
        return "\n".join(
            [
                "import keras_tuner",
                "",
                f"# {called}: the function that was given as student.",
                f"keras.utils.set_random_seed({self.seed})",
                "hyperparameters = keras_tuner.HyperParameters()",
                f"hyperparameters.values = {dict(self.values)!r}",
                f"student = {called}(hyperparameters)",
            ]
        )


def samples(
    make: Callable[[Any], Any], seed: int, most: int, most_tries: int
) -> Iterator[tuple[OfUser, str | None]]:
    """Members of a user's family, each once, drawn at random from the ranges of its parameters.

    Args:
        make: a function of `keras_tuner.HyperParameters` that returns a model.
        seed: of the draws, and of the weights that members begin with.
        most: how many are drawn.
        most_tries: how many draws may give a member that was drawn before.

    Yields:
        The member, and why it cannot be built, or None.
    """
    space = tuner().HyperParameters()
    checked(make(space))
    random = np.random.default_rng(seed)
    seen: list[Mapping[str, Any]] = []
    for _ in range(most_tries):
        if len(seen) == most:
            return
        drawn = tuner().HyperParameters()
        drawn.values = {
            each.name: each.random_sample(int(random.integers(2**31))) for each in space.space
        }
        # What decided a member before decides this one, too: building it would cost time.
        if any(used.items() <= drawn.values.items() for used in seen):
            continue
        reason = None
        try:
            checked(make(drawn))
        except (ValueError, TypeError) as error:
            reason = one_line(error)
        # Which parameters there are may depend on the values of others: known after a build.
        space.merge(drawn)
        used = {each.name: drawn.values[each.name] for each in drawn.space}
        if used not in seen:
            seen.append(used)
            yield OfUser(make, used, seed % 2**32), reason


def tuner() -> Any:
    """The package `keras_tuner`.

    Raises:
        ModuleNotFoundError: if it is not installed.
    """
    try:
        import keras_tuner
    except ModuleNotFoundError as error:
        raise problem(
            "a family of students without keras-tuner",
            "KerasTuner, whose HyperParameters the function takes",
            "pip install 'keras-kd[tuning]'",
            kind=ModuleNotFoundError,
        ) from error
    return keras_tuner


def checked(model: Any) -> keras.Model:
    """What a user's function returned, if it is a Keras 3 model.

    Raises:
        TypeError: if it is not.
        ValueError: if it is not built.
    """
    if not isinstance(model, keras.Model):
        raise problem(
            f"a student of type {type(model).__name__}",
            "a keras.Model from the function given as student",
            "return the model from the function",
            kind=TypeError,
        )
    graphs.read(model)
    return model


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
