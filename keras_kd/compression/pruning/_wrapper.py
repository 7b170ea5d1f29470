"""TF-MOT's pruning wrapper, completed, and the callback that trains students with it.

Importing this imports TF-MOT, which takes seconds.
"""

from __future__ import annotations

import inspect
import itertools
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from keras_kd._checks import problem, three_parts
from keras_kd.compression._tfmot import pruning_wrapper
from keras_kd.compression.bridge.translation import LayerRecord, record_of
from keras_kd.compression.bridge.weights import weight_name
from keras_kd.compression.kernels import kernels
from keras_kd.compression.pruning import _schedules, patterns
from keras_kd.compression.pruning._schedules import Schedule
from keras_kd.compression.pruning.patterns import Pattern
from keras_kd.compression.pruning.schedule import Training


@tf_keras.saving.register_keras_serializable("keras_kd")
class PruneLowMagnitude(pruning_wrapper.PruneLowMagnitude):
    """TF-MOT's wrapper with its own choice of weights, patterns and moment.

    Masks are chosen and applied after each update of a kernel by an optimizer, as a constraint on
    the kernel. TF-MOT's wrapper does it in the forward pass: a layer that is called twice in a step
    counts two steps there, and weights that the last step has moved are not zero before the next.

    Args:
        layer: a tf_keras layer.
        pruning_schedule: a `Schedule`, or another of TF-MOT's form.
        pattern: which weights become zero together.
    """

    def __init__(self, layer: Any, pruning_schedule: Any, pattern: Pattern, **options: Any) -> None:
        if not hasattr(layer, "get_prunable_weights"):
            # TF-MOT uses its registry otherwise, which has few layers.
            layer.get_prunable_weights = lambda: [kernel.variable for kernel in kernels(layer)]
        dtype = {"dtype": layer.dtype_policy}
        super().__init__(layer, pruning_schedule=pruning_schedule, **{**dtype, **options})
        self.pattern = pattern
        self.supports_masking = layer.supports_masking
        # Arguments, masks and precision are handed on as if the layer were called itself.
        self._call_spec = layer._call_spec
        self._autocast = layer._autocast
        self._compute_output_and_mask_jointly = getattr(
            layer, "_compute_output_and_mask_jointly", False
        )

    def build(self, input_shape: Any) -> None:
        """Build the layer, and the masks of its kernels."""
        super(pruning_wrapper.PruneLowMagnitude, self).build(input_shape)
        if kernels(self.layer):
            self._add_masks()

    def add_weight(self, name: str, **options: Any) -> Any:
        """A weight of the wrapper. TF-MOT gives several one name, which no `.h5` file can hold."""
        taken = {weight_name(weight) for weight in self._non_trainable_weights}
        names = itertools.chain([name], (f"{name}_{number}" for number in itertools.count(1)))
        return super().add_weight(next(free for free in names if free not in taken), **options)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call with the layer's own arguments."""
        # tf_keras requires one positional argument, and finds `training` and `mask` by name.
        call = getattr(self.layer, "keras_layer", self.layer).call
        names = list(inspect.signature(call).parameters)
        named = {**dict(zip(names, args, strict=False)), **kwargs}
        return super().__call__(named.pop(names[0]), **named)

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """The wrapped layer's outputs."""
        outputs = self.layer.call(*args, **kwargs)
        if not self.pruning_vars:
            # Attention has no weights before it is called.
            with tf.init_scope():
                self._add_masks()
        return outputs

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """The mask of padding that the wrapped layer computes."""
        return self.layer.compute_mask(inputs, mask)

    def falls_short(self) -> bool:
        """Whether the final sparsity of the schedule would make more weights zero than now."""
        final = getattr(self.pruning_schedule, "final_sparsity", None)
        return final is not None and any(
            np.any(np.asarray(self._mask(index, weight, final) == 0) & (weight.numpy() != 0))
            for index, (weight, _, _) in enumerate(self.pruning_vars)
        )

    def after_update(self, index: int, weight: tf.Tensor) -> tf.Tensor:
        """Kernel number `index` after a step of an optimizer: masked according to the schedule."""
        if isinstance(self.pruning_schedule, _schedules.Schedule):
            self.pruning_schedule.check_ready()
        if index == 0:
            # Not before there is a batch: a step that finds the data at an end is none.
            with tf.control_dependencies([weight]):
                self.pruning_step.assign_add(1)
        is_due, sparsity = self.pruning_schedule(self.pruning_step)
        _, mask, _ = self.pruning_vars[index]
        mask.assign(
            tf.cond(is_due, lambda: self._mask(index, weight, sparsity), lambda: tf.identity(mask))
        )
        return weight * mask

    def get_config(self) -> dict[str, Any]:
        """The configuration, complete."""
        config = super().get_config()
        del config["block_size"], config["block_pooling_type"]
        return {
            **config,
            "pruning_schedule": _schedules.to_config(self.pruning_schedule),
            "pattern": self.pattern.get_config(),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> PruneLowMagnitude:
        """The wrapper of `get_config`."""
        layer = config["layer"]
        # Within an `.h5` file a class has this name alone.
        registered = layer.get("registered_name") or layer["class_name"]
        return cls(
            **{
                **config,
                "layer": tf_keras.layers.deserialize({**layer, "class_name": registered}),
                "pruning_schedule": _schedules.from_config(config["pruning_schedule"]),
                "pattern": patterns.from_config(config["pattern"]),
            }
        )

    def _add_masks(self) -> None:
        super().build(None)
        # TF-MOT leaves it to its callback.
        self.pruning_step.assign(0)
        self._axes = [kernel.axes for kernel in kernels(self.layer)]
        for index, (weight, _, _) in enumerate(self.pruning_vars):
            # In mixed precision there is a variable behind the variable.
            variable = getattr(weight, "_variable", weight)
            constraint = _Constraint(self, index, variable.constraint)
            # With tf.distribute there is a variable for each replica.
            for one in getattr(variable, "values", [variable]):
                one._constraint = constraint

    def _mask(self, index: int, weight: Any, sparsity: Any) -> tf.Tensor:
        magnitudes = tf.abs(weight)
        # A mask that removed every NaN would hide that the training has failed.
        magnitudes = tf.where(tf.math.is_nan(magnitudes), magnitudes.dtype.max, magnitudes)
        axes = self._axes[index]
        if axes is None:
            mask = self.pattern.mask(magnitudes, sparsity)
        else:
            matrices = self.pattern.mask(axes.as_matrices(magnitudes), sparsity)
            mask = axes.as_kernel(matrices, weight.shape)
        return tf.cast(mask, magnitudes.dtype)


class _Constraint:
    """The constraint that a kernel had, and then pruning."""

    def __init__(
        self, wrapper: PruneLowMagnitude, index: int, own: Callable[[Any], Any] | None
    ) -> None:
        self._wrapper, self._index, self._own = wrapper, index, own

    def __call__(self, weight: Any) -> tf.Tensor:
        value = weight if self._own is None else self._own(weight)
        return self._wrapper.after_update(self._index, tf.convert_to_tensor(value))


def dismantle(layer: Any) -> Sequence[LayerRecord] | None:
    """The layer inside a pruning wrapper, its masked weights zero; None for any other layer."""
    if not isinstance(layer, pruning_wrapper.PruneLowMagnitude):
        return None
    record = record_of(layer.layer)
    names = {id(kernel.variable): kernel.name for kernel in kernels(layer.layer)}
    masked = {
        names[id(weight)]: np.where(mask.numpy() == 0, 0, weight.numpy()).astype(weight.dtype.name)
        for weight, mask, _ in layer.pruning_vars
        if id(weight) in names
    }
    return [replace(record, weights={**record.weights, **masked})]


def set_callbacks(student: Any) -> None:
    """Give a student with pruned layers what makes the callbacks that it needs while it trains."""
    wrappers = [layer for layer in student.layers if isinstance(layer, PruneLowMagnitude)]
    if wrappers:
        student.training_callbacks = lambda: [PruningCallback(wrappers)]


class PruningCallback(tf_keras.callbacks.Callback):
    """Fixes open schedules when the length of the training is known, and checks what was reached.

    It is given its layers when it is made, so it also works in the training of a model that
    contains the pruned one.
    """

    def __init__(self, layers: Sequence[PruneLowMagnitude]) -> None:
        super().__init__()
        self._layers = list(layers)
        schedules = (layer.pruning_schedule for layer in self._layers)
        self._schedules = [each for each in schedules if isinstance(each, Schedule)]
        self._start: tuple[int, int] | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        """Let steps begin whose schedule is still open."""
        self._start = None
        for schedule in self._schedules:
            schedule.has_callback = True

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Fix the schedules in the first epoch for which the number of steps is known."""
        if not any(schedule.is_open for schedule in self._schedules):
            return
        done = self._steps_done()
        self._start = self._start or (epoch, done)
        steps_per_epoch = self.params.get("steps")
        first_epoch, done_before = self._start
        if steps_per_epoch is None and epoch > first_epoch:
            # The number of steps of a generator is known after its first epoch.
            steps_per_epoch = (done - done_before) // (epoch - first_epoch)
        epochs = self.params["epochs"]
        if steps_per_epoch is not None:
            for schedule in self._schedules:
                schedule.fix(Training(done, epoch, epochs, steps_per_epoch))
        elif epochs - epoch == 1:
            raise problem(
                "data of unknown length for a single epoch of pruning",
                "a number of steps, from which the pruning schedule is chosen",
                "pass `steps_per_epoch` to `fit`, or a schedule with `end_step` to `prune`",
            )

    def on_train_end(self, logs: Any = None) -> None:
        """Warn if the weights are less sparse than the schedule's end."""
        dense = [layer.layer.name for layer in self._layers if layer.falls_short()]
        if dense:
            warnings.warn(
                three_parts(
                    f"a training after which the layers {dense} are less sparse than requested,"
                    f" {self._steps_done()} steps from the beginning",
                    f"a training up to the end of the schedule{self._end()}, by an optimizer of"
                    " tf_keras, with no callback that restores earlier weights",
                    "train longer, leave `end_step` out of the schedule, or leave out"
                    " restore_best_weights of EarlyStopping",
                ),
                stacklevel=2,
            )

    def _steps_done(self) -> int:
        return max(int(layer.pruning_step.numpy()) for layer in self._layers)

    def _end(self) -> str:
        timetables = (each.timetable for each in self._schedules)
        ends = {each.end_step for each in timetables if each is not None}
        return f" (step {max(ends)})" if ends else ""
