import keras
import numpy as np
import pytest
from keras import layers

from keras_kd.compression import factorize, summary
from keras_kd.compression.bridge.translation import make_layer, set_weights
from keras_kd.compression.factorization.candidate import Candidate
from keras_kd.compression.factorization.forms import forms_of, obstacle


def randomized(layer, shape):
    """The layer with weights of which none is zero."""
    layer.build((None, *shape))
    random = np.random.default_rng(0)
    layer.set_weights([random.normal(size=weight.shape) for weight in layer.weights])
    return layer


def in_form(layer, form, rank):
    """The option of a rank, and a function that computes what the two layers do."""
    (candidate_form,) = forms_of(layer, form)
    candidate = Candidate(layer.name, layer, [candidate_form])
    (option,) = candidate.of_rank(rank)

    def compute(x):
        for record in candidate.records(option, layer.name + "_factor"):
            part = make_layer(record)
            part.build(x.shape)
            set_weights(part, record)
            x = part(x)
        return x

    return option, compute


def values(shape, examples=2):
    return np.random.default_rng(1).normal(size=(examples, *shape)).astype("float32")


LAYERS = {
    "dense": (lambda: layers.Dense(4, activation="tanh"), (5,), "dense"),
    "dense on a sequence": (lambda: layers.Dense(4, use_bias=False), (3, 5), "dense"),
    "causal": (lambda: layers.Conv1D(4, 3, padding="causal", dilation_rate=2), (9, 3), "channel"),
    "sequence": (lambda: layers.Conv1D(4, 3, strides=2, activation="elu"), (9, 3), "channel"),
    "volume": (lambda: layers.Conv3D(4, (2, 1, 3), padding="same"), (4, 5, 6, 2), "channel"),
} | {
    f"{form}, {case}": (lambda options=options: layers.Conv2D(4, **options), (7, 8, 3), form)
    for form in ("channel", "spatial")
    for case, options in {
        "valid": {"kernel_size": (3, 2), "activation": "softmax"},
        "same": {"kernel_size": (2, 3), "padding": "same"},
        "strides": {"kernel_size": (3, 2), "strides": (2, 2), "padding": "same"},
        "uneven strides": {"kernel_size": 3, "strides": (2, 1), "use_bias": False},
        "dilation": {"kernel_size": (3, 2), "dilation_rate": (2, 3), "padding": "same"},
        "one position": {"kernel_size": 1, "strides": 2},
    }.items()
}


@pytest.mark.parametrize("case", LAYERS)
def test_with_all_singular_values_the_two_layers_compute_the_same(case):
    make, shape, form = LAYERS[case]
    layer = randomized(make(), shape)
    option, compute = in_form(layer, form, rank=10_000)
    assert option.rank == option.decomposition.full_rank
    x = values(shape)
    expected = np.asarray(layer(x))
    np.testing.assert_allclose(compute(x), expected, atol=1e-5 * max(1, np.abs(expected).max()))


def test_channels_first_is_kept():
    # There is no such convolution on a CPU to compare with.
    layer = randomized(layers.Conv2D(4, (3, 2), data_format="channels_first"), (3, 7, 8))
    for form in ("channel", "spatial"):
        option, _ = in_form(layer, form, rank=2)
        records = Candidate("conv", layer, [option.form]).records(option, "conv_factor")
        shape = (None, 3, 7, 8)
        for record in records:
            shape = make_layer(record).compute_output_shape(shape)
        assert shape == layer.compute_output_shape((None, 3, 7, 8))


@pytest.mark.parametrize("case", ["dense", "sequence", "channel, same", "spatial, same"])
def test_truncated_kernels_have_the_parameters_and_the_error_of_the_option(case):
    make, shape, form = LAYERS[case]
    layer = randomized(make(), shape)
    option, _ = in_form(layer, form, rank=2)
    candidate = Candidate("layer", layer, [option.form])
    first, second = (record.weights["kernel"] for record in candidate.records(option, "factor"))
    assert first.size + second.size == option.parameters
    if form == "dense":
        product = first @ second
    elif form == "channel":
        product = first @ second.reshape(2, -1)
    else:
        product = np.einsum("hxcr,ywrf->hwcf", first, second)
    kernel = np.asarray(layer.kernel)
    error = np.linalg.norm(kernel - product) / np.linalg.norm(kernel)
    described = candidate.describe(option)
    assert described.relative_error == pytest.approx(error, rel=1e-5)
    outputs = np.linalg.norm((kernel - product).reshape(-1, kernel.shape[-1]), 2)
    assert described.output_error == pytest.approx(outputs, rel=1e-5)
    if form != "spatial":
        assert described.output_error == described.spectral_error
    else:
        # Columns of a patch add up: at most the root of their number.
        assert outputs <= described.spectral_error * kernel.shape[1] ** 0.5


@pytest.mark.parametrize("form", ["channel", "spatial"])
def test_no_patch_changes_its_output_by_more_than_the_output_error_and_one_does(form):
    layer = randomized(layers.Conv2D(4, (3, 2), use_bias=False), (3, 2, 3))
    option, compute = in_form(layer, form, rank=2)
    bound = Candidate("layer", layer, [option.form]).describe(option).output_error

    def changes(patches):
        patches = patches.reshape(-1, 3, 2, 3).astype("float32")
        change = np.asarray(layer(patches)) - np.asarray(compute(patches))
        norms = np.linalg.norm(patches.reshape(len(patches), -1), axis=1)
        return np.linalg.norm(change.reshape(len(patches), -1), axis=1) / norms

    assert changes(values((3, 2, 3), examples=200)).max() < bound
    # The change is linear in the patch: its matrix, read off one value at a time.
    unit = np.eye(18, dtype="float32").reshape(-1, 3, 2, 3)
    matrix = np.asarray(layer(unit) - compute(unit)).reshape(18, 4)
    worst = np.linalg.svd(matrix)[0][:, 0]
    assert changes(worst)[0] == pytest.approx(bound, rel=1e-4)


def test_the_second_layer_keeps_everything_but_the_kernel():
    layer = layers.Conv2D(
        *(4, 3),
        activation="relu",
        kernel_regularizer=keras.regularizers.L2(0.1),
        bias_regularizer="l1",
        bias_constraint="non_neg",
        activity_regularizer="l2",
        dtype=keras.DTypePolicy("mixed_float16"),
        trainable=False,
        name="conv",
    )
    randomized(layer, (7, 8, 3))
    option, _ = in_form(layer, "channel", rank=2)
    records = Candidate("conv", layer, [option.form]).records(option, "conv_factor")
    first, second = map(make_layer, records)
    assert (first.name, second.name) == ("conv_factor", "conv")
    assert (first.activation, second.activation) == (
        keras.activations.linear,
        keras.activations.relu,
    )
    assert (first.use_bias, second.use_bias) == (False, True)
    np.testing.assert_array_equal(records[1].weights["bias"], layer.bias)
    for part in (first, second):
        assert part.kernel_regularizer.l2 == pytest.approx(0.1)
        assert part.dtype_policy.name == "mixed_float16"
        assert not part.trainable
    for option in ("bias_regularizer", "bias_constraint", "activity_regularizer"):
        assert getattr(first, option) is None
        assert type(getattr(second, option)) is type(getattr(layer, option))


def test_the_factors_have_the_dtype_of_the_kernel():
    layer = randomized(layers.Dense(4, dtype="bfloat16"), (5,))
    option, compute = in_form(layer, "dense", rank=4)
    records = Candidate("layer", layer, [option.form]).records(option, "factor")
    assert {str(record.weights["kernel"].dtype) for record in records} == {"bfloat16"}
    assert np.abs(np.asarray(compute(values((5,))), "float32")).max() > 0


class OwnDense(layers.Dense):
    pass


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (layers.Dense(3), None),
        (layers.Conv2D(4, 3), None),
        (layers.Conv2D(4, 3, groups=2), "of a convolution in 2 groups"),
        (layers.Dense(3, kernel_constraint="non_neg"), "its kernel has a constraint"),
        (layers.DepthwiseConv2D(3), "no low-rank form of DepthwiseConv2D"),
        (OwnDense(3), "no low-rank form of OwnDense"),
    ],
)
def test_layers_without_a_low_rank_form(layer, reason):
    if reason is None:
        assert obstacle(layer) is None
    else:
        assert reason in obstacle(layer)


def test_a_kernel_that_is_more_than_one_weight():
    lora = randomized(layers.Dense(3), (4,))
    lora.enable_lora(2)
    quantized = randomized(layers.Dense(3), (4,))
    quantized.quantize("int8")
    for layer in (lora, quantized):
        assert "quantized or has a LoRA" in obstacle(layer)


def test_forms_are_chosen_where_there_are_several():
    names = {
        form: [candidate.name for candidate in forms_of(layers.Conv2D(4, 3), form)]
        for form in ("auto", "channel", "spatial")
    }
    assert names == {"auto": ["channel", "spatial"], "channel": ["channel"], "spatial": ["spatial"]}
    assert [candidate.name for candidate in forms_of(layers.Dense(4), "spatial")] == ["dense"]
    assert [candidate.name for candidate in forms_of(layers.Conv1D(4, 3), "spatial")] == ["channel"]


def test_a_kernel_that_diverged_is_refused():
    layer = randomized(layers.Dense(3), (4,))
    layer.kernel.assign(np.full((4, 3), np.nan))
    with pytest.raises(ValueError, match="layer 'bad', whose kernel is infinite or NaN"):
        Candidate("bad", layer, forms_of(layer, "auto"))


def test_an_embedding_becomes_a_narrower_one_and_a_dense_layer_which_hands_the_mask_on():
    keras.utils.set_random_seed(0)
    words = keras.Input((6,), dtype="int32")
    x = layers.Embedding(50, 12, mask_zero=True, name="words")(words)
    student = keras.Model(words, layers.GlobalAveragePooling1D()(x))
    given = np.random.default_rng(0).integers(0, 50, (20, 6)) * (np.arange(6) < 4)
    table = student.get_layer("words").get_weights()[0]

    smaller = factorize(student, rank=5)

    left, values, right = np.linalg.svd(table, full_matrices=False)
    closest = (left[:, :5] * values[:5]) @ right[:5]
    counted = (given > 0)[..., None]
    expected = (closest[given] * counted).sum(1) / counted.sum(1)
    np.testing.assert_allclose(smaller.predict(given, verbose=0), expected, atol=1e-6)
    assert [type(layer).__name__ for layer in smaller.layers[1:3]] == ["Embedding", "Dense"]
    found = summary(smaller)["words"].factorization
    assert found.parameters_after == smaller.count_params() == 5 * (50 + 12)
    largest = np.linalg.norm(table - closest, axis=1).max()
    assert found.output_error == pytest.approx(largest, rel=1e-5)


def test_an_embedding_with_a_constraint_stays():
    layer = layers.Embedding(9, 8, embeddings_constraint="unit_norm")
    assert "constraint" in obstacle(layer)
