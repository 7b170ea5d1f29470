"""When pruning happens: in which training steps the masks are chosen anew."""

from __future__ import annotations

from dataclasses import dataclass, replace
from numbers import Integral

from keras_kd._checks import problem

# The last quarter of a training recovers at full sparsity.
_SHARE_OF_TRAINING = 0.75
# More updates cost time (each sorts the weights) and gain nothing.
_UPDATES = 100


@dataclass(frozen=True)
class Timetable:
    """Masks are chosen anew every `frequency` steps up to `end_step`, where sparsity is final.

    Updates are counted back from `end_step`, so the last one is never missed. What is None is
    chosen by `within` once the length of the training is known.
    """

    begin_step: int = 0
    end_step: int | None = None
    frequency: int | None = None

    def __post_init__(self) -> None:
        self._check("begin_step", 0)
        if self.end_step is not None:
            self._check("end_step", self.begin_step + 1)
        if self.frequency is not None:
            self._check("frequency", 1)
        if self.end_step is not None and self.frequency is None:
            span = self.end_step - self.begin_step
            object.__setattr__(self, "frequency", max(1, span // _UPDATES))
        if self.is_known:
            span = self.end_step - self.begin_step
            object.__setattr__(
                self, "begin_step", self.end_step - span // self.frequency * self.frequency
            )

    @property
    def is_known(self) -> bool:
        """Whether every step is known."""
        return self.end_step is not None and self.frequency is not None

    def within(self, steps: int) -> Timetable:
        """The timetable for a training that ends after `steps` steps.

        Raises:
            ValueError: if the training ends before pruning begins.
        """
        if self.end_step is not None:
            return self
        if steps <= self.begin_step:
            raise ValueError(
                problem(
                    f"a training of {steps} steps with begin_step={self.begin_step}",
                    "a training that goes on after `begin_step`",
                    "train longer or lower `begin_step`",
                )
            )
        span = max(1, int((steps - self.begin_step) * _SHARE_OF_TRAINING))
        return replace(self, end_step=self.begin_step + span)

    def _check(self, name: str, at_least: int) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, Integral):
            raise TypeError(
                problem(f"{name}={value!r}", "a whole number of training steps", "pass an int")
            )
        if value < at_least:
            raise ValueError(
                problem(
                    f"{name}={value}",
                    f"at least {at_least}",
                    "count training steps (batches), beginning with 0",
                )
            )
        # NumPy's integers wrap around and are not serialized.
        object.__setattr__(self, name, int(value))
