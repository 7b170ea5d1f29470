import io

import keras
import numpy as np
import pytest

import keras_kd
from keras_kd.data import Splits


@pytest.fixture(scope="module")
def benchmark(scripts):
    return scripts("teacher_forms")


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).random((12, 28, 28, 1), dtype="float32")


def used(model):
    """The model with the statistics of one that was trained."""
    generator = np.random.default_rng(1)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([generator.uniform(0.8, 1.25, w.shape) for w in layer.weights])
    return model


@pytest.fixture(scope="module")
def teacher(scripts):
    keras.utils.set_random_seed(0)
    return used(scripts("loss_trials").convolutional_network((3, 4, 5), "teacher"))


@pytest.fixture(scope="module")
def teachers(benchmark, teacher, images):
    return benchmark.formed(teacher, images, lambda _: None)


@pytest.mark.slow
def test_forms_say_what_the_teacher_says(benchmark, teachers, images):
    logits = benchmark.said(teachers, images)
    expected = logits[benchmark.AS_IT_IS]
    scale = np.abs(expected).max()
    for name, got in logits.items():
        tolerance = {"LiteRT, int8": 0.05, "bfloat16": 0.05}.get(name, 1e-5)
        np.testing.assert_allclose(got, expected, atol=tolerance * scale, err_msg=name)


@pytest.mark.slow
def test_a_file_takes_batches_of_any_size(teachers, images):
    file = teachers["LiteRT, float32"].function
    together = file(images)
    np.testing.assert_allclose(file(images[:5]), together[:5], atol=1e-5)
    np.testing.assert_allclose(file(images), together, atol=1e-6)


def test_every_form_is_timed(benchmark, teachers, images):
    took = benchmark.milliseconds(teachers, images, rounds=2, most_seconds=100)
    assert list(took) == list(teachers)
    assert min(took.values()) > 0


@pytest.mark.slow
def test_students_of_forms_are_scored(scripts, benchmark, teachers, images, tmp_path):
    labels = np.arange(12) % 10
    dataset = Splits("noise", images, labels, images, labels, tuple("abcdefghij"))
    setting = scripts("loss_trials").Setting(
        teacher_images=12,
        teacher_epochs=1,
        teacher_channels=(3, 4, 5),
        student_images=12,
        student_epochs=1,
        batch_size=4,
        student_channels=(2, 2, 2),
    )
    room = benchmark.Classroom(dataset, setting, tmp_path)
    lines = []
    teachers = {name: teachers[name] for name in (benchmark.AS_IT_IS, "LiteRT, int8")}
    accuracies = benchmark.students(room, teachers, 2, lines.append)
    assert set(accuracies) == set(teachers)
    assert all(len(of_seeds) == 2 for of_seeds in accuracies.values())
    assert len(lines) == 2 * len(teachers)


def test_rows_compare_with_the_teacher_as_it_is(benchmark):
    logits = {
        benchmark.AS_IT_IS: np.array([[0.0, 1.0], [1.0, 0.0]]),
        "rough": np.array([[0.0, 1.0], [1.0, 1.5]]),
    }
    times = {"CNN": {benchmark.AS_IT_IS: 4.0, "rough": 3.0}}
    accuracies = {benchmark.AS_IT_IS: [80.0, 82.0], "rough": [79.0, 82.0]}
    console = benchmark.Console(width=150, record=True, file=io.StringIO())
    console.print(benchmark.table(times, logits, accuracies))
    (row,) = (line for line in console.export_text().splitlines() if "rough" in line)
    cells = [cell.strip() for cell in row.split("│")[1:-1]]
    assert cells == [
        "rough", "3.0", "0.75", "2e+00", "50.00%", "80.50 ± 1.50", "-0.50 ± 0.50"
    ]  # fmt: skip


def test_one_seed_is_refused(benchmark, capsys):
    with pytest.raises(SystemExit, match="2"):
        benchmark.main(["--seeds", "1"])
    assert "a standard error needs at least two seeds" in capsys.readouterr().err


def normalized(inputs, layer, **kwargs):
    return keras.layers.BatchNormalization(**kwargs)(layer(inputs))


@pytest.mark.parametrize(
    ("layer", "arguments"),
    [
        (keras.layers.Conv2D(3, 2), {}),
        (keras.layers.Conv2D(3, 2, use_bias=False), {"scale": False}),
        (keras.layers.DepthwiseConv2D(2, depth_multiplier=2), {"center": False}),
    ],
)
def test_a_normalization_goes_into_the_convolution_before_it(scripts, layer, arguments):
    inputs = keras.Input((5, 5, 2))
    model = used(keras.Model(inputs, normalized(inputs, layer, **arguments)))
    folding = scripts("folding")
    folded = folding.folded(model)
    assert not any(isinstance(x, keras.layers.BatchNormalization) for x in folded.layers)
    x = np.random.default_rng(2).normal(size=(3, 5, 5, 2)).astype("float32")
    np.testing.assert_allclose(folded(x), model(x, training=False), atol=1e-5)


def test_what_something_else_reads_is_not_folded(scripts):
    inputs = keras.Input((5, 5, 2))
    read_twice = keras.layers.Conv2D(3, 2)(inputs)
    activated = keras.layers.Conv2D(3, 2, activation="relu")(inputs)
    outputs = [keras.layers.BatchNormalization()(tensor) for tensor in (read_twice, activated)]
    model = used(keras.Model(inputs, [read_twice, *outputs]))
    assert scripts("folding").foldable(model) == {}
    folded = scripts("folding").folded(model)
    x = np.random.default_rng(2).normal(size=(3, 5, 5, 2)).astype("float32")
    for got, expected in zip(folded(x), model(x, training=False), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-6)


def test_a_form_teaches_in_a_distiller(teachers, images):
    inputs = keras.Input((28, 28, 1))
    student = keras.Model(inputs, keras.layers.Dense(10)(keras.layers.Flatten()(inputs)))
    distiller = keras_kd.Distiller(teachers["LiteRT, float32"], student, student_loss_weight=0)
    distiller.compile("adam")
    assert distiller.fit(images, verbose=0).history["distillation_loss"][0] > 0
