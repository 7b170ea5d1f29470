import keras
import numpy as np
import pytest
from keras import layers

from keras_kd import tflite
from keras_kd.tflite.verification.closeness import warn_of_lost
from keras_kd.tflite.verification.kinds import output_kinds

X = np.random.default_rng(0).normal(size=(64, 6)).astype("float32")
OUTPUTS = {
    "softmax": lambda x: layers.Dense(3, activation="softmax", name="softmax")(x),
    "tags": lambda x: layers.Dense(3, activation="sigmoid", name="tags")(x),
    "chance": lambda x: layers.Dense(1, activation="sigmoid", name="chance")(x),
    "number": lambda x: layers.Dense(1, name="number")(x),
    "boxes": lambda x: layers.Reshape((2, 4), name="boxes")(layers.Dense(8)(x)),
    "again": lambda x: layers.Dense(6, name="again")(x),
    "pixels": lambda x: layers.Dense(6, activation="sigmoid", name="pixels")(x),
    "features": lambda x: layers.Dense(5, activation="relu", name="features")(x),
    "scores": lambda x: layers.Dense(5, name="scores")(x),
    "unlike": lambda x: layers.Rescaling([1.0, 3000.0], name="unlike")(layers.Dense(2)(x)),
}
CHOOSE = {"softmax", "tags", "chance", "scores"}


@pytest.fixture(scope="module")
def student():
    keras.utils.set_random_seed(0)
    x = keras.Input((6,))
    return keras.Model(x, [make(x) for make in OUTPUTS.values()])


@pytest.fixture(scope="module")
def model(student):
    return tflite.convert(student, verification_data=X)


def test_what_chooses_between_classes(model):
    agreements = {output.name: output.agreement for output in model.verification.outputs}
    assert agreements == {name: 1 if name in CHOOSE else None for name in OUTPUTS}
    assert model.verification.agreement == 1
    text = str(model.verification)
    assert "output scores: 100.00 %, up to" in text
    assert "output number: up to" in text


@pytest.mark.parametrize(
    ("loss", "chooses"),
    [
        ("mse", False),
        (keras.losses.Huber(), False),
        ({"scores": "mean_absolute_error"}, False),
        ([None] * 8 + ["categorical_crossentropy"], True),
        (keras.losses.BinaryCrossentropy(from_logits=True), True),
        (None, None),
    ],
)
def test_losses_tell_as_well(model, loss, chooses):
    assert output_kinds(model, loss)["scores"].chooses is chooses


def test_no_choices_are_counted_in_regression():
    student = keras.Sequential([keras.Input((6,)), layers.Dense(1)])
    model = tflite.convert(student, verification_data=X)
    assert model.verification.agreement is None
    assert model.verification.to_dict()["agreement"] is None
    assert "choices" not in str(model.verification)
    # As logits of one class they are what the labels say.
    assert tflite.verify(model, student, X, (student(X) > 0).numpy().ravel()).accuracy == 1


def regression(scale, offset=0.0, outputs=2):
    keras.utils.set_random_seed(0)
    x = keras.Input((6,))
    y = layers.Dense(16, activation="relu")(x)
    return keras.Model(x, layers.Rescaling(scale, offset, name="target")(layers.Dense(outputs)(y)))


@pytest.mark.parametrize("scale", [[1.0, 3000.0], [3000.0, 1.0]])
def test_columns_of_another_scale(scale):
    student = regression(scale)
    with pytest.warns(UserWarning, match=r"variation of the channels \[\d\].*separate output"):
        model = tflite.convert(student, "int8", X)
    [output] = model.verification.outputs
    assert output.lost_channels == (scale.index(1.0),)
    assert output.agreement is None
    assert f"nothing left of the variation of channels {scale.index(1.0)}" in str(
        model.verification
    )
    assert model.verification.to_dict()["outputs"][0]["lost_channels"] == [scale.index(1.0)]


def test_the_ways_out_of_another_scale():
    student = regression([1.0, 3000.0])
    model = tflite.convert(student, "float32", verification_data=X)
    assert model.verification.outputs[0].lost_channels == ()
    # An output for each column.
    whole = student.layers[-2].output
    columns = [whole[:, :1] * 1.0, whole[:, 1:] * 3000.0]
    model = tflite.convert(keras.Model(student.input, columns), "int8", X)
    for output in model.verification.outputs:
        assert output.lost_channels == ()
        assert output.largest_difference < 0.03 * (output.high - output.low)


def test_a_target_far_from_zero_has_few_levels():
    student = regression(4.0, 1013.0, outputs=1)
    extent = np.ptp(np.asarray(student(X)))
    with pytest.warns(UserWarning, match=r"into \d levels: its step is [34]\.\d+.*mean is subtr"):
        model = tflite.convert(student, "int8", X)
    [output] = model.verification.outputs
    assert output.fewest_levels == pytest.approx(extent / output.step)
    assert f"{output.fewest_levels:.0f} levels" in str(model.verification)
    model = tflite.convert(regression(4.0, 0.0, outputs=1), "int8", X)
    assert model.verification.outputs[0].fewest_levels > 200


def test_probabilities_may_be_small():
    student = keras.Sequential(
        [keras.Input((6,)), layers.Dense(3), layers.Rescaling(1.0, [0.0, 0.0, -9.0]),
         layers.Softmax()]
    )  # fmt: skip
    model = tflite.convert(student, "int8", X)
    [output] = model.verification.outputs
    assert output.is_probability
    assert (output.lost_channels, output.fewest_levels) == ((), None)
    warn_of_lost(model.verification)


def test_each_label_of_several_is_a_choice():
    keras.utils.set_random_seed(0)
    student = keras.Sequential([keras.Input((6,)), layers.Dense(5, activation="sigmoid")])
    truth = (student(X).numpy() > 0.5).astype("float32")
    truth[:8, 0] = 1 - truth[:8, 0]
    model = tflite.convert(student, "int8", X, verification_data=X, y=truth)
    given = model.verification
    assert given.task == "multilabel"
    assert given.student_accuracy == 1 - 8 / truth.size
    assert given.accuracy == ((model.predict(X) > 0.5) == truth).mean() > 0.9
    assert f"accuracy: {100 * given.accuracy:.2f} %, the student's 97.50 %" in str(given)
    # Whether there are labels or not, a choice is one label.
    same = ((model.predict(X) > 0.5) == (student(X).numpy() > 0.5)).mean()
    assert given.agreement == tflite.verify(model, student, X).agreement == same


def test_targets_are_measured_by_their_error():
    student = regression(1.0)
    targets = np.asarray(student(X)) + np.float32([0.5, -0.25])
    given = tflite.convert(student, verification_data=X, y=targets).verification
    assert (given.task, given.accuracy, given.agreement) == ("regression", None, None)
    assert given.score == pytest.approx(0.375, abs=1e-5)
    assert "MAE: 0.375, the student's 0.375" in str(given)
    assert given.to_dict()["score"] == given.score


def test_anomalies_are_measured_by_the_area_under_the_curve():
    student = keras.Sequential([keras.Input((6,)), layers.Dense(6)])
    y = np.arange(64) % 4 == 0
    model = tflite.convert(student, verification_data=X, y=y)
    errors = np.square(model.predict(X) - X).mean(axis=1)
    expected = np.mean(errors[y][:, None] > errors[~y])
    assert model.verification.task == "reconstruction"
    assert model.verification.score == pytest.approx(expected)
    assert f"AUC: {100 * expected:.2f} %, the student's" in str(model.verification)
