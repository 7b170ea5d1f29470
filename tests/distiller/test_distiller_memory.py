import gc
import weakref

import keras
import pytest
import tensorflow as tf

import keras_kd

from _models import cross_entropy, labelled


class Remembering(keras.layers.Layer):
    """Hands on the square of what it is given, and remembers that it did."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.said = []

    def call(self, inputs):
        squared = inputs * inputs
        self.said.append(weakref.ref(squared))
        return squared

    @property
    def kept(self):
        """How many of the tensors somebody still has."""
        gc.collect()
        return sum(tensor() is not None for tensor in self.said)


class AskingWhoIsKept(keras.losses.Loss):
    """A loss on labels that looks, in the middle of a step, at what is in memory."""

    def __init__(self, layers):
        super().__init__()
        self.layers = layers
        self.kept = []

    def call(self, y_true, y_pred):
        self.kept.append([layer.kept for layer in self.layers])
        return keras.losses.sparse_categorical_crossentropy(y_true, y_pred, from_logits=True)


def model(remembering):
    # Two layers with weights, so that the first one's gradient needs what the second one is given.
    inputs = keras.Input((4,))
    hidden = remembering(keras.layers.Dense(8)(inputs))
    return keras.Model(inputs, keras.layers.Dense(3)(hidden))


@pytest.fixture
def data():
    return labelled(6, (4,))


@pytest.mark.fast_rows(1)
@pytest.mark.parametrize("trainable", [False, True])
def test_a_step_keeps_the_activations_of_the_student_alone(data, trainable):
    of_teacher, of_student = Remembering(), Remembering()
    teacher, student = model(of_teacher), model(of_student)
    distiller = keras_kd.Distiller(teacher, student)
    # Whose weights a tape would watch, whatever is done with the gradients.
    teacher.trainable = trainable
    loss = AskingWhoIsKept([of_teacher, of_student])
    distiller.compile("sgd", loss, run_eagerly=True)
    of_teacher.said.clear()
    of_student.said.clear()
    distiller.fit(*data, batch_size=6, verbose=0)
    assert len(of_teacher.said) == len(of_student.said) == 1
    assert loss.kept == [[0, 1]]


def test_a_tape_that_sees_the_teacher_keeps_its_activations(data):
    # Without which the test above would show nothing.
    of_teacher = Remembering()
    teacher = model(of_teacher)
    of_teacher.said.clear()
    with tf.GradientTape() as tape:
        outputs = teacher(data[0], training=False)
    assert of_teacher.kept == 1
    del tape
    assert of_teacher.kept == 0
    assert outputs.shape == (6, 3)


@pytest.mark.fast_rows(1)
@pytest.mark.parametrize("trainable", [False, True])
def test_no_gradient_in_a_compiled_step_reads_the_teacher(data, trainable):
    teacher, student = model(Remembering(name="teacher")), model(Remembering(name="student"))
    distiller = keras_kd.Distiller(teacher, student)
    teacher.trainable = trainable
    distiller.compile("sgd", cross_entropy())
    specs = [tf.TensorSpec((6, 4), "float32"), tf.TensorSpec((6,), "int64")]
    # Without AutoGraph, as Keras makes it.
    step = tf.function(lambda x, y: distiller.train_step((x, y)), autograph=False)
    step = step.get_concrete_function(*specs)
    # The Dense layer behind it, and for the student the gradient of that layer's kernel.
    assert len(squares(step.graph, "teacher").consumers()) == 1
    assert len(squares(step.graph, "student").consumers()) == 2


def squares(graph, layer):
    """What a `Remembering` layer hands on in a traced step."""
    (square,) = (
        operation.outputs[0]
        for operation in graph.get_operations()
        if operation.type == "Mul"
        and layer in operation.name
        and not operation.name.startswith("gradient_tape")
    )
    return square
