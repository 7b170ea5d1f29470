"""Functional, Sequential and subclassed models, with one output or several."""

import keras
import numpy as np
import pytest

import keras_kd
from keras_kd.losses import LogitsMSE, SoftTargets


class Subclassed(keras.Model):
    """Built by its first call."""

    def __init__(self, classes=3):
        super().__init__()
        self.hidden = keras.layers.Dense(4, activation="relu")
        self.logits = keras.layers.Dense(classes)

    def call(self, inputs):
        return self.logits(self.hidden(inputs))


def functional():
    inputs = keras.Input((5,))
    return keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Dense(4)(inputs)))


def unbuilt_sequential():
    return keras.Sequential([keras.layers.Dense(4), keras.layers.Dense(3)])


KINDS = {
    "functional": functional,
    "unbuilt sequential": unbuilt_sequential,
    "unbuilt subclassed": Subclassed,
}


@pytest.mark.fast_rows(2)
@pytest.mark.parametrize(
    ("teacher_kind", "student_kind"),
    [
        ("functional", "unbuilt sequential"),
        ("unbuilt subclassed", "functional"),
        ("unbuilt sequential", "unbuilt subclassed"),
    ],
)
def test_every_kind_of_model_is_taught(teacher_kind, student_kind, examples, hard_loss):
    teacher, student = KINDS[teacher_kind](), KINDS[student_kind]()
    distiller = keras_kd.Distiller(teacher, student)
    distiller.compile(keras.optimizers.Adam(0.05), hard_loss, jit_compile=False)
    history = distiller.fit(*examples, epochs=3, verbose=0)
    assert history.history["loss"][-1] < history.history["loss"][0]
    assert len(distiller.trainable_weights) == 4
    assert student.built


def two_outputs(structure, seed):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((5,))
    first = keras.layers.Dense(3, name="first")(inputs)
    second = keras.layers.Dense(2, name="second")(inputs)
    outputs = {"first": first, "second": second}
    return keras.Model(inputs, outputs if structure is dict else structure(outputs.values()))


def arranged(structure, first, second):
    return {"first": first, "second": second} if structure is dict else [first, second]


@pytest.mark.fast_rows(2)
@pytest.mark.parametrize(
    ("structure", "only_first"), [(dict, False), (list, False), (dict, True), (tuple, True)]
)
def test_several_outputs(structure, only_first, examples, formulas):
    x, first_labels = examples
    second_labels = first_labels % 2
    weights = np.linspace(0.0, 1.0, 20).astype("float32")
    teacher, student = two_outputs(structure, 1), two_outputs(structure, 2)
    key = "first" if structure is dict else 0
    loss = SoftTargets(2.0, outputs=key if only_first else None)
    distiller = keras_kd.Distiller(teacher, student, loss)
    cross_entropy = keras.losses.SparseCategoricalCrossentropy
    distiller.compile(
        keras.optimizers.SGD(0.0),
        arranged(structure, cross_entropy(from_logits=True), cross_entropy(from_logits=True)),
        metrics=arranged(structure, ["accuracy"], ["accuracy"]),
        run_eagerly=only_first,
        jit_compile=False,
    )
    logs = distiller.evaluate(
        x,
        arranged(structure, first_labels, second_labels),
        sample_weight=arranged(structure, weights, np.ones(20, "float32")),
        batch_size=20,
        verbose=0,
        return_dict=True,
    )

    def both(outputs):
        return outputs.values() if structure is dict else outputs

    taught, learned = both(teacher(x)), both(student(x))
    taught, learned = ([output.numpy() for output in side] for side in (taught, learned))
    soft = [formulas.soft_targets(*pair, 2.0) for pair in zip(taught, learned, strict=True)]
    hard = [
        formulas.cross_entropy(labels, logits)
        for labels, logits in zip((first_labels, second_labels), learned, strict=True)
    ]
    expected = (weights * soft[0]).mean() + (0.0 if only_first else soft[1].mean())
    assert logs["distillation_loss"] == pytest.approx(expected, rel=1e-5)
    assert logs["student_loss"] == pytest.approx((weights * hard[0] + hard[1]).mean(), rel=1e-5)
    assert {"first_accuracy", "second_accuracy"} <= set(logs)


def test_a_student_may_have_an_output_that_the_teacher_has_not(dense_model, examples):
    x, y = examples
    teacher = dense_model(seed=1)
    teacher = keras.Model(teacher.inputs[0], {"first": teacher.outputs[0]})
    student = two_outputs(dict, 2)
    with pytest.raises(
        ValueError, match=r"outputs \['first'\] from the teacher.*outputs=\[\.\.\.\]"
    ):
        keras_kd.Distiller(teacher, student)
    distiller = keras_kd.Distiller(teacher, student, SoftTargets(outputs="first"))
    distiller.compile(
        "sgd",
        {name: keras.losses.SparseCategoricalCrossentropy(True) for name in ("first", "second")},
        run_eagerly=True,
    )
    distiller.fit(x, {"first": y, "second": y % 2}, verbose=0)


def test_inputs_by_name(examples, hard_loss):
    x, y = examples

    def model():
        inputs = {"left": keras.Input((2,)), "right": keras.Input((3,))}
        merged = keras.layers.Concatenate()([inputs["left"], inputs["right"]])
        return keras.Model(inputs, keras.layers.Dense(3)(merged))

    distiller = keras_kd.Distiller(model(), model())
    distiller.compile("sgd", hard_loss, run_eagerly=True)
    distiller.fit({"left": x[:, :2], "right": x[:, 2:]}, y, batch_size=8, verbose=0)
    assert distiller.predict({"left": x[:, :2], "right": x[:, 2:]}, verbose=0).shape == (20, 3)


def test_layers_are_compared_by_keras_own_loss(dense_model, examples, hard_loss):
    x, y = examples
    teacher, student = dense_model(seed=1), dense_model(seed=2)
    loss = keras.distillation.FeatureDistillation(
        loss="mse", teacher_layer_name="hidden", student_layer_name="hidden"
    )
    distiller = keras_kd.Distiller(teacher, student, [loss, LogitsMSE()], [3.0, 1.0])
    distiller.compile("sgd", hard_loss, run_eagerly=True)
    logs = distiller.evaluate(x, y, batch_size=20, verbose=0, return_dict=True)
    hidden = [
        keras.Model(model.inputs[0], model.get_layer("hidden").output)(x).numpy()
        for model in (teacher, student)
    ]
    expected = 3.0 * np.square(hidden[0] - hidden[1]).mean()
    expected += np.square(teacher(x).numpy() - student(x).numpy()).mean()
    assert logs["distillation_loss"] == pytest.approx(expected, rel=1e-5)


def test_a_tf_keras_teacher_teaches_a_keras_student(student, examples, hard_loss, tmp_path):
    tf_keras = pytest.importorskip("tf_keras")
    x, y = examples
    teacher = tf_keras.Sequential(
        [tf_keras.Input((5,)), tf_keras.layers.Dense(3, activation="softmax", name="d")]
    )
    distiller = keras_kd.Distiller(teacher, student, SoftTargets(2.0))
    distiller.compile("sgd", hard_loss, run_eagerly=True)
    logs = distiller.evaluate(x, y, batch_size=20, verbose=0, return_dict=True)
    logits = x @ teacher.get_weights()[0]
    expected = float(SoftTargets(2.0).compute_loss(logits, student(x)))
    assert logs["distillation_loss"] == pytest.approx(expected, rel=1e-4)
    distiller.fit(x, y, verbose=0)
    with pytest.raises(ValueError, match=r"the tf_keras teacher.*save_teacher=False"):
        distiller.save(tmp_path / "distiller.keras")
