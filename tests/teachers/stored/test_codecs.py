"""What is stored of a tensor, and what its rounding may cost."""

import json

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from keras_kd.teachers.stored.codecs import (
    DTYPES,
    Dense,
    TopK,
    check_reach,
    check_values,
    codec_from_json,
    from_steps,
    largest,
    rounded_down,
    rounded_up,
    to_steps,
)

SHAPES = [(7,), (3, 7), (), (2, 3, 5)]
CODECS = [
    *(Dense("x", shape, dtype) for shape in SHAPES for dtype in DTYPES),
    *(TopK("x", (7,), k, dtype, (4.0, 1.0)) for k in (1, 3, 6, 7) for dtype in DTYPES),
    *(TopK("x", (3, 2, 300), 5, dtype) for dtype in DTYPES),
]
NORMALISED = float(np.finfo("float16").tiny)

# A property takes a file's worth of examples, not minutes.
few = settings(max_examples=60, deadline=None, derandomize=True)


def records_of(codec, array, **arguments):
    fields = codec.encode(array, **arguments)
    records = np.zeros(len(array), np.dtype(codec.fields))
    assert set(fields) == set(records.dtype.names)
    for name, values in fields.items():
        assert values.dtype == records.dtype[name].base
        assert values.shape == records[name].shape
        records[name] = values
    return records


def read_back(codec, array):
    return codec.decode(records_of(codec, array))


def draw(codec, count=6, scale=5.0, seed=0):
    random = np.random.default_rng(seed)
    return random.normal(scale=scale, size=(count, *codec.shape)).astype("float32")


def softmax(logits, temperature=1.0):
    scaled = np.asarray(logits, "float64") / temperature
    scaled = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    return scaled / scaled.sum(axis=-1, keepdims=True)


def half_precision_error(values):
    """The docstrings' bound of float16."""
    sizes = np.abs(np.asarray(values, "float64"))
    return np.where(sizes < NORMALISED, 2.0**-25, sizes * 2.0**-11)


def log_mass(logits):
    with np.errstate(divide="ignore"):
        return np.log(np.exp(logits).sum(axis=-1))


def log_odds_of_the_rest(logits, classes, temperature):
    """log(p_rest / (1 - p_rest)) in float64; the classes of the rest weigh all others' share."""
    logits = np.asarray(logits, "float64")
    below = (logits - logits.max(axis=-1, keepdims=True)) / temperature
    kept = np.take_along_axis(below, classes, axis=-1)
    np.put_along_axis(below, classes, -np.inf, axis=-1)
    return log_mass(below) - log_mass(kept)


def rows(largest=300.0):
    """Rows of logits: ordinary ones, ties, constants, and far apart."""
    shapes = arrays.array_shapes(min_dims=2, max_dims=3, max_side=6)
    numbers = st.floats(-largest, largest, width=32) | st.sampled_from([0.0, 1.0, largest])
    return arrays.arrays("float32", shapes, elements=numbers)


@pytest.mark.parametrize("codec", CODECS, ids=repr)
def test_decoded_arrays_are_as_described(codec):
    decoded = read_back(codec, draw(codec))
    assert {name: (array.dtype.name, array.shape[1:]) for name, array in decoded.items()} == (
        codec.decoded
    )
    assert all(len(array) == 6 and array.flags.c_contiguous for array in decoded.values())


@pytest.mark.parametrize("codec", CODECS, ids=repr)
def test_an_example_is_encoded_alike_in_any_batch(codec):
    array = draw(codec)
    whole = records_of(codec, array)
    parts = np.concatenate([records_of(codec, array[:1]), records_of(codec, array[1:])])
    assert whole.tobytes() == parts.tobytes()
    one = codec.decode(whole[[4, 4, 0]])
    for name, values in codec.decode(whole).items():
        np.testing.assert_array_equal(one[name], values[[4, 4, 0]])


@pytest.mark.parametrize("codec", CODECS, ids=repr)
def test_no_examples(codec):
    decoded = read_back(codec, draw(codec, 0))
    assert {name: array.shape for name, array in decoded.items()} == {
        name: (0, *shape) for name, (_, shape) in codec.decoded.items()
    }


@pytest.mark.parametrize("codec", CODECS, ids=repr)
def test_a_header_describes_a_codec(codec):
    assert codec_from_json(json.loads(json.dumps(codec.to_json()))) == codec


@pytest.mark.parametrize("dtype", ["float16", "float64", ml_dtypes.bfloat16, "int32"])
@pytest.mark.parametrize("codec", CODECS[:3] + CODECS[15:18], ids=repr)
def test_arrays_of_any_precision(codec, dtype):
    array = draw(codec).astype(dtype)
    for name, values in read_back(codec, array.astype("float32")).items():
        np.testing.assert_array_equal(read_back(codec, array)[name], values)


@few
@given(rows())
def test_dense_float32_is_exact(array):
    codec = Dense("x", array.shape[1:], "float32")
    np.testing.assert_array_equal(read_back(codec, array)["values"], array)


@few
@given(rows(65504.0))
def test_dense_float16_is_off_by_no_more_than_stated(array):
    decoded = read_back(Dense("x", array.shape[1:], "float16"), array)["values"]
    error = np.abs(decoded.astype("float64") - array)
    assert (error <= half_precision_error(array)).all()


@few
@given(rows(65504.0))
def test_dense_uint8_is_off_by_no_more_than_half_a_step(array):
    codec = Dense("x", array.shape[1:], "uint8")
    records = records_of(codec, array)
    low, high = (records[f"x:{name}"].astype("float64")[..., None] for name in ("low", "high"))
    assert (low <= array).all()
    assert (array <= high).all()
    assert (array.min(-1, keepdims=True) - low <= 2 * half_precision_error(low)).all()
    rounding = 2.0**-22 * np.maximum(np.abs(low), np.abs(high))
    error = np.abs(codec.decode(records)["values"].astype("float64") - array)
    assert (error <= (high - low) / 510 + rounding).all()


@few
@given(rows(), st.floats(0.5, 20.0), st.sampled_from(["float16", "uint8"]))
def test_probabilities_of_dense_logits_are_off_by_no_more_than_stated(array, temperature, dtype):
    decoded = read_back(Dense("x", array.shape[1:], dtype), array)["values"]
    largest = np.abs(decoded.astype("float64") - array).max(axis=-1, keepdims=True)
    error = np.abs(softmax(decoded, temperature) - softmax(array, temperature))
    assert (error <= np.tanh(largest / (2 * temperature)) + 1e-12).all()


@few
@given(rows(), st.data(), st.sampled_from(DTYPES))
def test_top_k_is_off_by_no_more_than_stated(array, data, dtype):
    if array.shape[-1] < 2:
        array = np.concatenate([array, array + 1], axis=-1)
    k = data.draw(st.integers(1, array.shape[-1]))
    temperatures = (4.0, 0.5)
    codec = TopK("x", array.shape[1:], k, dtype, temperatures)
    decoded = read_back(codec, array)

    classes = decoded["classes"].astype("int64")
    assert (np.diff(np.sort(classes, axis=-1), axis=-1) > 0).all()
    exact = np.take_along_axis(array, classes, axis=-1).astype("float64")
    np.testing.assert_array_equal(exact, -np.sort(-array, axis=-1)[..., :k])
    differences = exact - exact[..., :1]
    assert (decoded["values"][..., 0] == 0).all()
    assert (np.diff(decoded["values"]) <= 0).all()
    error = np.abs(decoded["values"].astype("float64") - differences)
    farthest = -differences[..., -1:]
    bound = {
        "float32": 2.0**-24 * np.abs(differences),
        "float16": half_precision_error(differences),
        "uint8": (farthest + 2 * half_precision_error(farthest)) / 510 + 2.0**-22 * farthest,
    }[dtype]
    assert (error <= bound).all()

    for place, temperature in enumerate(temperatures):
        rest = decoded["rest"][..., place].astype("float64")
        if k == array.shape[-1]:
            assert (rest == -np.inf).all()
            continue
        true = log_odds_of_the_rest(array, classes, temperature)
        found = rest - log_mass(decoded["values"].astype("float64") / temperature)
        bound = 2.0**-24 * np.abs(true) if dtype == "float32" else half_precision_error(true)
        # exp() is 0 in float64 for the rest of some rows, and the log-odds are added in float32.
        finite = np.isfinite(true)
        rounding = 2.0**-22 * (np.abs(true) + np.log(k) + 1)
        assert (np.abs(found - true)[finite] <= (bound + rounding)[finite]).all()


@few
@given(rows(), st.data(), st.sampled_from(DTYPES))
def test_probabilities_of_top_k_are_off_by_no_more_than_stated(array, data, dtype):
    if array.shape[-1] < 2:
        array = np.concatenate([array, array - 1], axis=-1)
    k = data.draw(st.integers(1, array.shape[-1]))
    temperature = data.draw(st.floats(0.5, 20.0))
    decoded = read_back(TopK("x", array.shape[1:], k, dtype, (temperature,)), array)
    classes = decoded["classes"].astype("int64")
    full = softmax(array, temperature)
    kept = np.take_along_axis(full, classes, axis=-1)
    np.put_along_axis(full, classes, 0.0, axis=-1)
    rest = full.sum(axis=-1)

    outcomes = [decoded["values"] / np.float64(temperature), decoded["rest"].astype("float64")]
    found = softmax(np.concatenate(outcomes, axis=-1))
    off_rest = 1e-6 if dtype == "float32" else 0.00011
    assert (np.abs(found[..., -1] - rest) <= off_rest).all()
    exact = np.take_along_axis(array, classes, axis=-1).astype("float64")
    off = np.abs(decoded["values"] - (exact - exact[..., :1])).max(axis=-1, keepdims=True)
    bound = np.tanh(off / (2 * temperature)) + off_rest
    assert (np.abs(found[..., :-1] - kept) <= bound).all()


@pytest.mark.parametrize(
    ("dtype", "size", "megabytes"), [("float16", 52, 69.1), ("uint8", 39, 52.5)]
)
def test_bytes_of_a_million_examples_of_a_thousand_classes(dtype, size, megabytes):
    record = np.dtype([*TopK("logits", (1000,), 16, dtype).fields, ("fingerprint", "<u2")])
    assert record.itemsize == size + 2
    assert 1.28e6 * record.itemsize / 1e6 == pytest.approx(megabytes, abs=0.05)


def test_bytes_of_dense_logits():
    sizes = {dtype: np.dtype(Dense("x", (1000,), dtype).fields).itemsize for dtype in DTYPES}
    assert sizes == {"float32": 4000, "float16": 2000, "uint8": 1004}


@pytest.mark.parametrize("classes", [2, 3, 255, 256, 257, 1000, 65537])
def test_every_class_can_be_named(classes):
    codec = TopK("x", (classes,), min(classes, 3))
    logits = np.zeros((5, classes), "float32")
    logits[np.arange(5), [0, 1, classes // 2, classes - 2, classes - 1]] = 1.0
    found = read_back(codec, logits)["classes"][:, 0]
    np.testing.assert_array_equal(found, [0, 1, classes // 2, classes - 2, classes - 1])


def test_classes_without_any_mass_weigh_nothing():
    logits = np.array([[0.0, -1.0, -1e9, -1e9]], "float32")
    assert read_back(TopK("x", (4,), 2), logits)["rest"] == -np.inf
    exact = TopK("x", (4,), 3, "float32")
    np.testing.assert_array_equal(read_back(exact, logits)["values"], [[0.0, -1.0, -1e9]])


def test_several_tensors_share_a_record():
    codecs = [Dense("block/3", (4, 2)), TopK("logits", (9,), 3), Dense("outputs", (9,), "uint8")]
    record = np.dtype([field for codec in codecs for field in codec.fields])
    assert record.itemsize == 16 + (2 + 2 + 4) + (9 + 4)


@pytest.mark.parametrize("codec", [Dense("x", (3,)), TopK("x", (3,), 2)], ids=repr)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_by_its_example(codec, value):
    array = np.zeros((4, 3), "float32")
    array[2:, 1] = value
    with pytest.raises(ValueError, match=r"NaN or infinite values in 'x' of example 102\..*Expec"):
        codec.encode(array, first_example=100)


@pytest.mark.parametrize("dtype", ["float16", "uint8"])
@pytest.mark.parametrize("kind", ["dense", "top_k"])
def test_what_is_beyond_the_dtype_is_refused_by_its_example(kind, dtype):
    codec = Dense("x", (3,), dtype) if kind == "dense" else TopK("x", (3,), 2, dtype)
    array = np.zeros((4, 3), "float32")
    array[3] = [-65505.0, 0.0, -65505.0]
    with pytest.raises(ValueError, match=r"the value 65505 in 'x' of example 3.*65504.*float32"):
        codec.encode(array)
    array[3] = [-65504.0, 0.0, -65504.0]
    assert read_back(codec, array)["values"][3].min() == pytest.approx(-65504.0, rel=1e-6)


@pytest.mark.parametrize("codec", [Dense("x", (3,)), TopK("x", (3,), 2)], ids=repr)
@pytest.mark.parametrize("shape", [(4, 2), (3,), (4, 3, 1), ()])
def test_another_shape_is_refused(codec, shape):
    with pytest.raises(ValueError, match=r"'x' of shape .*Expected \(examples, 3\).*To fix it"):
        codec.encode(np.zeros(shape))


@pytest.mark.parametrize("shape", [(None, 3), (0,), (2.0,), (True,), "3", 3])
def test_shapes_that_are_not_known(shape):
    with pytest.raises(ValueError, match=r"the shape .* of 'x'.*known and above 0"):
        Dense("x", shape)
    with pytest.raises(ValueError, match=r"the shape .* of 'x'.*known and above 0"):
        TopK("x", shape, 1)


def test_arguments_of_top_k():
    with pytest.raises(ValueError, match=r"top_k=8 for 'x' with 7 classes.*from 1 to 7"):
        TopK("x", (7,), 8)
    with pytest.raises(ValueError, match="top_k=0"):
        TopK("x", (7,), 0)
    with pytest.raises(TypeError, match=r"top_k=2\.0"):
        TopK("x", (7,), 2.0)
    for shape in [(1,), ()]:
        with pytest.raises(ValueError, match="a distribution over at least two classes"):
            TopK("x", shape, 1)
    with pytest.raises(TypeError, match=r"temperatures=\(\).*at least one"):
        TopK("x", (7,), 2, temperatures=())
    with pytest.raises(TypeError, match=r"temperatures=4\.0"):
        TopK("x", (7,), 2, temperatures=4.0)
    with pytest.raises(ValueError, match=r"temperatures=0.*above 0"):
        TopK("x", (7,), 2, temperatures=(0,))
    with pytest.raises(ValueError, match="each of them once"):
        TopK("x", (7,), 2, temperatures=(4, 4.0))


@pytest.mark.parametrize("kind", [Dense, TopK])
def test_unknown_dtypes(kind):
    arguments = ("x", (7,)) if kind is Dense else ("x", (7,), 2)
    with pytest.raises(ValueError, match=r"dtype='int4'.*'float32', 'float16', 'uint8'"):
        kind(*arguments, dtype="int4")


@pytest.mark.parametrize(
    "change", [{"kind": "sparse"}, {"kind": ["dense"]}, {"name": None}, {"size": 3}, None]
)
def test_headers_of_something_else_are_refused(change):
    described = Dense("x", (7,)).to_json()
    if change == {"name": None}:
        del described["name"]
    else:
        described = [described] if change is None else described | change
    with pytest.raises(ValueError, match=r"of a stored tensor.*To fix it: store"):
        codec_from_json(described)


def test_damaged_records_are_refused():
    codec = TopK("x", (5,), 2)
    records = records_of(codec, draw(codec))
    beyond, no_number = records.copy(), records.copy()
    beyond["x:classes"][3] = 255
    no_number["x:rest"][3] = np.nan
    for damaged in (beyond, no_number):
        with pytest.raises(ValueError, match="records of 'x' with a class beyond 4 or"):
            codec.decode(damaged)


few = settings(max_examples=60, deadline=None, derandomize=True)
within_half = st.floats(-65504.0, 65504.0)


@few
@given(st.lists(within_half, min_size=1, max_size=5))
def test_rounding_up_and_down_to_the_nearest_float16_on_that_side(numbers):
    values = np.array(numbers)
    up, down = rounded_up(values), rounded_down(values)
    assert up.dtype == down.dtype == np.float16
    assert (down <= values).all()
    assert (values <= up).all()
    # Nothing is between the two but what was rounded.
    assert (np.nextafter(down, up) == up).all()


@few
@given(within_half, within_half, st.floats(0.0, 1.0))
def test_steps_come_back_to_within_half_of_one(one, other, share):
    low = rounded_down(np.array([min(one, other)]))
    high = rounded_up(np.array([max(one, other)]))
    width = float(high[0]) - float(low[0])
    values = low.astype("float64")[:, None] + share * width
    back = from_steps(to_steps(values, low, high), low, high)
    assert back.dtype == np.float32
    rounding = 2.0**-22 * max(abs(float(low[0])), abs(float(high[0])))
    assert abs(back - values) <= width / 510 + rounding


def test_the_largest_of_each_dtype():
    assert largest("float16") == largest("uint8") == 65504.0
    assert largest("float32") == np.finfo("float32").max
    check_reach("x", "float16", np.array([[65504.0]]))
    with pytest.raises(ValueError, match=r"the value 65505 in 'x' of example 8 for dtype='fl"):
        check_reach("x", "float16", np.array([[0.0], [65505.0]]), first_example=7)


def test_the_shape_that_is_wanted_is_named():
    with pytest.raises(ValueError, match=r"shape \(2, 3\)\. Expected \(examples, 4, 5\)\."):
        check_values("x", (4, 5), np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"Expected \(examples\)\."):
        check_values("x", (), np.zeros((2, 3)))
