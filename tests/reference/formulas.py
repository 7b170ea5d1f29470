"""Every public loss in one table: what the contract test must know of it, its formula above all.

A new loss needs a formula in NumPy, beside those of its kind, and a row in `REFERENCES`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from reference import features, logits, relations
from reference.logits import (  # noqa: F401
    log_softmax,
    logits_mean_squared_error,
    soft_cross_entropy,
    soft_targets,
    soften,
)

LOGITS = (5,)
MAP = (4, 4, 3)
VECTOR = (6,)
MARGIN = [-0.5, -1.0, -0.2]


@dataclass(frozen=True)
class Reference:
    """What holds for one loss.

    Attributes:
        formula: the loss in NumPy, `formula(teacher, student, **arguments)`: an array of one value
            per example (or position), or one value per batch.
        teacher: shape of an example of the teacher's tensor, or a list of them for two layers.
        student: the same of the student.
        arguments: what the contract gives the constructor and the formula.
        changed: a value for every argument of the constructor that all losses of its kind do not
            have, none of them the default.
        golden: the cases of loss_vectors.npz, each with the arguments that it was made with. A
            string stands for an array of the case.
        golden_weights: arrays of a golden case that the loss's own weights are set to.
        least: where the minimum is: "zero" where student equals teacher, "equality" if the value
            there is the least but not zero, "elsewhere" if it is not there.
        of_batch: whether it is a property of the batch, not a mean over examples.
        ordered: whether the order of the batch matters, which the docstring must say.
        labels: whether it needs labels; the formula takes them as `labels`.
        own_weights: what the formula calls the weights that the loss learns, in their order.
        not_in_keras: why it cannot work in Keras' own Distiller, which gives no labels and one
            tensor; empty if it can.
    """

    formula: Callable[..., Any]
    teacher: Any = LOGITS
    student: Any = LOGITS
    arguments: dict[str, Any] = field(default_factory=dict)
    changed: dict[str, Any] = field(default_factory=dict)
    golden: dict[str, dict[str, Any]] = field(default_factory=dict)
    golden_weights: Sequence[str] = ()
    least: str = "zero"
    of_batch: bool = False
    ordered: bool = False
    labels: bool = False
    own_weights: Sequence[str] = ()
    not_in_keras: str = ""

    def inputs(self, seed: int = 5, batch: int = 6, scale: float = 2.0) -> tuple[Any, Any, Any]:
        """Tensors of a teacher and a student in float32, and labels or `None`."""
        random = np.random.default_rng(seed)

        def draw(shape):
            if isinstance(shape, list):
                return [draw(part) for part in shape]
            return random.normal(scale=scale, size=(batch, *shape)).astype("float32")

        teacher, student = draw(self.teacher), draw(self.student)
        return teacher, student, random.integers(0, 5, batch) if self.labels else None

    def values(self, teacher: Any, student: Any, labels: Any = None, weights: Any = ()) -> Any:
        """The formula with the arguments of the contract: per example or one per batch."""
        known = {"labels": labels} if self.labels else {}
        own = dict(zip(self.own_weights, weights, strict=True))
        return self.formula(teacher, student, **self.arguments, **known, **own)

    def value(self, *inputs: Any, weights: Any = ()) -> float:
        """The loss of a batch without sample weights."""
        return float(np.mean(self.values(*inputs, weights=weights)))


def cross_entropy(labels, outputs):
    """The loss on integer labels, per example."""
    chosen = np.take_along_axis(log_softmax(outputs), np.asarray(labels)[..., None], axis=-1)
    return -chosen[..., 0]


def gradient(formula, student, step=1e-6):
    """Central differences of the scalar `formula(student)`."""
    student = np.asarray(student, "float64")
    result = np.zeros_like(student)
    for index in np.ndindex(student.shape):
        offset = np.zeros_like(student)
        offset[index] = step
        result[index] = (formula(student + offset) - formula(student - offset)) / (2 * step)
    return result


REFERENCES = {
    "ActivationBoundary": Reference(
        features.activation_boundary,
        teacher=MAP,
        student=MAP,
        changed={"margin": 2.0},
        golden={"activation_boundary_m1": {"margin": 1.0}},
        least="elsewhere",
    ),
    "AttentionScores": Reference(
        features.attention_scores,
        teacher=(3, 4, 4),
        student=(3, 4, 4),
        arguments={"heads": [2, [0, 1], 1]},
        changed={"heads": [1, [0, 2]], "compare": "probabilities"},
        least="elsewhere",
        not_in_keras="it reads attention, not the output of a layer",
    ),
    "AttentionTransfer": Reference(
        features.attention_transfer,
        teacher=(8, 4, 2),
        student=MAP,
        changed={"power": 3},
        golden={
            "attention_transfer_p2": {"power": 2},
            "attention_transfer_p2_pooled": {"power": 2},
        },
    ),
    "ChannelWiseDistillation": Reference(
        features.channel_wise,
        teacher=MAP,
        student=MAP,
        arguments={"temperature": 2.0},
        changed={"temperature": 3.0},
    ),
    "ContrastiveRepresentation": Reference(
        relations.contrastive_representation,
        teacher=(3, 2),
        student=VECTOR,
        arguments={"temperature": 0.5},
        changed={"temperature": 0.1, "projection_units": 8},
        least="elsewhere",
        of_batch=True,
        own_weights=("teacher_projection", "student_projection"),
    ),
    "CorrelationCongruence": Reference(
        relations.correlation_congruence,
        teacher=VECTOR,
        student=VECTOR,
        golden={"correlation_congruence": {}},
        of_batch=True,
        ordered=True,
    ),
    "DIST": Reference(
        logits.dist,
        changed={"temperature": 7.0, "inter_weight": 2.0, "intra_weight": 3.0},
        golden={
            "dist_b1_g1_T1": {},
            "dist_b2_g2_T4": {"temperature": 4.0, "inter_weight": 2.0, "intra_weight": 2.0},
        },
        of_batch=True,
    ),
    "DecoupledKD": Reference(
        logits.decoupled,
        changed={"temperature": 7.0, "alpha": 2.0, "beta": 3.0},
        golden={
            "dkd_a1_b8_T4": {"temperature": 4.0, "alpha": 1.0, "beta": 8.0},
            "dkd_a1_b2_T1": {"temperature": 1.0, "alpha": 1.0, "beta": 2.0},
        },
        labels=True,
        not_in_keras="it gives no labels",
    ),
    "DirectionMatching": Reference(
        logits.direction_matching,
        changed={"tikhonov": 0.5},
        golden={"skd_direction_t0.1": {"tikhonov": 0.1}},
        of_batch=True,
    ),
    "FactorTransfer": Reference(
        features.factor_transfer,
        teacher=(8, 4, 2),
        student=MAP,
        changed={"power": 3, "norm": 2},
        golden={"factor_transfer_p2_1": {"power": 2, "norm": 1}},
    ),
    "FlowOfSolution": Reference(
        lambda teacher, student: features.flow_of_solution(*teacher, *student),
        teacher=[(4, 4, 3), (2, 2, 2)],
        student=[(4, 4, 3), (2, 2, 2)],
        golden={"flow_of_solution": {}},
        not_in_keras="it gives one layer of each model",
    ),
    "HierarchicalContext": Reference(
        features.hierarchical_context,
        teacher=MAP,
        student=MAP,
        changed={"levels": [2, 1]},
        golden={"review_hcl": {}},
    ),
    "HardTargets": Reference(
        logits.hard_targets,
        arguments={"label_smoothing": 0.1},
        changed={"label_smoothing": 0.2},
        least="elsewhere",
    ),
    "Hint": Reference(features.hint, teacher=MAP, student=MAP, golden={"hint_mse": {}}),
    "InterChannelCorrelation": Reference(
        features.inter_channel_correlation,
        teacher=MAP,
        student=MAP,
        golden={"inter_channel_correlation": {}},
        of_batch=True,
    ),
    "LogitsMSE": Reference(logits_mean_squared_error, golden={"mse_logits": {}}),
    "NeuronSelectivityTransfer": Reference(
        features.neuron_selectivity_transfer,
        teacher=(8, 4, 2),
        student=MAP,
        golden={"neuron_selectivity_transfer": {}},
    ),
    "OutputDifference": Reference(
        logits.output_difference,
        changed={"student_layer_name": "hidden"},
        own_weights=("kernel", "bias"),
    ),
    "PartialL2": Reference(
        features.partial_l2,
        teacher=MAP,
        student=MAP,
        arguments={"margin": MARGIN},
        changed={"margin": [-1.0, -2.0]},
        golden={"overhaul_partial_l2": {"margin": "margin"}},
        least="elsewhere",
    ),
    "ProbabilisticTransfer": Reference(
        relations.probabilistic_transfer,
        teacher=(2, 4),
        student=VECTOR,
        golden={"probabilistic_transfer": {}},
        of_batch=True,
    ),
    "Relational": Reference(
        relations.relational,
        teacher=(2, 4),
        student=VECTOR,
        changed={"distance_weight": 1.0, "angle_weight": 2.0},
        golden={
            "relational_d25_a50": {},
            "relational_d1_a0": {"distance_weight": 1.0, "angle_weight": 0.0},
        },
        of_batch=True,
    ),
    "SimilarityPreserving": Reference(
        relations.similarity_preserving,
        teacher=(2, 4),
        student=VECTOR,
        golden={"similarity_preserving": {}},
        of_batch=True,
    ),
    "SimpleRecipe": Reference(
        features.simple_recipe,
        teacher=VECTOR,
        student=VECTOR,
        changed={"exponent": 4.0},
        golden={"simple_recipe_log_l1": {"exponent": 1.0}},
        least="equality",
        of_batch=True,
    ),
    "SoftCrossEntropy": Reference(
        soft_cross_entropy,
        changed={
            "temperature": 7.0,
            "scale_by_temperature_squared": False,
            "activation": "sigmoid",
        },
        golden={"soft_cross_entropy_T4": {"temperature": 4.0}},
        least="equality",
    ),
    "SoftTargets": Reference(
        soft_targets,
        changed={
            "temperature": 7.0,
            "scale_by_temperature_squared": False,
            "activation": "sigmoid",
        },
        golden={
            "soft_target_T1": {"temperature": 1.0},
            "soft_target_T4": {"temperature": 4.0},
            "soft_target_T20": {"temperature": 20.0},
        },
    ),
    "StandardizedSoftTargets": Reference(
        logits.standardized_soft_targets,
        changed={"temperature": 7.0},
        golden={"logit_standardized_kd_T2": {"temperature": 2.0}},
    ),
    "VariationalInformation": Reference(
        features.variational_information,
        teacher=MAP,
        student=MAP,
        changed={"epsilon": 1e-3},
        golden={"variational_information": {"epsilon": 1e-5}},
        golden_weights=("log_scale",),
        least="equality",
        own_weights=("log_scale",),
    ),
}
