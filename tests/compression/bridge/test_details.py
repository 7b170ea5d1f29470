"""Options of layers one by one: each computes, trains and comes back as it does in Keras 3."""

import functools
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, regularizers

from keras_kd.compression.layers import LAYERS

IMAGE, SERIES, VOLUME, VECTOR = (9, 8, 4), (11, 4), (5, 6, 5, 2), (6,)
# Eager recurrent layers take their time for each position.
SHORT_SERIES = (4, 4)


class Case:
    """One layer and the shape of its input."""

    def __init__(self, make, shape=VECTOR, dtype=None, high=8.0):
        self.make, self.shape, self.dtype, self.high = make, shape, dtype, high

    def model(self):
        keras.utils.set_random_seed(0)
        inputs = keras.Input(self.shape, dtype=self.dtype)
        return with_random_weights(keras.Model(inputs, self.make()(inputs)))

    def batch(self, model):
        generator = np.random.default_rng(0)
        dtype = model.inputs[0].dtype
        if dtype.startswith("int"):
            return generator.integers(0, self.high, (3, *self.shape)).astype(dtype)
        return tf.cast(generator.uniform(-self.high, self.high, (3, *self.shape)), dtype)


def with_random_weights(model):
    """Values that tell gamma from beta and mean from variance."""
    generator = np.random.default_rng(1)
    for weight in model.weights:
        if "float" in weight.dtype and weight.path.split("/")[-1] not in ("mean", "variance"):
            weight.assign(generator.uniform(0.2, 1.2, weight.shape))
    return model


def conv(
    layer, *sizes, shape, paddings=("valid", "same"), strides=(1, 2), dilations=(1, 2), **more
):
    """A layer in every sensible combination of padding, strides and dilation."""
    for padding, stride, dilation in itertools.product(paddings, strides, dilations):
        if stride == 1 or dilation == 1:
            options = {"padding": padding, "strides": stride, "dilation_rate": dilation, **more}
            yield (
                f"{layer.__name__} {padding} strides {stride} dilation {dilation}",
                Case(lambda options=options: layer(*sizes, **options), shape),
            )


def table(shape, layers_by_name, **options):
    return {name: Case(make, shape, **options) for name, make in layers_by_name.items()}


CONVOLUTIONS = dict(
    itertools.chain(
        conv(layers.Conv1D, 3, 2, shape=SERIES, paddings=("valid", "same", "causal")),
        conv(layers.Conv2D, 3, (3, 2), shape=IMAGE, strides=(1, 2, 3)),
        conv(layers.Conv3D, 2, 2, shape=VOLUME),
        conv(layers.DepthwiseConv1D, 3, shape=SERIES, depth_multiplier=2),
        conv(layers.DepthwiseConv2D, 3, shape=IMAGE, depth_multiplier=2),
        conv(layers.SeparableConv1D, 3, 3, shape=SERIES, depth_multiplier=2),
        conv(layers.SeparableConv2D, 3, 3, shape=IMAGE, depth_multiplier=2),
        conv(layers.Conv1DTranspose, 3, 3, shape=SERIES, dilations=(1,)),
        conv(layers.Conv2DTranspose, 3, 3, shape=IMAGE, dilations=(1,)),
        conv(layers.Conv3DTranspose, 2, 2, shape=VOLUME, dilations=(1,)),
    )
) | table(
    IMAGE,
    {
        "Conv2D with two strides": lambda: layers.Conv2D(3, 3, strides=(2, 1)),
        "Conv2D groups": lambda: layers.Conv2D(6, 3, groups=2),
        "Conv2D no bias": lambda: layers.Conv2D(3, 3, use_bias=False),
        "Conv2D activation": lambda: layers.Conv2D(3, 3, activation="relu"),
        "DepthwiseConv2D no bias": lambda: layers.DepthwiseConv2D(3, use_bias=False),
        "SeparableConv2D no bias": lambda: layers.SeparableConv2D(3, 2, use_bias=False),
        "Conv2DTranspose output_padding": lambda: layers.Conv2DTranspose(
            3, 3, strides=2, output_padding=1
        ),
        "Conv2DTranspose output_padding same": lambda: layers.Conv2DTranspose(
            3, 3, strides=2, padding="same", output_padding=0
        ),
        "Conv2DTranspose two output_paddings": lambda: layers.Conv2DTranspose(
            3, 3, strides=(2, 3), padding="same", output_padding=(1, 2)
        ),
        "Conv2DTranspose even kernel": lambda: layers.Conv2DTranspose(
            3, 4, strides=2, padding="same", use_bias=False
        ),
    },
)
CONVOLUTIONS |= table(
    SERIES,
    {
        "Conv1D groups": lambda: layers.Conv1D(6, 3, groups=2, padding="same"),
        "Conv1DTranspose output_padding": lambda: layers.Conv1DTranspose(
            3, 3, strides=2, output_padding=1
        ),
    },
)

ACTIVATION_NAMES = [
    name
    for name, function in vars(keras.activations).items()
    if callable(function) and name not in ("deserialize", "get", "serialize")
]


def three_times(name, function):
    """As a function in a layer, by name and as a function."""
    stack = (
        layers.Dense(8, activation=function),
        layers.Activation(name),
        layers.Activation(function),
    )
    return lambda x: functools.reduce(lambda tensor, layer: layer(tensor), stack, x)


ACTIVATIONS = {}
for _name in ACTIVATION_NAMES:
    _function = getattr(keras.activations, _name)
    _shape = (4, 6)
    if _name != "threshold":  # it has arguments without a default
        ACTIVATIONS |= table(
            _shape,
            {f"activation {_name}": lambda name=_name, f=_function: three_times(name, f)},
            high=0.3 if _name == "exponential" else 8.0,
        )
ACTIVATIONS |= table(
    VECTOR,
    {
        "activation swish": lambda: layers.Dense(3, "swish"),
        "activation hard_swish": lambda: layers.Dense(3, "hard_swish"),
        "activation layer": lambda: layers.Dense(3, layers.LeakyReLU(0.3)),
        "activation layer ReLU": lambda: layers.Conv1D(3, 2, activation=layers.ReLU(0.5)),
        "Activation of a layer": lambda: layers.Activation(layers.ELU(0.3)),
        "ops function": lambda: layers.Dense(3, keras.ops.relu6),
    },
)
ACTIVATIONS["activation layer ReLU"].shape = SERIES

ACTIVATION_LAYERS = table(
    IMAGE,
    {
        "ReLU": lambda: layers.ReLU(),
        "ReLU max_value": lambda: layers.ReLU(max_value=6.0),
        "ReLU integer": lambda: layers.ReLU(6),
        "ReLU max_value 0": lambda: layers.ReLU(max_value=0.0),
        "ReLU negative_slope": lambda: layers.ReLU(negative_slope=0.2),
        "ReLU threshold": lambda: layers.ReLU(threshold=1.5),
        "ReLU all": lambda: layers.ReLU(max_value=4.0, negative_slope=0.25, threshold=0.5),
        "LeakyReLU": lambda: layers.LeakyReLU(),
        "LeakyReLU negative_slope": lambda: layers.LeakyReLU(negative_slope=0.05),
        "LeakyReLU 0": lambda: layers.LeakyReLU(0.0),
        "PReLU": lambda: layers.PReLU(),
        "PReLU shared_axes": lambda: layers.PReLU(shared_axes=[1, 2]),
        "PReLU one shared axis": lambda: layers.PReLU(shared_axes=(2,)),
        "PReLU regularized": lambda: layers.PReLU(
            alpha_regularizer="l2", alpha_constraint="non_neg"
        ),
        "ELU": lambda: layers.ELU(),
        "ELU alpha": lambda: layers.ELU(alpha=0.4),
        "Softmax": lambda: layers.Softmax(),
        "Softmax axis": lambda: layers.Softmax(axis=2),
        "Softmax axes": lambda: layers.Softmax(axis=[1, 2]),
        "Softmax axes tuple": lambda: layers.Softmax(axis=(-1, -2)),
    },
)

NORMALIZATIONS = table(
    IMAGE,
    {
        "BatchNormalization": lambda: layers.BatchNormalization(),
        "BatchNormalization epsilon": lambda: layers.BatchNormalization(epsilon=0.1),
        "BatchNormalization momentum": lambda: layers.BatchNormalization(momentum=0.3),
        "BatchNormalization axis 1": lambda: layers.BatchNormalization(axis=1),
        "BatchNormalization axis 2": lambda: layers.BatchNormalization(axis=-2),
        "BatchNormalization no scale": lambda: layers.BatchNormalization(scale=False),
        "BatchNormalization no center": lambda: layers.BatchNormalization(center=False),
        "BatchNormalization bare": lambda: layers.BatchNormalization(center=False, scale=False),
        "BatchNormalization regularized": lambda: layers.BatchNormalization(
            beta_regularizer="l1", gamma_regularizer=regularizers.L2(0.2)
        ),
        "BatchNormalization synchronized": lambda: layers.BatchNormalization(synchronized=True),
        "BatchNormalization frozen": lambda: layers.BatchNormalization(trainable=False),
        "LayerNormalization": lambda: layers.LayerNormalization(),
        "LayerNormalization epsilon": lambda: layers.LayerNormalization(epsilon=0.1),
        "LayerNormalization axes": lambda: layers.LayerNormalization(axis=[1, 3]),
        "LayerNormalization axes in another order": lambda: layers.LayerNormalization(axis=[1, -1]),
        "LayerNormalization axis 1": lambda: layers.LayerNormalization(axis=1),
        "LayerNormalization bare": lambda: layers.LayerNormalization(center=False, scale=False),
        "LayerNormalization no center": lambda: layers.LayerNormalization(center=False),
        "GroupNormalization": lambda: layers.GroupNormalization(2),
        "GroupNormalization epsilon": lambda: layers.GroupNormalization(4, epsilon=0.2),
        "GroupNormalization instance": lambda: layers.GroupNormalization(-1),
        "GroupNormalization axis": lambda: layers.GroupNormalization(2, axis=2, scale=False),
        "UnitNormalization": lambda: layers.UnitNormalization(),
        "UnitNormalization axes": lambda: layers.UnitNormalization(axis=[1, 2]),
        "RMSNormalization": lambda: layers.RMSNormalization(),
        "SpectralNormalization": lambda: layers.SpectralNormalization(layers.Conv2D(3, 2)),
    },
) | table(
    SERIES,
    {
        "BatchNormalization of series": lambda: layers.BatchNormalization(),
        "LayerNormalization of series": lambda: layers.LayerNormalization(),
        "GroupNormalization of series": lambda: layers.GroupNormalization(2),
        "Masking": lambda: layers.Masking(mask_value=0.5),
        "RMSNormalization of series": lambda: layers.RMSNormalization(epsilon=0.1),
    },
)


def adapted(**options):
    layer = layers.Normalization(**options)
    layer.adapt(np.random.default_rng(0).normal(3, 2, (50, 4)).astype("float32"))
    return layer


PREPROCESSING = (
    table(
        (4,),
        {
            "Normalization adapted": lambda: adapted(),
            "Normalization inverted": lambda: adapted(invert=True),
            "Normalization of all": lambda: adapted(axis=None),
            "Normalization given": lambda: layers.Normalization(mean=2.0, variance=3.0),
            "Normalization lists": lambda: layers.Normalization(
                mean=[1.0, 2.0, 3.0, 4.0], variance=[4.0, 3.0, 2.0, 1.0]
            ),
            "Normalization given inverted": lambda: layers.Normalization(
                mean=2.0, variance=3.0, invert=True
            ),
            "Discretization": lambda: layers.Discretization([-1.0, 0.5, 2.0]),
            "Lambda": lambda: layers.Lambda(lambda x: keras.ops.sin(x) * 2.0),
            "Rescaling": lambda: layers.Rescaling(1 / 127.5, offset=-1),
            "Rescaling lists": lambda: layers.Rescaling(
                [0.1, 0.2, 0.3, 0.4], offset=[1.0, 2.0, 3.0, 4.0]
            ),
            "Rescaling arrays": lambda: layers.Rescaling(np.float32(0.1), offset=np.arange(4.0)),
        },
    )
    | table(
        IMAGE,
        {
            "Resizing": lambda: layers.Resizing(5, 7),
            "Resizing nearest": lambda: layers.Resizing(12, 4, interpolation="nearest"),
            "Resizing crop": lambda: layers.Resizing(6, 3, crop_to_aspect_ratio=True),
            "CenterCrop": lambda: layers.CenterCrop(5, 4),
        },
    )
    | table(
        (3,),
        {
            "CategoryEncoding multi_hot": lambda: layers.CategoryEncoding(8),
            "CategoryEncoding count": lambda: layers.CategoryEncoding(8, output_mode="count"),
        },
        dtype="int32",
    )
)

SHAPES = (
    table(
        IMAGE,
        {
            "Flatten": lambda: layers.Flatten(),
            "Flatten channels_first": lambda: layers.Flatten(data_format="channels_first"),
            "Reshape -1": lambda: layers.Reshape((-1, 8)),
            "Reshape only -1": lambda: layers.Reshape((-1,)),
            "Permute": lambda: layers.Permute((3, 1, 2)),
            "Cropping2D": lambda: layers.Cropping2D(((1, 2), (0, 3))),
            "Cropping2D one": lambda: layers.Cropping2D(2),
            "Cropping2D channels_first": lambda: layers.Cropping2D(1, data_format="channels_first"),
            "ZeroPadding2D": lambda: layers.ZeroPadding2D(((0, 1), (2, 3))),
            "ZeroPadding2D two": lambda: layers.ZeroPadding2D((1, 2)),
            "ZeroPadding2D channels_first": lambda: layers.ZeroPadding2D(
                1, data_format="channels_first"
            ),
            "UpSampling2D": lambda: layers.UpSampling2D((2, 3)),
            **{
                f"UpSampling2D {way}": lambda way=way: layers.UpSampling2D(3, interpolation=way)
                for way in ("bilinear", "bicubic", "lanczos3", "lanczos5", "nearest")
            },
            "Identity": lambda: layers.Identity(),
        },
    )
    | table(
        SERIES,
        {
            "Cropping1D": lambda: layers.Cropping1D((1, 3)),
            "ZeroPadding1D": lambda: layers.ZeroPadding1D((0, 3)),
            "UpSampling1D": lambda: layers.UpSampling1D(3),
        },
    )
    | table(
        VOLUME,
        {
            "Cropping3D": lambda: layers.Cropping3D(((1, 0), (2, 1), (0, 1))),
            "ZeroPadding3D": lambda: layers.ZeroPadding3D(((1, 0), (2, 1), (0, 1))),
            "UpSampling3D": lambda: layers.UpSampling3D((1, 2, 3)),
        },
    )
    | table(VECTOR, {"RepeatVector": lambda: layers.RepeatVector(3)})
)

POOLING = {}
for _kind, _axes, _shape in (("1D", 1, SERIES), ("2D", 2, IMAGE), ("3D", 3, VOLUME)):
    for _class in ("MaxPooling", "AveragePooling"):
        _layer = getattr(layers, _class + _kind)
        POOLING |= table(
            _shape,
            {
                f"{_class}{_kind}": lambda layer=_layer: layer(2),
                f"{_class}{_kind} same": lambda layer=_layer: layer(3, padding="same"),
                f"{_class}{_kind} strides": lambda layer=_layer: layer(3, strides=1),
                f"{_class}{_kind} same strides": lambda layer=_layer: layer(
                    2, strides=3, padding="same"
                ),
            },
        )
    for _class in ("GlobalMaxPooling", "GlobalAveragePooling"):
        _layer = getattr(layers, _class + _kind)
        POOLING |= table(
            _shape,
            {
                f"{_class}{_kind}": lambda layer=_layer: layer(),
                f"{_class}{_kind} keepdims": lambda layer=_layer: layer(keepdims=True),
                f"{_class}{_kind} channels_first": lambda layer=_layer: layer(
                    data_format="channels_first"
                ),
            },
        )

REGULARIZED = (
    table(
        VECTOR,
        {
            "regularizer l1": lambda: layers.Dense(3, kernel_regularizer="l1"),
            "regularizer l2": lambda: layers.Dense(3, kernel_regularizer="l2"),
            "regularizer L1L2": lambda: layers.Dense(
                3,
                kernel_regularizer=regularizers.L1L2(0.1, 0.2),
                bias_regularizer=regularizers.L1(0.3),
            ),
            "regularizer orthogonal": lambda: layers.Dense(
                3, kernel_regularizer=regularizers.OrthogonalRegularizer(0.1, mode="columns")
            ),
            "activity regularizer": lambda: layers.Dense(3, activity_regularizer="l2"),
            "activity regularizer relu": lambda: layers.Dense(
                3, "relu", activity_regularizer=regularizers.L1(0.3)
            ),
            "ActivityRegularization": lambda: layers.ActivityRegularization(l1=0.1, l2=0.02),
        },
    )
    | table(
        IMAGE,
        {
            "regularizer of Conv2D": lambda: layers.Conv2D(
                3, 3, kernel_regularizer="l2", bias_regularizer="l1", activity_regularizer="l2"
            ),
            "regularizer of DepthwiseConv2D": lambda: layers.DepthwiseConv2D(
                3, depthwise_regularizer=regularizers.L2(0.3)
            ),
            "regularizer of SeparableConv2D": lambda: layers.SeparableConv2D(
                3, 2, depthwise_regularizer="l1", pointwise_regularizer="l2", bias_regularizer="l1"
            ),
            "regularizer of Conv2DTranspose": lambda: layers.Conv2DTranspose(
                3, 3, kernel_regularizer="l2"
            ),
        },
    )
    | table(
        (5,),
        {"regularizer of Embedding": lambda: layers.Embedding(8, 3, embeddings_regularizer="l2")},
        dtype="int32",
    )
)

WITHOUT_EFFECT_IN_A_STEP = table(
    VECTOR,
    {
        "frozen": lambda: layers.Dense(3, trainable=False),
        "no bias": lambda: layers.Dense(3, use_bias=False),
        "initializers": lambda: layers.Dense(
            3, kernel_initializer="he_normal", bias_initializer=keras.initializers.Constant(2)
        ),
    },
)

EMBEDDINGS = table(
    (5,),
    {
        "Embedding": lambda: layers.Embedding(8, 3),
        "Embedding mask_zero": lambda: layers.Embedding(8, 3, mask_zero=True),
        "Embedding frozen": lambda: layers.Embedding(8, 3, trainable=False),
    },
    dtype="int32",
)


def lstm(**options):
    return lambda: layers.LSTM(3, **options)


def gru(**options):
    return lambda: layers.GRU(3, **options)


RECURRENT = (
    table(
        SHORT_SERIES,
        {
            "LSTM": lstm(),
            "LSTM activations": lstm(activation="relu", recurrent_activation="hard_sigmoid"),
            "LSTM no bias": lstm(use_bias=False, return_sequences=True),
            "LSTM unit_forget_bias": lstm(unit_forget_bias=False),
            "LSTM backwards": lstm(go_backwards=True, return_sequences=True),
            "LSTM unrolled": lstm(unroll=True),
            "LSTM regularized": lstm(recurrent_regularizer="l2", kernel_regularizer="l1"),
            "LSTM zero_output_for_mask": lstm(return_sequences=True, zero_output_for_mask=True),
            "GRU": gru(),
            "GRU reset_after": gru(reset_after=False),
            "GRU backwards": gru(go_backwards=True, return_sequences=True, use_bias=False),
            "SimpleRNN": lambda: layers.SimpleRNN(3, activation="silu", return_sequences=True),
            **{
                f"{cell.__name__} in RNN": lambda cell=cell: layers.RNN(cell(3))
                for cell in (layers.LSTMCell, layers.GRUCell, layers.SimpleRNNCell)
            },
            "StackedRNNCells": lambda: layers.RNN(
                layers.StackedRNNCells([layers.LSTMCell(3), layers.GRUCell(2)])
            ),
            **{
                f"Bidirectional {mode}": lambda mode=mode: layers.Bidirectional(
                    layers.LSTM(3), merge_mode=mode
                )
                for mode in ("concat", "sum", "mul", "ave", None)
            },
            "Bidirectional of two": lambda: layers.Bidirectional(
                layers.GRU(3, return_sequences=True),
                backward_layer=layers.LSTM(3, return_sequences=True, go_backwards=True),
            ),
            "TimeDistributed": lambda: layers.TimeDistributed(layers.Dense(3, activation="gelu")),
            "EinsumDense": lambda: layers.EinsumDense(
                "abc,cd->abd", output_shape=(None, 5), bias_axes="d", activation="relu"
            ),
            "Attention": lambda: lambda x: layers.Attention()([x, x]),
            "Attention scaled": lambda: lambda x: layers.Attention(use_scale=True)([x, x, x]),
            "Attention concat": lambda: lambda x: layers.Attention(score_mode="concat")([x, x]),
            "AdditiveAttention": lambda: lambda x: layers.AdditiveAttention()([x, x]),
            "MultiHeadAttention": lambda: lambda x: layers.MultiHeadAttention(2, 3)(x, x),
            "MultiHeadAttention value_dim": lambda: (
                lambda x: layers.MultiHeadAttention(
                    2, 3, value_dim=5, use_bias=False, output_shape=6
                )(x, x, key=x)
            ),
            "MultiHeadAttention causal": lambda: (
                lambda x: layers.MultiHeadAttention(1, 2)(x, x, use_causal_mask=True)
            ),
            "GroupQueryAttention": lambda: lambda x: layers.GroupQueryAttention(2, 4, 2)(x, x),
        },
    )
    | table(
        (3, 6, 5, 2),
        {
            "ConvLSTM2D": lambda: layers.ConvLSTM2D(2, 2, padding="same"),
            "TimeDistributed Conv2D": lambda: layers.TimeDistributed(layers.Conv2D(2, 2)),
        },
    )
    | table((3, 6, 2), {"ConvLSTM1D": lambda: layers.ConvLSTM1D(2, 2, return_sequences=True)})
)
RECURRENT |= table((3, 4, 4, 3, 2), {"ConvLSTM3D": lambda: layers.ConvLSTM3D(2, 2)}, high=2.0)

CASES = {
    **CONVOLUTIONS,
    **ACTIVATIONS,
    **ACTIVATION_LAYERS,
    **NORMALIZATIONS,
    **PREPROCESSING,
    **SHAPES,
    **POOLING,
    **REGULARIZED,
    **WITHOUT_EFFECT_IN_A_STEP,
    **EMBEDDINGS,
    **RECURRENT,
}


# With one case for each kind of layer and each regularizer in the fast suite, and all activations
# in one model.
VARIED = CASES.keys() - REGULARIZED.keys() - EMBEDDINGS.keys()
# Eager loops, each with a relative that is fast: the stacked cells, ConvLSTM2D.
LONG = {f"{cell} in RNN" for cell in ("LSTMCell", "GRUCell", "SimpleRNNCell")}
LONG |= {"ConvLSTM1D", "ConvLSTM3D"}


def one_of_each_kind_fast(cases, varied):
    """The cases as parameters: of those that vary one layer, all but the first are slow."""
    first = {name.split()[0]: name for name in reversed(cases)}
    slow = set(varied) - set(first.values()) | LONG
    return [
        pytest.param(
            case,
            id=name,
            marks=pytest.mark.slow if name in slow else (),
        )
        for name, case in cases.items()
    ]


@pytest.mark.parametrize("case", one_of_each_kind_fast(CASES, VARIED))
def test_same_step_and_same_weights_back(case, assert_same_step):
    model = case.model()
    assert_same_step(model, case.batch(model), gradient_tolerance=1e-4)


def test_every_activation_in_one_model(assert_same_step):
    keras.utils.set_random_seed(0)
    # The exponential of an exponential of 8 is infinite.
    cases = [case for case in ACTIVATIONS.values() if case.shape == (4, 6) and case.high == 8.0]
    assert len(cases) > 25
    inputs = keras.Input((4, 6))
    model = with_random_weights(keras.Model(inputs, [case.make()(inputs) for case in cases]))
    assert_same_step(model, cases[0].batch(model), gradient_tolerance=1e-4)


def _merged(make, *shapes, dtype=None):
    """A model with one input for each shape, all of them into one layer."""
    keras.utils.set_random_seed(0)
    inputs = [keras.Input(shape) for shape in shapes]
    return keras.Model(inputs, make()(inputs))


MERGES = {
    **{
        name: (lambda name=name: getattr(layers, name)(), (3, 4), (3, 4))
        for name in ("Add", "Average", "Maximum", "Minimum", "Multiply", "Subtract", "Concatenate")
    },
    **{
        f"{name} of three": (lambda name=name: getattr(layers, name)(), (3, 4), (3, 4), (3, 4))
        for name in ("Add", "Average", "Maximum", "Minimum", "Multiply", "Concatenate")
    },
    **{
        f"{name} broadcast": (lambda name=name: getattr(layers, name)(), (3, 4), (1, 4))
        for name in ("Add", "Average", "Maximum", "Minimum", "Multiply", "Subtract")
    },
    "Add of two ranks": (lambda: layers.Add(), (3, 4), (4,)),
    "Concatenate axis 1": (lambda: layers.Concatenate(axis=1), (3, 4), (2, 4)),
    "Concatenate axis -2": (lambda: layers.Concatenate(axis=-2), (3, 4), (2, 4)),
    "Dot axis": (lambda: layers.Dot(1), (3, 4), (3, 5)),
    "Dot axes": (lambda: layers.Dot((2, 1)), (3, 4), (4, 5)),
    "Dot negative axes": (lambda: layers.Dot((-1, -1)), (3, 4), (2, 4)),
    "Dot normalized": (lambda: layers.Dot(-1, normalize=True), (5,), (5,)),
}


@pytest.mark.parametrize("merge", one_of_each_kind_fast(MERGES, MERGES.keys()))
def test_merges(merge, assert_same_step):
    make, *shapes = merge
    generator = np.random.default_rng(0)
    batch = [generator.normal(size=(3, *shape)).astype("float32") for shape in shapes]
    assert_same_step(_merged(make, *shapes), batch)


def test_every_row_has_a_case():
    tried = {type(case.make()).__name__ for case in CASES.values()}
    tried |= {name.split()[0] for name in (*CASES, *MERGES)}
    known = {name for name, row in LAYERS.items() if row.twin is not None}
    random = {name for name in known if "Dropout" in name or "Noise" in name}
    assert sorted(known - tried - random) == []
