"""Several replicas train what one device trains; see `_replicas.py`, which does the training."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest
from _workers import places

import keras_kd
from keras_kd.distiller import replicas, strategies

SCRIPT = Path(__file__).parents[1] / "_replicas.py"


def started(cases, stores, **environment):
    return subprocess.Popen(
        [sys.executable, SCRIPT, *cases],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "STORES": str(stores), **environment},
    )


def found(process):
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    return json.loads(output.splitlines()[-1])


def check_equal(results, cases):
    assert list(results) == list(cases)
    for name, result in results.items():
        assert result["weights"] < 1e-6, (name, result)
        assert result["logs"] < 1e-6, (name, result)
        assert result["learned"] > 0, (name, result)


@pytest.fixture(scope="module")
def two_replicas(tmp_path_factory):
    """What one process finds out about two replicas."""
    return found(started(["parts", "refusals"], tmp_path_factory.mktemp("stores")))


OF_KERAS_3 = [
    "outputs_and_features",
    "watched",
    "relations",
    "weighted_relations",
    "maps_and_schedules",
    "added_losses",
    "masks",
    "class_weights",
    "missing_labels",
    "several_outputs",
    "summed_loss",
    "ensemble_and_loss_of_student",
    "moving_average",
    "function_of_arrays",
    "stored_teacher",
]
OF_TF_KERAS = [
    "older_student",
    "older_masks_and_average",
    "older_outputs",
    "pruned",
    "quantization_aware",
]


@pytest.mark.slow
@pytest.mark.parametrize("cases", [OF_KERAS_3, OF_TF_KERAS], ids=["keras", "tf_keras"])
def test_every_kind_of_training_is_the_same_on_two_replicas(cases, tmp_path):
    results = found(started(cases, tmp_path))
    check_equal(results, cases)
    assert "accuracy" in results[cases[0]]["names"]


def test_a_loss_of_a_batch_can_stay_with_each_replica(two_replicas):
    result = two_replicas["parts"]
    assert result["sizes"] == [4, 3]
    assert result["logged"] == pytest.approx(result["expected"], rel=1e-5)
    assert result["logged"] != pytest.approx(result["whole"], rel=1e-2)


OF_WORKERS = ["outputs_and_features", "weighted_relations", "moving_average", "older_student"]


@pytest.mark.slow
def test_two_processes_train_what_one_trains(tmp_path):
    workers = []
    for index, place in enumerate(places()):
        stores = tmp_path / str(index)
        stores.mkdir()
        workers.append(started(OF_WORKERS, stores, TF_CONFIG=place))
    try:
        for worker in workers:
            check_equal(found(worker), OF_WORKERS)
    finally:
        # One waits for the other where that one failed.
        for worker in workers:
            worker.kill()


def test_what_several_replicas_cannot_train_is_refused_before_the_first_step(two_replicas):
    messages = two_replicas["refusals"]
    expected = {
        "jit_compile": "Received jit_compile=True on 2 replicas",
        "run_eagerly": "Received a step that runs eagerly on 2 replicas",
        "steps_per_execution": "Received steps_per_execution=2 on 2 replicas",
        "accumulation": "Received gradient_accumulation_steps=2 on 2 replicas",
        "own_loss": "whose own compute_loss returns one number for the examples of a replica",
        "mean_of_batch": "the loss 'mean_of_batch' on labels, which returns one number for a batch",
        "not_reduced": "on labels, which is not reduced, on 2 replicas",
        "one_number": "a scalar for the part of a batch that one of 2 replicas has",
        "student_outside": "built outside of it, and a Distiller that was built within the scope",
        "distiller_outside": "built within the scope of a strategy, and a Distiller",
    }
    assert messages.keys() == expected.keys()
    for name, words in expected.items():
        assert words in messages[name], (name, messages[name])
        assert "Expected" in messages[name]
        assert "To fix it" in messages[name]


def test_losses_that_keras_holds_elsewhere_are_named():
    with pytest.raises(ValueError, match=r"Keras 3.*compiled losses were not found"):
        replicas._share(object(), None, None)


def test_a_method_that_keras_no_longer_has_is_named(monkeypatch):
    strategies._check_keras()
    monkeypatch.setattr(strategies, "_OVERRIDDEN", ("_maybe_symbolic_build", "_gone"))
    with pytest.raises(ValueError, match=r"without Model\._gone.*several replicas"):
        strategies._check_keras()


def test_a_distribution_of_keras_is_refused(teacher, student, examples, hard_loss):
    distiller = keras_kd.Distiller(teacher, student)
    distiller.compile("sgd", hard_loss)
    keras.distribution.set_distribution(keras.distribution.DataParallel(devices=["cpu:0"]))
    try:
        with pytest.raises(ValueError, match=r"a distribution of keras.distribution"):
            distiller.fit(*examples, verbose=0)
    finally:
        keras.distribution.set_distribution(None)
