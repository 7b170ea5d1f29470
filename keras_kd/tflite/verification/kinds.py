"""The kind of an output: scores of classes, or numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from keras_kd.tflite.file import TFLiteFile
from keras_kd.tflite.tensors import TensorInfo

# In names of losses, lower case and without underscores.
_CLASSIFYING = ("crossentropy", "hinge", "divergence", "dice", "tversky")
_MEASURING = (
    "meansquared", "meanabsolute", "huber", "logcosh", "poisson", "cosine", "mse", "mae", "mape",
    "msle",
)  # fmt: skip
_BOX = 4


@dataclass(frozen=True)
class OutputKind:
    """What is known of an output.

    Attributes:
        chooses: whether it chooses between classes; None where only its values can show it.
        is_probability: whether its values are parts of 1.
        are_labels: whether its columns are independent labels.
    """

    chooses: bool | None = None
    is_probability: bool = False
    are_labels: bool = False

    @property
    def task(self) -> str | None:
        """The task of `keras_kd.metrics` that it solves; None where only its values can show it."""
        if self.chooses is None:
            return None
        if not self.chooses:
            return "regression"
        return "multilabel" if self.are_labels else "classification"


def output_kinds(model: TFLiteFile, loss: Any) -> dict[str, OutputKind]:
    """What the outputs of a file are, as far as it is known without labels.

    An output chooses between classes if it ends in a softmax, or was trained with a loss for
    classes; otherwise not with a loss for numbers, with the shape of an input (reconstruction),
    with another activation than a sigmoid, as one number without activation, or as four of them
    beside other outputs (boxes). What is left may be logits; not if their columns differ in scale.
    Several columns with a sigmoid are independent labels.

    Args:
        model: the file.
        loss: what the student was trained with, as for `compile`; None where that is not known.
    """
    kinds = {}
    activations = model.flatbuffer.output_activations()
    states = model.state_outputs.values()
    for number, (tensor, activation) in enumerate(zip(model.outputs, activations, strict=True)):
        if tensor.name in states:
            kinds[tensor.name] = OutputKind(chooses=False)
            continue
        is_class = not tensor.is_quantized and tensor.dtype.kind in "iu"
        if is_class or activation in ("SOFTMAX", "LOG_SOFTMAX"):
            chooses: bool | None = True
        else:
            chooses = _by_loss(_loss_of(loss, tensor.name, number))
            if chooses is None:
                chooses = _by_form(tensor, activation, model)
        are_labels = activation == "LOGISTIC" and tensor.shape[1:] not in ((), (1,))
        is_probability = activation in ("SOFTMAX", "LOGISTIC")
        kinds[tensor.name] = OutputKind(chooses, is_probability, are_labels)
    return kinds


def _by_form(tensor: TensorInfo, activation: str, model: TFLiteFile) -> bool | None:
    if tensor.shape in [each.shape for each in model.inputs]:
        return False
    if activation != "NONE":
        return activation == "LOGISTIC"
    is_number = tensor.shape[1:] in ((), (1,))
    is_box = tensor.shape[-1] == _BOX and len(model.outputs) > 1
    return False if is_number or is_box else None


def _by_loss(loss: Any) -> bool | None:
    name = loss if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__)
    name = name.lower().replace("_", "")
    if any(part in name for part in _CLASSIFYING):
        return True
    return False if any(part in name for part in _MEASURING) else None


def _loss_of(loss: Any, name: str, number: int) -> Any:
    """What an output was trained with; None where that is not known."""
    if isinstance(loss, Mapping):
        return loss.get(name)
    if isinstance(loss, list | tuple):
        return loss[number] if number < len(loss) else None
    return loss
