import gc
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_kd
from keras_kd.distiller.tensorflow_step import CompiledStep

from _models import in_flavour


@pytest.fixture
def counted():
    """A step that adds up its batches, and how often it was traced."""
    total = tf.Variable(0.0)
    traces = []

    def step(data):
        traces.append(data)
        return {"sum": total.assign_add(tf.reduce_sum(data))}

    return step, traces


def refused(iterator):
    pytest.fail(f"Keras' function got {iterator}")


def batches(values, size):
    return tf.data.Dataset.from_tensor_slices(np.asarray(values, dtype="float32")).batch(size)


def test_goes_through_an_iterator_to_its_end(counted):
    compiled = CompiledStep(counted[0], False, refused)
    iterator = iter(batches(range(5), 2))
    assert [float(compiled(iterator)["sum"]) for _ in range(3)] == [1.0, 6.0, 10.0]
    with pytest.raises(tf.errors.OutOfRangeError):
        compiled(iterator)


def test_one_trace_serves_all_iterators_over_the_same_data(counted):
    step, traces = counted
    compiled = CompiledStep(step, False, refused)
    dataset = batches(range(4), 2)
    sums = [float(compiled(iterator)["sum"]) for iterator in (iter(dataset), iter(dataset))]
    assert sums == [1.0, 2.0]
    assert len(traces) == 1


def test_iterators_over_different_data_take_turns(counted):
    compiled = CompiledStep(counted[0], False, refused)
    wide = tf.data.Dataset.from_tensors(tf.ones((2, 3))).repeat()
    iterators = [iter(batches(range(4), 2)), iter(wide)] * 2
    assert [float(compiled(iterator)["sum"]) for iterator in iterators] == [1.0, 7.0, 12.0, 18.0]


@pytest.mark.parametrize("jit_compile", [False, True])
def test_the_step_alone_is_compiled_by_xla(counted, jit_compile):
    compiled = CompiledStep(counted[0], jit_compile, refused)
    # An iterator is nothing that XLA could compile.
    assert float(compiled(iter(batches(range(4), 2)))["sum"]) == 1.0


def test_an_iterator_is_not_kept(counted):
    compiled = CompiledStep(counted[0], False, refused)
    iterator = iter(batches(range(4), 2))
    compiled(iterator)
    left = weakref.ref(iterator)
    del iterator
    gc.collect()
    assert left() is None


def test_other_iterators_are_for_keras(counted):
    compiled = CompiledStep(counted[0], False, lambda iterator: {"sum": next(iterator)})
    assert compiled(iter([3.0])) == {"sum": 3.0}


def test_functions_that_run_eagerly_are_for_keras(counted):
    step, traces = counted
    compiled = CompiledStep(step, False, lambda iterator: step(next(iterator)))
    iterator = iter(batches(range(4), 2))
    tf.config.run_functions_eagerly(True)
    try:
        sums = [float(compiled(iterator)["sum"]) for _ in range(2)]
    finally:
        tf.config.run_functions_eagerly(False)
    assert sums == [1.0, 6.0]
    assert [type(data).__name__ for data in traces] == ["EagerTensor"] * 2


def test_python_in_a_step_is_left_as_it_is():
    def step(data):
        # AutoGraph would make this a condition in the graph.
        return {"sum": data if tf.reduce_sum(data) > 0 else -data}

    with pytest.raises(tf.errors.OperatorNotAllowedInGraphError):
        CompiledStep(step, False, refused)(iter(batches([1.0], 1)))


@pytest.mark.fast_rows(1)
@pytest.mark.parametrize("flavour", ["keras", "tf_keras"])
def test_the_first_step_is_traced_once(teacher, student, examples, hard_loss, flavour):
    traces = []

    def counted_metric(y, outputs):
        traces.append(y)
        return tf.reduce_sum(outputs, axis=-1)

    distiller = keras_kd.Distiller(teacher, in_flavour(student, flavour))
    # Both have variables, as have the metrics behind names.
    distiller.compile(keras.optimizers.Adam(0.1), hard_loss, metrics=[counted_metric, "accuracy"])
    distiller.fit(*examples, batch_size=10, epochs=2, verbose=0)
    assert len(traces) == 1


@pytest.mark.fast_rows(1)
@pytest.mark.parametrize("flavour", ["keras", "tf_keras"])
def test_what_a_first_trace_makes_is_what_eager_steps_make(
    dense_model, teacher, examples, hard_loss, flavour
):
    x, y = examples
    histories = []
    for run_eagerly in (False, True):
        # Its variables appear in the first step, inside of the trace.
        late = keras.metrics.AUC(num_thresholds=20, multi_label=True, num_labels=3, name="late")
        distiller = keras_kd.Distiller(teacher, in_flavour(dense_model(seed=2), flavour))
        distiller.compile(
            keras.optimizers.Adam(0.1, amsgrad=True),
            keras.losses.CategoricalCrossentropy(from_logits=True),
            metrics=["accuracy", late],
            run_eagerly=run_eagerly,
        )
        one_hot = keras.utils.to_categorical(y, 3)
        histories.append(distiller.fit(x, one_hot, shuffle=False, epochs=3, verbose=0).history)
    assert histories[0].keys() == histories[1].keys()
    for name, values in histories[0].items():
        np.testing.assert_allclose(values, histories[1][name], rtol=1e-5, err_msg=name)


# How Keras trains with the same step, which `steps_per_execution` and others leave to it.
def trained(teacher, student, data, hard_loss, by_keras, **options):
    distiller = keras_kd.Distiller(teacher, student, name="distiller")
    distiller.compile(keras.optimizers.Adam(0.01), hard_loss, metrics=["accuracy"])
    if by_keras:
        distiller._compiled_step = lambda step, function: function
    history = distiller.fit(data, validation_data=data, epochs=3, verbose=0, **options).history
    return history, student.get_weights()


@pytest.mark.fast_rows(1)
@pytest.mark.parametrize("size", [8, 20, 1])
def test_training_is_that_of_keras(dense_model, teacher, examples, hard_loss, size):
    data = tf.data.Dataset.from_tensor_slices(examples).batch(size)
    (ours, weights), (theirs, expected) = (
        trained(teacher, dense_model(seed=2), data, hard_loss, by_keras)
        for by_keras in (False, True)
    )
    assert ours == theirs
    for mine, other in zip(weights, expected, strict=True):
        np.testing.assert_array_equal(mine, other)


def test_none_in_the_data_of_a_generator(dense_model, teacher, examples, hard_loss):
    def generated():
        while True:
            yield (*examples, None)

    histories = [
        trained(teacher, dense_model(seed=2), generated(), hard_loss, by_keras, **steps)[0]
        for by_keras in (False, True)
        for steps in [{"steps_per_epoch": 2, "validation_steps": 1}]
    ]
    assert histories[0] == histories[1]


@pytest.mark.parametrize("options", [{"run_eagerly": True}, {"steps_per_execution": 2}])
def test_what_keras_does_otherwise_is_left_to_it(teacher, student, hard_loss, options):
    distiller = keras_kd.Distiller(teacher, student)
    distiller.compile("sgd", hard_loss, **options)
    function = object()
    assert distiller._compiled_step(distiller.train_step, function) is function
    distiller.compile("sgd", hard_loss)
    assert isinstance(distiller._compiled_step(distiller.train_step, function), CompiledStep)


def test_data_of_a_distribution_are_left_to_keras(dense_model, examples, hard_loss):
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        distiller = keras_kd.Distiller(dense_model(units=6, seed=1), dense_model(seed=2))
        distiller.compile("sgd", hard_loss)
    history = distiller.fit(*examples, batch_size=5, epochs=2, verbose=0).history
    assert history["loss"][1] < history["loss"][0]


def test_an_epoch_shorter_than_the_data_goes_on_where_it_stopped(
    dense_model, teacher, examples, hard_loss
):
    data = tf.data.Dataset.from_tensor_slices(examples).batch(4).repeat()
    (ours, _), (theirs, _) = (
        trained(
            teacher,
            dense_model(seed=2),
            data,
            hard_loss,
            by_keras,
            steps_per_epoch=3,
            validation_steps=2,
        )
        for by_keras in (False, True)
    )
    assert ours == theirs
