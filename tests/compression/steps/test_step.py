import itertools

import keras
import pytest

from keras_kd.compression.families import BY_NAME
from keras_kd.compression.steps.step import Step, check_order

SENSIBLE = ["factorize", "remove_filters", "prune", "cluster", "quantize_aware"]


def test_every_part_of_the_sensible_order_is_accepted():
    for count in range(1, len(SENSIBLE) + 1):
        for kinds in itertools.combinations(SENSIBLE, count):
            check_order([Step(kind) for kind in kinds])
    check_order([Step("remove_filters"), Step("factorize")])


@pytest.mark.parametrize(
    ("earlier", "later", "reason"),
    [
        ("prune", "factorize", "the factors of a sparse kernel are dense"),
        ("prune", "remove_filters", "the zeros would be lost"),
        ("cluster", "factorize", "as many values as any other"),
        ("cluster", "remove_filters", "the clusters would be lost"),
        ("cluster", "prune", "the clusters would be lost"),
        *(("quantize_aware", kind, "rounding of quantization-aware") for kind in SENSIBLE),
        ("prune", "prune", "once with the final setting"),
    ],
)
def test_impossible_orders_are_refused_with_the_reason(earlier, later, reason):
    with pytest.raises(ValueError, match=rf"step '{later}' after '{earlier}'.*{reason}"):
        check_order([Step(earlier), Step(later)])


def test_the_reason_is_found_also_where_other_steps_stand_between():
    with pytest.raises(ValueError, match="'factorize' after 'prune'"):
        check_order([Step("prune"), Step("cluster"), Step("factorize")])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Step("prun"), ValueError, r"kind 'prun'.*write 'prune'"),
        (lambda: Step("prune", sparsit=0.5), ValueError, "argument of prune 'sparsit'.*'sparsity'"),
        (lambda: Step("prune", epochs=0), ValueError, "epochs=0.*at least 1"),
        (lambda: Step("cluster", epochs=-1), ValueError, "epochs=-1.*at least 0"),
        (lambda: Step("prune", epochs="3"), TypeError, "epochs='3'"),
        (lambda: Step("prune", learning_rate="fast"), TypeError, "learning_rate='fast'"),
        (lambda: Step("prune", learning_rate=0), ValueError, "learning_rate=0.*above 0"),
        (lambda: check_order([]), ValueError, "no steps"),
        (lambda: check_order(["prune"]), TypeError, "'prune' of type str among the steps"),
    ],
)
def test_what_is_no_step_is_refused_at_once(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_every_family_can_be_a_step():
    assert list(BY_NAME) == SENSIBLE


def test_a_step_is_described_in_the_types_of_json():
    step = Step(
        "prune",
        2,
        learning_rate=keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9),
        layers=[keras.layers.Dense],
    )
    described = step.described()
    assert described["settings"] == {"layers": ["keras.src.layers.core.dense.Dense"]}
    assert described["learning_rate"]["ExponentialDecay"]["initial_learning_rate"] == 0.1
    assert described == step.described()
    assert described != Step("prune", 3).described()


def test_a_step_shows_what_it_does():
    assert repr(Step("factorize", 1, energy=0.9)) == "factorize(energy=0.9), 1 epoch"


def test_a_step_compresses():
    student = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8, name="dense")])
    factorized = Step("factorize", rank=2)(student)
    assert factorized.count_params() == 8 * 2 + 2 * 8 + 8
