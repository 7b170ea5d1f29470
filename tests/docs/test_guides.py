"""The Python of the guides, run from top to bottom on tiny models.

`distiller.md`, `evaluation.md`, `stored_teachers.md`, `quantization.md` and `text.md` are run by
the tests of what they describe.
"""

import functools
import re
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_kd
from keras_kd import compression, tflite
from keras_kd.tflite import android

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def blocks(page):
    """The blocks of Python of a page, in their order."""
    path = ROOT / page if page == "README.md" else DOCS / page
    return re.findall(r"^```python\n(.*?)^```$", path.read_text("utf-8"), re.S | re.M)


def run(page, names, only=slice(None)):
    """Run the blocks of a page one after the other; what they define is in the result."""
    found = blocks(page)[only]
    assert found
    for block in found:
        exec(compile(block, page, "exec"), names)
    return names


def small_model(seed=0, activation="softmax"):
    """A classifier of grey images of 8 by 8, with layers called block1, block2 and hidden."""
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            layers.Conv2D(4, 3, padding="same", activation="relu", name="block1"),
            layers.Conv2D(4, 3, padding="same", activation="relu", name="block2"),
            layers.Flatten(),
            layers.Dense(32, activation="relu", name="hidden"),
            layers.Dense(10, activation=activation, name="scores"),
        ]
    )


@pytest.fixture
def eager():
    """Steps that run once or twice are not worth compiling."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture
def names(tmp_path, monkeypatch):
    """What the guides take for granted: models and data."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    x = random.uniform(size=(120, 8, 8, 1)).astype("float32")
    x[:2] = [[[[0.0]]], [[[1.0]]]]  # calibration sees the whole range
    y = np.arange(120) % 10
    return {
        "keras": keras,
        "keras_kd": keras_kd,
        "np": np,
        "teacher": small_model(1),
        "student": small_model(2),
        "x": x,
        "y": y,
        "x_train": x,
        "y_train": y,
        "x_val": x[:40],
        "y_val": y[:40],
        "x_test": x[:40],
        "y_test": y[:40],
    }


@pytest.mark.slow
@pytest.mark.usefixtures("eager")
def test_resume(names):
    run("resume.md", names)
    assert [stage.name for stage in names["result"].stages][1:] == [
        "remove_filters",
        "quantize_aware",
    ]
    assert names["stored"].examples == 120
    assert Path("best.keras").is_file()


def test_distributed(names):
    for name in ("teacher", "student"):
        names[name].save(f"{name}.keras")
        names[f"{name}_file"] = f"{name}.keras"
    names = run("distributed.md", {"tf": tf, **names})
    assert names["distiller"].distribute_strategy is names["strategy"]


def test_web(names, capsys):
    run("web.md", names)
    assert "float32" in capsys.readouterr().out
    # The names of LiteRT.js are those of the page that is tested in a browser.
    (script,) = re.findall(r"^```js\n(.*?)^```$", (DOCS / "web.md").read_text("utf-8"), re.S | re.M)
    tested = (ROOT / "examples" / "web" / "student.js").read_text("utf-8")
    called = set(re.findall(r"\b(\w+)\(", script)) - {"fetch"}
    assert {"loadLiteRt", "loadAndCompile", "getInputDetails", "toTypedArray"} <= called
    for name in called:
        assert f"{name}(" in tested
    assert 'accelerator: "wasm"' in script
    assert 'accelerator: "wasm"' in tested


@pytest.mark.usefixtures("eager")
def test_which_loss(names, capsys):
    names["teacher"], names["student"] = small_model(1), small_model(2)
    run("which_loss.md", names)
    assert "distillation_loss" in capsys.readouterr().out
    # Every loss of the page exists.
    page = (DOCS / "which_loss.md").read_text("utf-8")
    named = set(re.findall(r"`([A-Z][A-Za-z0-9]+)[`(]", page))
    assert {"SoftTargets", "DIST", "Hint"} <= named <= set(keras_kd.losses.__all__)


@pytest.mark.slow
@pytest.mark.usefixtures("eager")
def test_when_it_does_not_help(names):
    names |= {"alone": small_model(3), "distilled": small_model(4), "x_unlabeled": names["x_val"]}
    run("when_it_does_not_help.md", names)
    assert {"student_loss", "distillation_loss"} <= set(names["history"])


def sequential(shape, *inner, name="student"):
    return keras.Sequential([keras.Input(shape, name="image"), *inner], name=name)


class Sub(keras.Model):
    def __init__(self):
        super().__init__(name="sub")
        self.scores = layers.Dense(10)

    def call(self, x):
        return self.scores(keras.ops.reshape(x, (-1, 64)))


MESSAGES = re.findall(
    r"^```python\n((?:(?!```).*\n)*)```\n\n```text\n(.*)\n```",
    (DOCS / "troubleshooting.md").read_text("utf-8"),
    re.M,
)


@pytest.mark.parametrize(
    ("code", "message"), MESSAGES, ids=[f"message{n}" for n in range(len(MESSAGES))]
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_messages(names, code, message):
    """Each block raises the message that stands below it; numbers may differ."""

    def classifier(classes, name):
        hidden = layers.Conv2D(4, 3, padding="same", activation="relu", name="block1")
        scores = layers.Dense(classes, activation="softmax", name="scores")
        return sequential((8, 8, 1), hidden, layers.Flatten(name="flatten"), scores, name=name)

    random = np.random.default_rng(0)
    subclassed = Sub()
    subclassed.build((None, 8, 8, 1))
    names |= {
        "tflite": tflite,
        "teacher": classifier(10, "teacher"),
        "student": classifier(10, "student"),
        "teacher_of_five_classes": classifier(5, "teacher"),
        "subclassed_student": subclassed,
        "student_with_gelu": sequential((16,), layers.Dense(8, activation="gelu")),
        "student_with_gru": sequential(
            (5, 4), layers.GRU(8, name="gru"), layers.Dense(3), name="recurrent"
        ),
        "rows": random.normal(size=(50, 16)).astype("float32"),
        "sequences": random.normal(size=(50, 5, 4)).astype("float32"),
    }
    if "microcontroller" in code:
        pytest.importorskip("tflite_micro")
    with pytest.raises(ValueError, match="Received") as raised:
        exec(code, names)

    def without_numbers(text):
        return re.sub(r"\d+(\.\d+)?", "0", text)

    assert without_numbers(str(raised.value)) == without_numbers(message)


@pytest.mark.usefixtures("eager")
def test_losses(names):
    image = keras.Input((8, 8, 1))
    features = layers.Dense(4, name="block2")(layers.Flatten()(image))
    heads = {name: layers.Dense(10, name=name)(features) for name in ("class", "distillation")}
    plain, attention, token = blocks("losses.md")
    exec(plain, names)
    exec(attention, names)
    assert names["attention"].heads == [0, 4, [8, 9]]
    names["student"] = keras.Model(image, heads)
    exec(token, names)
    assert names["distiller"].optimizer.iterations == 4


@pytest.mark.slow
def test_compression(names):
    names |= {name: getattr(compression, name) for name in compression.__all__}
    first, _, zeros = blocks("compression.md")
    exec(first, names)
    assert names["student"].count_params() < small_model().count_params()
    names["student"] = small_model(2)
    exec(zeros, names)
    assert names["pruned"].training_callbacks


@pytest.mark.slow
def test_a_pipeline(names):
    names["distiller"] = keras_kd.Distiller(names["teacher"], names["student"])
    names["distiller"].compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    run("compression.md", names, slice(1, 2))
    printed = re.findall(r"^(\w+) +\d+ ", (DOCS / "compression.md").read_text("utf-8"), re.M)
    assert [stage.name for stage in names["result"].stages] == printed


def test_android(names):
    Path("labels.txt").write_text("\n".join("abcdefghij"), "utf-8")
    x = names["x"]
    names |= {
        "student": small_model(2, activation=None),
        "color_images": np.repeat(x, 3, axis=-1),
        "pixels": 255 * np.repeat(x, 3, axis=-1),
        "class_names": list("abcdefghij"),
    }
    run("android.md", names, slice(0, 2))
    for name in ("digits", "classifier"):
        metadata = android.read_metadata(tflite.TFLiteModel.load(f"{name}.tflite"))
        assert metadata.class_names == tuple("abcdefghij")
    names |= {"student": small_model(2), "images": x}
    run("android.md", names, slice(2, 3))
    assert names["model"].inputs[0].scale == pytest.approx(1 / 255)
    assert names["model"].inputs[0].zero_point == 0


def test_microcontroller(names, capsys):
    pytest.importorskip("tflite_micro")
    names["names"] = list("abcdefghij")
    run("microcontroller.md", names)
    assert Path("digits", "digits_class_names.h").is_file()
    assert "1" in capsys.readouterr().out


def test_state(names):
    pytest.importorskip("tflite_micro")
    sound = keras.Input((None, 40))
    scores = layers.Dense(12)(layers.GRU(64)(sound))
    sounds = np.random.default_rng(0).normal(size=(30, 1, 40)).astype("float32")
    names |= {"trained": keras.Model(sound, scores), "sounds": sounds, "tflite": tflite}
    run("state.md", names)
    assert names["scores"].shape[0] == 30


@pytest.mark.slow
def test_the_readme(names, capsys, monkeypatch):
    pytest.importorskip("tflite_micro")
    few = functools.partial(keras_kd.fit_to_device, trials=1, epochs=1, keep=0.1)
    monkeypatch.setattr(keras_kd, "fit_to_device", few)
    names |= {"x_val": names["x_test"], "y_val": names["y_test"]}
    run("README.md", names)
    assert Path("student.keras").is_file()
    assert Path("firmware").is_dir()
    assert "accuracy" in capsys.readouterr().out
