"""Each error of the Distiller says how to mend it; here that is done, and the training runs."""

import keras
import numpy as np
import pytest
import tf_keras
from keras import layers

import keras_kd
from keras_kd import compression, losses, teachers

from _models import cross_entropy

X = np.random.default_rng(0).normal(size=(6, 5)).astype("float32")
Y = np.arange(6) % 3
LOGITS = cross_entropy()
EYE = np.eye(3, dtype="float32")


def net(units=3, size=5, name=None, activation=None, kit=keras):
    inputs = kit.Input((size,))
    hidden = kit.layers.Dense(4, "relu", name="hidden")(inputs)
    return kit.Model(inputs, kit.layers.Dense(units, activation, name="end")(hidden), name=name)


def several(**units):
    """One output for each, in a dict."""
    inputs = keras.Input((5,))
    return keras.Model(inputs, {key: layers.Dense(n, name=key)(inputs) for key, n in units.items()})


def exits(*units):
    """One output for each, in a list."""
    inputs = keras.Input((5,))
    return keras.Model(inputs, [layers.Dense(n)(inputs) for n in units])


def distiller_of(teacher=None, student=None, given=None, weights=None, **options):
    teacher = net() if teacher is None else teacher
    return keras_kd.Distiller(teacher, student or net(), given, weights, 0.0, **options)


def train(
    teacher=None, student=None, given=None, weights=None, x=X, y=None, run_eagerly=True, **options
):
    """A distiller after one epoch on the teacher's outputs alone."""
    distiller = distiller_of(teacher, student, given, weights, **options)
    distiller.compile("sgd", run_eagerly=run_eagerly)
    distiller.fit(x, y, batch_size=6, verbose=0)
    return distiller


def train_on_labels(
    loss=LOGITS, student_loss_weight=0.5, y=Y, metrics=None, student=None, **options
):
    distiller = keras_kd.Distiller(
        net(), student or net(), student_loss_weight=student_loss_weight, **options
    )
    distiller.compile("sgd", loss, metrics=metrics, run_eagerly=True)
    distiller.fit(X, y, batch_size=6, verbose=0)


def clone(model):
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


def same_model(copy=False):
    student = net()
    train(clone(student) if copy else student, student)


def frozen_student(thaw=False):
    student = net()
    student.trainable = False
    if thaw:
        student.trainable = True
    train(net(), student)


def twice_called(layer):
    inputs = keras.Input((5,))
    shared = layers.Dense(5, "relu", name="shared")
    hidden = layers.Dense(5, name="behind")(shared(shared(inputs)))
    train(net(), keras.Model(inputs, layers.Dense(3)(hidden)), losses.Hint("hidden", layer))


def shared_adapter(number):
    adapters = [layers.Dense(4) for _ in range(number)] * (2 // number)
    train(given=[losses.Hint("hidden", "hidden", adapter=adapter) for adapter in adapters])


def save_a_teacher(teacher, tmp_path, **options):
    distiller = distiller_of(teacher, **options)
    distiller.compile("sgd", run_eagerly=True)
    distiller.save(tmp_path / "distiller.keras")
    loaded = keras.models.load_model(tmp_path / "distiller.keras")
    if not options.get("save_teacher", True):
        loaded.teacher = teacher
    loaded.fit(X, verbose=0)


def save_a_tf_keras_student(tmp_path, what):
    student = compression.to_tf_keras(net())
    distiller = train(net(), student)
    if what == "distiller":
        distiller.save(tmp_path / "distiller.keras")
    elif what == "student":
        distiller.student.save(tmp_path / "student.h5")
        compression.load(tmp_path / "student.h5")
    else:
        distiller.save_weights(tmp_path / "distiller.weights.h5")


def without_teacher(tmp_path, set_it):
    distiller = distiller_of(save_teacher=False)
    distiller.compile("sgd", run_eagerly=True)
    distiller.save(tmp_path / "distiller.keras")
    loaded = keras.models.load_model(tmp_path / "distiller.keras")
    if set_it:
        loaded.teacher = net()
    loaded.fit(X, verbose=0)


def a_student_of_its_shared_layers(copy):
    teacher = net()
    student = keras.Model(teacher.inputs, layers.Dense(3)(teacher.get_layer("hidden").output))
    if copy:
        student = clone(student)
        student.trainable = True
    train(teacher, student)
    assert len(student.trainable_weights) == (4 if copy else 2)


def generations_of(student):
    """The same student in each generation."""
    list(teachers.born_again(net(), lambda number: student))


class PlainTeacher(teachers.Teacher):
    """Without `get_config`."""

    name = "plain"

    def tap(self, layer_names):
        """It has no layers."""

    def __call__(self, inputs, student):
        return keras_kd.taps.Tapped(inputs[:, :3], {})


class Vector(losses.DistillationLoss):
    """As the advice says: one value per example."""

    def per_example(self, teacher_output, student_output, **context):
        return keras.ops.mean(keras.ops.square(teacher_output - student_output), axis=-1)


class NotAScalar(keras.distillation.DistillationLoss):
    def compute_loss(self, teacher_outputs, student_outputs, **kwargs):
        return keras.ops.mean(keras.ops.square(teacher_outputs - student_outputs), axis=-1)


def numpy_function(x):
    return np.asarray(x)[:, :3].astype("float32")


two = {"label": 3, "box": 2}
a, b = (lambda: net(name="a")), (lambda: net(name="b"))

# What is wrong, a part of the message, and what the message says to do instead.
ROWS = {
    "same model": (same_model, "copy it first", lambda: same_model(copy=True)),
    "other inputs": (
        lambda: train(net(size=4)),
        "pass teacher_inputs",
        lambda: train(net(size=4), teacher_inputs=lambda x: x[:, :4]),
    ),
    "teacher_inputs of another shape": (
        lambda: train(net(size=4), teacher_inputs=lambda x: x[:, :3]),
        "correct the function",
        lambda: train(net(size=4), teacher_inputs=lambda x: x[:, 1:]),
    ),
    "jit_compile": (
        lambda: distiller_of(teachers.NumpyFunction(numpy_function, (3,))).compile(
            "sgd", jit_compile=True
        ),
        "leave out jit_compile",
        lambda: train(teachers.NumpyFunction(numpy_function, (3,))),
    ),
    "missing_label": (
        lambda: train(missing_label="none"),
        "missing_label=-1",
        lambda: train_on_labels(missing_label=-1, y=np.array([0, -1, 2, -1, 1, 0])),
    ),
    "no losses": (lambda: train(given=[]), "pass None", lambda: train(given=None)),
    "a loss of another kind": (
        lambda: train(given=keras.losses.MeanSquaredError()),
        r"LogitsMSE\(\)",
        lambda: train(given=losses.LogitsMSE()),
    ),
    "one adapter twice": (
        lambda: shared_adapter(1),
        "make one layer for each",
        lambda: shared_adapter(2),
    ),
    "weights for other losses": (
        lambda: train(given=losses.SoftTargets(), weights=[1.0, 2.0]),
        "a list of 1 numbers, or None",
        lambda: (train(weights=[1.0]), train(weights=None)),
    ),
    "a negative weight": (
        lambda: train(weights=-1.0),
        "use 1.0",
        lambda: train(weights=1.0),
    ),
    "a share above 1": (
        lambda: train_on_labels(student_loss_weight=2),
        "a share such as 0.5",
        lambda: train_on_labels(student_loss_weight=0.5),
    ),
    "a schedule that leaves its bounds": (
        lambda: train(weights=lambda step: 1.0 - 2.0 * step, x=np.repeat(X, 4, axis=0)),
        "end within these bounds",
        lambda: train(weights=lambda step: 1.0 / (1.0 + step), x=np.repeat(X, 4, axis=0)),
    ),
    "a schedule that is no number": (
        lambda: train(weights=lambda step: "much"),
        "return one number, computed with keras.ops",
        lambda: train(weights=lambda step: keras.ops.exp(-step)),
    ),
    "a value for each example": (
        lambda: train(given=NotAScalar()),
        "subclass keras_kd.losses.DistillationLoss",
        lambda: train(given=Vector()),
    ),
    "nothing to train": (frozen_student, "trainable = True", lambda: frozen_student(thaw=True)),
    "no loss on labels": (
        lambda: train_on_labels(loss=None),
        "student_loss_weight=0",
        lambda: (
            train_on_labels("sparse_categorical_crossentropy", student=net(activation="softmax")),
            train_on_labels(loss=None, student_loss_weight=0, y=None),
        ),
    ),
    "no labels": (
        lambda: train_on_labels(y=None),
        "student_loss_weight=0",
        lambda: train_on_labels(loss=None, y=None, student_loss_weight=0),
    ),
    "a called layer name": (
        lambda: train(given=losses.Hint("hidden", "hiden")),
        "one of its layers: .*hidden",
        lambda: train(given=losses.Hint("hidden", "hidden")),
    ),
    "a layer that is called twice": (
        lambda: twice_called("shared"),
        "the one behind it",
        lambda: twice_called("behind"),
    ),
    "other outputs": (
        lambda: train(several(**two), several(label=3)),
        r"outputs=\[\.\.\.\]",
        lambda: train(several(**two), several(label=3), losses.SoftTargets(outputs=["label"])),
    ),
    "an output that one has not": (
        lambda: train(several(**two), several(**two), losses.SoftTargets(outputs=["name"])),
        r"leave out or correct \['name'\]",
        lambda: train(several(**two), several(**two), losses.SoftTargets(outputs=["label"])),
    ),
    "several outputs of a teacher for one of the student": (
        lambda: train(several(**two), net()),
        r"name those to compare with `outputs=\[\.\.\.\]`",
        lambda: train(several(**two), net(), losses.SoftTargets(outputs=["label"])),
    ),
    "one output of a teacher for several of the student": (
        lambda: train(net(), several(logits=3, box=2)),
        r"name those to compare with `outputs=\[\.\.\.\]`",
        lambda: train(net(), several(logits=3, box=2), losses.SoftTargets(outputs=["logits"])),
    ),
    "one output by two names": (
        lambda: train(several(**two), net(), losses.SoftTargets(outputs=["label", "box"])),
        r"a single output fits any one name, as in outputs=\['name'\]",
        lambda: train(several(**two), net(), losses.SoftTargets(outputs=["label"])),
    ),
    "outputs that are no names": (
        lambda: losses.SoftTargets(outputs=[1.5]),
        r"outputs=\['label'\] for dict outputs or outputs=\[0\]",
        lambda: (
            train(several(**two), several(**two), losses.SoftTargets(outputs=["label"])),
            train(exits(3, 2), exits(3, 4), losses.SoftTargets(outputs=[0])),
        ),
    ),
    "outputs of other shapes": (
        lambda: train(exits(3, 2), exits(3, 4)),
        r"SoftTargets\(outputs=\[\.\.\.\]\)|same number of classes",
        lambda: train(exits(3, 2), exits(3, 4), losses.SoftTargets(outputs=[0])),
    ),
    "adapters for other layers": (
        lambda: train(
            given=losses.Hint(["hidden", "end"], ["hidden", "end"], adapter=[layers.Dense(4)])
        ),
        "a list of layers in the order",
        lambda: train(
            given=losses.Hint(
                ["hidden", "end"], ["hidden", "end"], adapter=[layers.Dense(4), layers.Dense(3)]
            )
        ),
    ),
    "an adapter for other features": (
        lambda: train(given=losses.Hint("hidden", "hidden", adapter=layers.Conv2D(4, 1))),
        r"keras\.layers\.Dense\(units\)",
        lambda: train(given=losses.Hint("hidden", "hidden", adapter=layers.Dense(4))),
    ),
    "no teacher": (
        lambda: train("teacher.keras"),
        "load or build the model first",
        lambda: (train(net()), train(teachers.NumpyFunction(numpy_function, (3,)))),
    ),
    "a class of teachers": (
        lambda: train(teachers.MovingAverage),
        r"as in keras_kd\.teachers\.MovingAverage\(\)",
        lambda: train(teachers.MovingAverage()),
    ),
    "layers of a function": (
        lambda: train(lambda x: x[:, :3], given=losses.Hint("hidden", "hidden")),
        "losses that compare outputs, or pass the model",
        lambda: (train(lambda x: x[:, :3]), train(net(), given=losses.Hint("hidden", "hidden"))),
    ),
    "a function called": (
        lambda: train(teachers.Function(numpy_function(X))),
        "pass the function itself",
        lambda: train(teachers.Function(lambda x: x[:, :3])),
    ),
    "a function of arrays": (
        lambda: train(numpy_function, run_eagerly=False),
        r"NumpyFunction\(function, output_shape\)",
        lambda: train(teachers.NumpyFunction(numpy_function, (3,))),
    ),
    "a function that returns no tensor": (
        lambda: train(lambda x: "three classes"),
        "return the outputs of the batch",
        lambda: train(lambda x: x[:, :3]),
    ),
    "another shape than was said": (
        lambda: train(teachers.NumpyFunction(numpy_function, (4,)), student=net(4)),
        "correct output_shape",
        lambda: train(teachers.NumpyFunction(numpy_function, (3,))),
    ),
    "no output_shape": (
        lambda: teachers.NumpyFunction(numpy_function, "three"),
        r"output_shape=\(10,\)",
        lambda: train(
            teachers.NumpyFunction(lambda x: np.ones((len(x), 10), "float32"), (10,)), net(10)
        ),
    ),
    "teacher_inputs of another type": (
        lambda: train(teacher_inputs=5.0),
        "for example 'large' for inputs",
        lambda: train(
            net(size=7), x={"small": X, "large": np.ones((6, 7), "float32")}, teacher_inputs="large"
        ),
    ),
    "teacher_inputs that are not there": (
        lambda: train(teacher_inputs="large"),
        "name the entries of the data, or give a function",
        lambda: (
            train(x={"small": X, "large": X}, teacher_inputs="large"),
            train(teacher_inputs=lambda x: 2.0 * x),
        ),
    ),
    "an ensemble of nobody": (
        lambda: teachers.Ensemble([]),
        r"Ensemble\(\[first_model, second_model\]\)",
        lambda: train(teachers.Ensemble([net(), net()])),
    ),
    "weights of other members": (
        lambda: teachers.Ensemble([net(), net()], weights=[1.0]),
        "a list of 2 entries, or leave it out",
        lambda: (
            train(teachers.Ensemble([net(), net()], weights=[1.0, 2.0])),
            train(teachers.Ensemble([net(), net()])),
        ),
    ),
    "members of other shapes": (
        lambda: train([net(3), net(2)]),
        r"classes=\[\.\.\.\]",
        lambda: train(teachers.Ensemble([net(3), net(2)], classes=[None, [0, 1]])),
    ),
    "members of other kinds": (
        lambda: train([net(activation="sigmoid"), net(activation="softmax")]),
        "end all of them in a softmax",
        lambda: train([net(activation="softmax"), net(activation="softmax")]),
    ),
    "too few classes of a member": (
        lambda: train(teachers.Ensemble([net(3), net(2)], classes=[None, [0]])),
        "list 2 class indexes",
        lambda: train(teachers.Ensemble([net(3), net(2)], classes=[None, [0, 2]])),
    ),
    "a class that nobody knows": (
        lambda: teachers.Ensemble([net(2), net(2)], classes=[[0, 1], [1, 3]]).shapes(None),
        "add a member that has them",
        lambda: train(
            teachers.Ensemble([net(2), net(2), net(1)], classes=[[0, 1], [1, 3], [2]]), net(4)
        ),
    ),
    "classes of another type": (
        lambda: teachers.Ensemble([net(3), net(2)], classes=["all", [1, 1]]),
        r"classes=\[\[0, 1, 2\], \[2, None, 3\]\]",
        lambda: train(
            teachers.Ensemble([net(3), net(3)], classes=[[0, 1, 2], [2, None, 3]]), net(4)
        ),
    ),
    "members for other inputs": (
        lambda: train([net(), net(size=4)]),
        "in front of one, in a model of both",
        lambda: train([net(), keras.Sequential([keras.Input((5,)), layers.Dense(4), net(size=4)])]),
    ),
    "a layer of an ensemble": (
        lambda: train(teachers.Ensemble([a(), b()]), given=losses.Hint("hidden", "hidden")),
        "write for example 'a/layer'",
        lambda: train(teachers.Ensemble([a(), b()]), given=losses.Hint("a/hidden", "hidden")),
    ),
    "an output that a member has not": (
        lambda: train(
            teachers.Ensemble([several(**two)], outputs=[["label", "name"]]), several(**two)
        ),
        "correct the names, or leave out",
        lambda: train(
            teachers.Ensemble([several(**two)], outputs=[["label", "box"]]), several(**two)
        ),
    ),
    "names and single outputs": (
        lambda: train([net(), several(**two)], several(**two)),
        "one entry per member",
        lambda: train(
            teachers.Ensemble([net(), several(**two)], outputs=["label", ["label", "box"]]),
            several(**two),
        ),
    ),
    "outputs of an ensemble of another type": (
        lambda: teachers.Ensemble([net(), several(**two)], outputs=[1.5, None]),
        r"outputs=\['label', \['label', 'box'\]\]",
        lambda: train(
            teachers.Ensemble([net(), several(**two)], outputs=["label", ["label", "box"]]),
            several(**two),
        ),
    ),
    "another decay": (
        lambda: teachers.MovingAverage(decay=2.0),
        "decay=2.0",
        lambda: train(teachers.MovingAverage(decay=0.9)),
    ),
    "an average of nobody": (
        lambda: teachers.MovingAverage()(X, None),
        r"give it to keras_kd\.Distiller",
        lambda: train(teachers.MovingAverage()),
    ),
    "the last exit of one": (
        lambda: train(teachers.LastExit(), net()),
        "one output per exit",
        lambda: (
            train(teachers.LastExit(), exits(3, 3)),
            train(teachers.LastExit("deep"), several(deep=3, early=3)),
        ),
    ),
    "a last exit of another type": (
        lambda: teachers.LastExit(1.5),
        r"LastExit\('classifier'\)",
        lambda: train(teachers.LastExit("classifier"), several(early=3, classifier=3)),
    ),
    "exits of other shapes": (
        lambda: train(teachers.LastExit(), exits(3, 4)),
        "one unit per class",
        lambda: train(teachers.LastExit(), exits(4, 4)),
    ),
    "no function for generations": (
        lambda: list(teachers.born_again(net(), net())),
        r"lambda number: build_model\(\)",
        lambda: list(teachers.born_again(net(), lambda number: net())),
    ),
    "the same generation again": (
        lambda: generations_of(net()),
        "build the model inside make_student",
        lambda: list(teachers.born_again(net(), lambda number: net())),
    ),
}
# The advice on what is saved, for a directory of its own.
SAVED = {
    "a teacher without config": (
        lambda path: save_a_teacher(PlainTeacher(), path),
        "save_teacher=False and set distiller.teacher",
        lambda path: save_a_teacher(PlainTeacher(), path, save_teacher=False),
    ),
    "a function as a teacher": (
        lambda path: save_a_teacher(lambda x: x[:, :3], path),
        "save_teacher=False and set distiller.teacher",
        lambda path: save_a_teacher(lambda x: x[:, :3], path, save_teacher=False),
    ),
    "a tf_keras teacher": (
        lambda path: save_a_teacher(net(kit=tf_keras), path),
        "save_teacher=False and set distiller.teacher",
        lambda path: save_a_teacher(net(kit=tf_keras), path, save_teacher=False),
    ),
    "a distiller of a tf_keras student": (
        lambda path: save_a_tf_keras_student(path, "distiller"),
        r"distiller\.student\.save\('student\.h5'\) or distiller\.save_weights",
        lambda path: (
            save_a_tf_keras_student(path, "student"),
            save_a_tf_keras_student(path, "weights"),
        ),
    ),
    "no teacher after loading": (
        lambda path: without_teacher(path, set_it=False),
        r"distiller\.teacher = ",
        lambda path: without_teacher(path, set_it=True),
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_an_error_gives_advice(name):
    bad, match, _ = ROWS[name]
    with pytest.raises((TypeError, ValueError), match=match):
        bad()


@pytest.mark.fast_rows(16)
@pytest.mark.parametrize("name", ROWS)
def test_the_advice_of_an_error_works(name):
    *_, good = ROWS[name]
    good()


@pytest.mark.fast_rows(2)
@pytest.mark.parametrize("name", SAVED)
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_the_advice_on_what_is_saved_works(name, tmp_path):
    bad, match, good = SAVED[name]
    with pytest.raises((TypeError, ValueError), match=match):
        bad(tmp_path)
    good(tmp_path)


def test_layers_that_student_and_teacher_share_are_named():
    with pytest.warns(UserWarning, match="do not train: hidden.*copy it first"):
        a_student_of_its_shared_layers(copy=False)
    a_student_of_its_shared_layers(copy=True)


def test_layers_that_were_frozen_before_are_meant_to_be():
    teacher = net()
    teacher.trainable = False
    student = keras.Model(teacher.inputs, layers.Dense(3)(teacher.get_layer("hidden").output))
    train(teacher, student)
