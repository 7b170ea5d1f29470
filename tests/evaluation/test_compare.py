import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_kd import metrics, tflite
from keras_kd.evaluation import compare, save_report

GENERATOR = np.random.default_rng(0)
X = GENERATOR.random((40, 4, 4, 1), dtype="float32")
Y = (X.mean(axis=(1, 2, 3)) > 0.5).astype("int64")


def classifier(outputs=2, activation="softmax"):
    return keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(outputs, activation=activation),
        ]
    )


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return classifier()


@pytest.fixture(scope="module")
def file(model):
    return tflite.convert(model)


@pytest.fixture(scope="module")
def several():
    """Two inputs and two outputs: classes and numbers."""
    keras.utils.set_random_seed(0)
    first, second = keras.Input((4,), name="z-axis"), keras.Input((4,), name="acc-x")
    both = keras.layers.Concatenate()([first, second])
    outputs = [keras.layers.Dense(3, name="kind")(both), keras.layers.Dense(2, name="pose")(both)]
    return keras.Model([first, second], outputs)


def test_a_file_gets_what_its_keras_model_gets_and_sizes(model, file):
    seen = []
    comparison = compare(
        {"teacher": model, "student": file},
        X,
        Y,
        name="bright or dark",
        class_names=("dark", "bright"),
        sources={"student": model},
        on_measured=seen.append,
    )
    teacher, student = comparison.rows
    assert seen == ["teacher", "student"]
    expected = metrics.measure(model.predict(X, verbose=0), Y)
    for name, value in expected.items():
        assert teacher.quality[name].value == pytest.approx(value)
        assert student.quality[name].value == pytest.approx(value, abs=1e-6)
    assert student.quality["agreement"].value == 1.0
    assert student.quality["divergence"].value == pytest.approx(0.0, abs=1e-6)
    assert student.per_class == teacher.per_class
    assert sum(map(sum, student.confusion)) == sum(n for n, _, _ in student.reliability) == 40
    assert student.parameters == teacher.parameters == 34
    assert student.sparsity == teacher.sparsity == 0.0
    assert student.bytes == len(file.content)
    assert student.compressed_bytes < student.bytes
    assert student.latency_microseconds > 0
    assert teacher.bytes is None
    assert (comparison.name, comparison.examples) == ("bright or dark", 40)
    assert (comparison.baseline, comparison.teacher) == ("teacher", "teacher")
    assert comparison.class_names == ("dark", "bright")
    assert comparison.tasks == {"": "classification"}
    assert comparison.machine["packages"]["tensorflow"]


def test_differences_are_to_the_baseline(model, file):
    keras.utils.set_random_seed(1)
    models = {"other": classifier(), "first": model, "file": file}
    rows = compare(models, X, Y, baseline="first").rows
    found = [row.quality["accuracy"].difference for row in rows]
    assert found[1] is None
    assert found[2].value == 0.0
    assert not found[2].is_clear
    gained = rows[0].quality["accuracy"].value - rows[1].quality["accuracy"].value
    assert found[0].value == gained
    assert found[0].low < gained < found[0].high
    assert compare(models, X, Y).baseline == "other"


@pytest.mark.skipif(not tflite.microcontroller.is_installed(), reason="needs tflite-micro")
def test_the_arena_is_measured_where_tflm_runs_the_file(model, file):
    half = tflite.convert(model, "float16")
    comparison = compare({"float32": file, "float16": half}, X, Y)
    assert comparison["float32"].arena_bytes > 0
    assert comparison["float16"].arena_bytes is None


def test_without_a_teacher_nothing_is_said_about_it(model):
    comparison = compare({"student": model}, X, Y)
    assert not {"agreement", "divergence"} & set(comparison.rows[0].quality)
    assert comparison.teacher is None


def test_a_teacher_need_not_be_among_the_models(model):
    comparison = compare({"student": model}, X, Y, teacher=model)
    assert comparison.rows[0].quality["agreement"].value == 1.0
    assert comparison.teacher == "student"
    keras.utils.set_random_seed(1)
    comparison = compare({"student": model}, X, Y, teacher=classifier())
    assert comparison.rows[0].quality["agreement"].value < 1.0
    assert comparison.teacher is None
    named = compare({"large": model, "student": model}, X, Y, teacher="large")
    assert named.rows[1].quality["agreement"].value == 1.0


def test_a_model_without_kernels_has_no_sparsity():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            keras.layers.BatchNormalization(),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.RepeatVector(2),
            keras.layers.Flatten(),
        ]
    )
    assert compare({"student": model}, X, Y).rows[0].sparsity is None


def test_without_labels_only_the_teacher_and_sizes_count(model, file):
    comparison = compare({"teacher": model, "student": file}, X)
    assert set(comparison["student"].quality) == {"agreement", "divergence"}
    alone = compare({"student": file}, X)
    assert alone["student"].quality == {}
    assert alone["student"].bytes == file.size


def test_labels_of_several_kinds_at_once():
    keras.utils.set_random_seed(0)
    model = classifier(5, "sigmoid")
    truth = (model.predict(X, verbose=0) > 0.5).astype("int64")
    truth[:, 0] = 1 - truth[:, 0]
    comparison = compare({"student": model, "file": tflite.convert(model)}, X, truth)
    assert comparison.tasks == {"": "multilabel"}
    for row in comparison.rows:
        assert row.quality["accuracy"].value == pytest.approx(0.8)
        assert row.quality["exact"].value == 0.0
        assert row.per_class == (0.0, 1.0, 1.0, 1.0, 1.0)
        assert row.confusion is None
    assert comparison.class_names == ("0", "1", "2", "3", "4")


def test_regression():
    keras.utils.set_random_seed(0)
    model = classifier(1, None)
    targets = model.predict(X, verbose=0)[:, 0] + 0.25
    comparison = compare({"teacher": model, "file": tflite.convert(model)}, X, targets)
    assert comparison.tasks == {"": "regression"}
    quality = comparison["file"].quality
    assert quality["mae"].value == pytest.approx(0.25, abs=1e-5)
    assert quality["rmse"].value == pytest.approx(0.25, abs=1e-5)
    assert quality["distance"].value == pytest.approx(0.0, abs=1e-5)
    assert comparison.class_names == ()
    assert comparison.measures[0].key == "mae"
    assert not comparison.measures[0].higher_is_better


def test_anomalies():
    x = GENERATOR.random((60, 8), dtype="float32")
    labels = np.arange(60) % 3 == 0
    x[labels] += 3
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3), keras.layers.Dense(8)])
    comparison = compare({"student": model}, x, labels)
    assert comparison.tasks == {"": "reconstruction"}
    assert comparison.rows[0].quality["auc"].value == 1.0
    error = np.square(model.predict(x, verbose=0) - x).mean()
    assert comparison.rows[0].quality["mse"].value == pytest.approx(error, rel=1e-5)
    assert set(compare({"student": model}, x).rows[0].quality) == {"mse"}


def test_rankings_of_rows_and_of_groups():
    keras.utils.set_random_seed(0)
    rows = classifier(6, None)
    relevances = GENERATOR.integers(0, 3, (40, 6))
    found = compare({"student": rows}, X, relevances, task="ranking").rows[0].quality
    expected = metrics.measure(rows.predict(X, verbose=0), relevances, task="ranking")
    assert {name: each.value for name, each in found.items()} == pytest.approx(expected)
    keras.utils.set_random_seed(0)
    single = classifier(1, None)
    scores = single.predict(X, verbose=0)
    found = compare({"s": single}, X, relevances[:, 0], groups=np.arange(40) % 5).rows[0].quality
    order = np.argsort(np.arange(40) % 5, kind="stable").reshape(5, 8)
    expected = metrics.measure(scores[order, 0], relevances[order, 0], task="ranking")
    assert {name: each.value for name, each in found.items()} == pytest.approx(expected)


@pytest.mark.fast_rows(1)
@pytest.mark.parametrize("form", ["dict", "list"])
def test_several_inputs_and_outputs(several, form, tmp_path):
    x = {name: GENERATOR.random((30, 4), dtype="float32") for name in ("acc-x", "z-axis")}
    kind, pose = several.predict([x["z-axis"], x["acc-x"]], verbose=0)
    y = {"kind": kind.argmax(-1), "pose": pose + 0.5}
    file = tflite.convert(several)
    given = x if form == "dict" else [x["z-axis"], x["acc-x"]]
    comparison = compare({"teacher": several, "file": file}, given, y)
    assert comparison.tasks == {"kind": "classification", "pose": "regression"}
    for row in comparison.rows:
        assert row.quality["kind: accuracy"].value == 1.0
        assert row.quality["pose: mae"].value == pytest.approx(0.5, abs=1e-5)
        assert row.quality["kind: agreement"].value == 1.0
    assert [column.key for column in comparison.mains] == ["kind: accuracy", "pose: mae"]
    assert str(comparison).splitlines()[1].count("difference") == 2
    html = save_report(comparison, tmp_path / "report.html").read_text(encoding="utf-8")
    for title in ("kind: accuracy over size", "pose: MAE against “teacher”"):
        assert f"<h2>{title}</h2>" in html
    some = compare({"file": file}, x, {"pose": y["pose"]})
    assert {key.split(":")[0] for key in some["file"].quality} == {"pose"}
    with pytest.raises(ValueError, match=r"labels of type ndarray for a model with 2 outputs"):
        compare({"file": file}, x, y["pose"])
    with pytest.raises(ValueError, match=r"names of classes for several outputs"):
        compare({"file": file}, x, y, class_names=("a", "b", "c"))


def test_a_stream_goes_on_from_step_to_step():
    keras.utils.set_random_seed(0)
    steps = keras.Input((1, 3), batch_size=1, name="steps")
    memory = keras.layers.LSTM(4, stateful=True)(steps)
    student = keras.Model(steps, keras.layers.Dense(2, name="scores")(memory))
    x = np.random.default_rng(0).normal(size=(30, 1, 3)).astype("float32")
    expected = student.predict(x, batch_size=1, verbose=0)
    y = expected.argmax(axis=-1)
    # What begins anew with each step chooses otherwise.
    file = tflite.convert(student)
    assert (file.predict(x)["scores"].argmax(axis=-1) != y).any()
    for models in ({"student": student, "file": file}, {"file": file, "student": student}):
        comparison = compare(models, x, y, teacher=student)
        assert [row.quality["accuracy"].value for row in comparison.rows] == [1, 1]
        assert [row.quality["agreement"].value for row in comparison.rows] == [1, 1]


def test_inputs_that_do_not_fit(several, file):
    part = np.zeros((5, 4), "float32")
    with pytest.raises(ValueError, match=r"x with \['a', 'b'\] for 'student' with the inputs \['z"):
        compare({"student": several}, {"a": part, "b": part})
    with pytest.raises(ValueError, match=r"x with an array for 'student'"):
        compare({"student": several}, part)
    with pytest.raises(ValueError, match=r"numbers of examples: \{'z-axis': 5, 'acc-x': 4\}"):
        compare({"student": several}, [part, part[:4]])
    with pytest.raises(ValueError, match=r"x as a list of 3 arrays.*\(2\)"):
        compare({"student": several}, [part] * 3)
    # With one input its name does not matter.
    assert compare({"student": file}, {"picture": X}, Y).examples == 40


def test_many_classes_have_no_names_and_no_matrix():
    keras.utils.set_random_seed(0)
    comparison = compare({"student": classifier(50)}, X, Y)
    assert comparison.class_names == ()
    assert comparison.rows[0].per_class is comparison.rows[0].confusion is None
    assert comparison.rows[0].quality["f1"].value >= 0


def test_no_models():
    with pytest.raises(ValueError, match="Received no models"):
        compare({}, X, Y)


def test_no_examples(model):
    with pytest.raises(ValueError, match="without test examples"):
        compare({"student": model}, X[:0], Y[:0])


def test_something_else_than_a_model(model):
    with pytest.raises(TypeError, match="'student' of type str"):
        compare({"student": "model.tflite"}, X, Y)
    with pytest.raises(TypeError, match="'teacher' of type list"):
        compare({"student": model}, X, Y, teacher=[])


def test_other_outputs(model):
    with pytest.raises(ValueError, match=r"outputs \(40, 3\) of 'student'.*\(40, 2\), as 'first'"):
        compare({"first": model, "student": classifier(outputs=3)}, X, Y)
    with pytest.raises(ValueError, match=r"outputs \(40, 3\) of 'the teacher'"):
        compare({"first": model}, X, Y, teacher=classifier(outputs=3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sources": {"pupil": None}}, r"sources for \['pupil'\]"),
        ({"baseline": "pupil"}, r"baseline='pupil'. Expected one of 'student'"),
        ({"teacher": "pupil"}, r"teacher='pupil'. Expected one of 'student'"),
        ({"task": "detection"}, r"task='detection'. Expected one of 'classification'"),
        ({"task": {"kind": "ranking"}}, r"tasks for the outputs \['kind'\]"),
        ({"class_names": ("a",)}, "1 names of classes for outputs of 2 classes"),
        ({"task": "regression"}, r"labels of shape \(40,\).*a number for each output"),
        ({"task": "reconstruction"}, r"reconstruction for an output of shape \(40, 2\)"),
        ({"groups": Y[:5]}, r"groups of shape \(5,\) for 40 examples"),
        ({"groups": Y, "task": "classification"}, "groups for the task 'classification'"),
        ({"y": Y[:5]}, r"labels for the output .* of shape \(5,\)"),
        ({"y": Y + 1}, "labels from 1 to 2"),
    ],
)
def test_options_that_do_not_fit(model, options, message):
    with pytest.raises(ValueError, match=message):
        compare({"student": model}, X, **{"y": Y, **options})


def test_labels_are_counted_before_a_model_runs(model):
    ran = []
    for y in (Y[:5], {"output": Y[:5]}, Y * np.nan):
        with pytest.raises(ValueError, match="labels"):
            compare({"student": model}, X, y, on_measured=ran.append)
    # What depends on the outputs is found when the first model has run.
    with pytest.raises(ValueError, match="whole numbers from 0 to 1"):
        compare({"first": model, "second": model}, X, Y + 1, on_measured=ran.append)
    assert not ran


def test_a_ranking_of_single_scores_needs_groups():
    with pytest.raises(ValueError, match=r"ranking of outputs of shape \(40, 1\) without groups"):
        compare({"student": classifier(1, None)}, X, Y, task="ranking")


def test_outputs_that_are_not_finite(model):
    with pytest.raises(ValueError, match="of 'student' with NaN or infinite values"):
        compare({"student": model}, np.full_like(X, np.nan), Y)


class Fixed(keras.layers.Layer):
    """Probabilities of two classes by the brightness of the first pixel."""

    def __init__(self, threshold):
        super().__init__()
        self.threshold = threshold

    def call(self, x):
        second = keras.ops.sigmoid(20 * (x[:, 0, 0] - self.threshold))
        return keras.ops.concatenate([1 - second, second], axis=-1)


def test_where_two_models_disagree():
    models = {
        name: keras.Sequential([keras.Input((4, 4, 1)), Fixed(threshold)])
        for name, threshold in (("other", 0.3), ("teacher", 0.5), ("student", 0.4))
    }
    brightness = X[:, 0, 0, 0]
    comparison = compare(models, X, Y)
    assert comparison.pair == ("teacher", "student")
    differ = np.flatnonzero((brightness > 0.4) & (brightness < 0.5))
    assert len(differ) > 1
    surest = differ[np.argsort(brightness[differ])]
    assert [each.example for each in comparison.disagreements] == surest.tolist()
    for each in comparison.disagreements:
        assert (each.first, each.second, each.label) == (0, 1, Y[each.example])
    assert compare(models, X).disagreements[0].label is None
    assert compare({"one": models["other"]}, X, Y).pair is None
    # Without a teacher the baseline is the first of the two.
    chosen = {name: models[name] for name in ("other", "student")}
    assert compare(chosen, X, Y, baseline="student").pair == ("student", "other")


def test_a_dataset_gives_what_its_arrays_give(model):
    dataset = tf.data.Dataset.from_tensor_slices((X, Y)).batch(16)
    found, expected = compare({"model": model}, dataset), compare({"model": model}, X, Y)
    assert found.rows[0].quality == expected.rows[0].quality
    with pytest.raises(ValueError, match=r"and y. Expected a dataset .* alone.*leave y out"):
        compare({"model": model}, dataset, Y)
