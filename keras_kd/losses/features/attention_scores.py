"""Attention scores: which positions of a sequence each head of a transformer attends to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_kd._checks import check_choice, check_integer, problem, shapes_fit
from keras_kd.losses.base import OutputKey, Pair
from keras_kd.losses.features.base import FeatureLoss, LayerNames
from keras_kd.losses.reduction import align, weight_of_examples, weighted_mean

READINGS = ("scores", "probabilities")


def attention_scores(teacher_scores: Any, student_scores: Any) -> Any:
    """Squared differences: both `(batch, heads, queries, keys)`, and so is the result."""
    return ops.square(student_scores - teacher_scores)


def select_heads(scores: Any, heads: Sequence[Sequence[int]]) -> Any:
    """For each of the student's heads, the mean of some of the teacher's.

    Args:
        scores: tensor of shape `(batch, teacher heads, queries, keys)`.
        heads: for each of the student's heads the indexes of the teacher's.

    Returns:
        A tensor of shape `(batch, student heads, queries, keys)`.
    """
    chosen = [ops.mean(ops.take(scores, list(group), axis=1), axis=1) for group in heads]
    return ops.stack(chosen, axis=1)


@keras.saving.register_keras_serializable(package="keras_kd")
class AttentionScores(FeatureLoss):
    """Attention scores, as in TinyBERT: mean squared difference, head by head.

    Transfers which tokens look at which. Names the attention layers themselves: the
    `MultiHeadAttention` and `GroupedQueryAttention` of Keras, the layers of KerasHub that are
    derived from them, and those inside other layers ("transformer_layer_3/self_attention_layer").
    `keras_kd.Distiller` records them in the model's own forward pass, whether or not they return
    their scores; it computes the product of queries and keys once more where Keras fuses it with
    the softmax. Its usual weight is 1.

        loss = mean over heads, queries and keys of (student_h - teacher_{heads[h]})^2

    Scores have the shape `(batch, heads, queries, keys)`: q . k / sqrt(size of a head), before
    masks and softmax, or the probabilities behind them. Pairs count where the student's query
    attends to the key and both are tokens: neither padding nor what a causal mask hides counts.

    Args:
        teacher_layer_name: the teacher's attention layer, or a list of layers.
        student_layer_name: the student's, or as many.
        heads: for each of the student's heads, the index of the teacher's head that it learns from,
            or a list of several, of which it learns the mean. `None` pairs heads by their order and
            needs equally many.
        compare: `"scores"`, as TinyBERT, or `"probabilities"`, the scores' softmax over the keys.

    Raises:
        TypeError: if `heads` holds anything but indexes and lists of them.
        ValueError: if an index is below 0 or `compare` is unknown; later, if heads or lengths of
            the sequences do not fit.

    Example:
        >>> import numpy as np
        >>> teacher, student = np.zeros((1, 4, 2, 2)), np.ones((1, 2, 2, 2))
        >>> loss = AttentionScores("encoder/attention", "attention", heads=[0, [2, 3]])
        >>> float(loss.compute_loss(teacher, student))
        1.0

    Reference:
        Jiao, Yin, Shang, Jiang, Chen, Li, Wang, Liu: TinyBERT: Distilling BERT for Natural Language
        Understanding, Findings of EMNLP 2020, whose scores are not normalized either. The authors'
        code takes scores of padded keys for 0 in both models and divides by all pairs; here they
        are left out of sum and number. The paper has equally many heads.
    """

    def __init__(
        self,
        teacher_layer_name: LayerNames | None = None,
        student_layer_name: LayerNames | None = None,
        *,
        heads: Sequence[int | Sequence[int]] | None = None,
        compare: str = "scores",
    ) -> None:
        super().__init__(teacher_layer_name, student_layer_name, adapter=None)
        self.heads = _check_heads(heads)
        self.compare = check_choice("compare", compare, READINGS)

    def layers(self, side: str) -> list[str]:
        """The attention layers of one model, and what is read of them."""
        return [f"{name}:{self.compare}" for name in super().layers(side)]

    def needed_shape(self, teacher_shape: Any, student_shape: Any) -> Any:
        """The student's own shape."""
        return student_shape

    def check_shapes(self, key: OutputKey | None, teacher_shape: Any, student_shape: Any) -> None:
        """Check one pair of shapes: attention over the same positions, with heads that fit.

        Raises:
            ValueError: if they do not fit.
        """
        taught, learning = tuple(teacher_shape), tuple(student_shape)
        received = f"attention of shape {taught} from the teacher and {learning} from the student"
        if {len(taught), len(learning)} != {4} or not shapes_fit(taught[2:], learning[2:]):
            raise problem(
                received,
                "shapes (batch, heads, queries, keys) with the same queries and keys",
                "name attention layers that read sequences of the same length",
            )
        taught, learning = taught[1], learning[1]
        if self.heads is None and taught != learning:
            example = [index * taught // learning for index in range(learning)]
            raise problem(
                f"{received}, with {taught} and {learning} heads",
                "equally many heads, or a teacher's head for each of the student's",
                f"name it, for example heads={example}",
            )
        if self.heads is not None:
            highest = max(index for group in self._groups() for index in group)
            if len(self.heads) != learning or highest >= taught:
                raise problem(
                    f"heads={self.heads} for {taught} heads of the teacher and {learning} of "
                    "the student",
                    f"{learning} entries with indexes below {taught}",
                    "give one entry for each of the student's heads",
                )

    def of_pair(self, pair: Pair, **context: Any) -> Any:
        """The weighted mean over the pairs of positions that count.

        Args:
            pair: tensors of shape `(batch, heads, queries, keys)`; sample weights of shape
                `(batch,)` or `(batch, queries)`; a mask of shape `(batch,)`, `(batch, positions)`
                for queries and keys, `(batch, queries, keys)`, or `(batch, heads or 1, queries,
                keys)`.
            **context: nothing that counts.
        """
        student, weight, mask = pair.student, pair.sample_weight, pair.mask
        if weight is not None:
            weight = _of_queries(weight, student)
        if mask is not None:
            mask = _of_pairs(mask, student)
            student = ops.where(mask, student, 0.0)
        values = self.per_example(pair.teacher, student, **context)
        return weighted_mean(values, weight, mask)

    def per_example(self, teacher_output: Any, student_output: Any, **context: Any) -> Any:
        """`attention_scores` of the heads that belong together."""
        if self.heads is not None:
            teacher_output = select_heads(teacher_output, self._groups())
        return attention_scores(teacher_output, student_output)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        config = super().get_config()
        del config["adapter"]
        return {**config, "heads": self.heads, "compare": self.compare}

    def _groups(self) -> list[list[int]]:
        return [group if isinstance(group, list) else [group] for group in self.heads or ()]


def _check_heads(heads: Any) -> list[int | list[int]] | None:
    if heads is None:
        return None
    fix = "pass for example heads=[0, 4, 8], or [[0, 1], [2, 3]] for means of two"

    def check(index: Any) -> int:
        return check_integer("a head", index, at_least=0, fix=fix)

    if not isinstance(heads, list | tuple) or any(one in ([], ()) for one in [heads, *heads]):
        raise problem(f"heads={heads!r}", "a list with an entry per head", fix, kind=TypeError)
    return [
        [check(index) for index in group] if isinstance(group, list | tuple) else check(group)
        for group in heads
    ]


def _of_queries(sample_weight: Any, scores: Any) -> Any:
    """Weights `(batch,)`, or of each query, as `(batch, 1, queries or 1, 1)`."""
    weight = ops.convert_to_tensor(sample_weight)
    if not shapes_fit(weight.shape[1:], scores.shape[2:3]):
        return align(weight_of_examples(weight), scores)
    return weight[:, None, :, None]


def _of_pairs(mask: Any, scores: Any) -> Any:
    """A mask of examples, positions or pairs, with the axes of the scores."""
    mask = ops.cast(ops.convert_to_tensor(mask), "bool")
    if len(mask.shape) == 2 and mask.shape[1] != 1:
        mask = ops.logical_and(mask[:, :, None], mask[:, None, :])
    if len(mask.shape) == 3:
        mask = mask[:, None]
    return ops.broadcast_to(align(mask, scores), ops.shape(scores))
