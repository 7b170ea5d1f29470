"""Every kind of layer with weights and every compression: it acts on the layer or refuses it."""

import inspect

import keras
import pytest
from keras import layers

from keras_kd import compression
from keras_kd.compression.families import FAMILIES
from keras_kd.compression.kernels import CLUSTERABLE, PRUNABLE, kernels
from keras_kd.compression.layers import LAYERS

from _models import Block

IMAGE, SEQUENCE, VIDEO, VOLUME = (8, 8, 4), (6, 4), (3, 6, 6, 2), (5, 5, 5, 2)


def attention(layer):
    return lambda x: layer(x, x)


def listed(layer):
    return lambda x: layer([x, x])


P, C, Q, F, R = "prune", "cluster", "quantize_aware", "factorize", "remove_filters"
EVERY = {P, C, Q, F, R}
# A layer, the shape of its input, and what acts on it. Everything else refuses it.
CASES = {
    "Dense": (layers.Dense(6), IMAGE, EVERY),
    "EinsumDense": (layers.EinsumDense("abc,cd->abd", output_shape=(6, 6)), SEQUENCE, {P, C}),
    "Conv1D": (layers.Conv1D(6, 3), SEQUENCE, EVERY),
    "Conv2D": (layers.Conv2D(6, 3), IMAGE, EVERY),
    "Conv3D": (layers.Conv3D(6, 3), VOLUME, EVERY),
    "Conv1DTranspose": (layers.Conv1DTranspose(6, 3), SEQUENCE, {P, C, Q, R}),
    "Conv2DTranspose": (layers.Conv2DTranspose(6, 3), IMAGE, {P, C, Q, R}),
    "Conv3DTranspose": (layers.Conv3DTranspose(6, 3), VOLUME, {P, C, Q, R}),
    "SeparableConv1D": (layers.SeparableConv1D(6, 3), SEQUENCE, {P, C, Q, R}),
    "SeparableConv2D": (layers.SeparableConv2D(6, 3), IMAGE, {P, C, Q, R}),
    "DepthwiseConv1D": (layers.DepthwiseConv1D(3), SEQUENCE, {P, C, Q}),
    "DepthwiseConv2D": (layers.DepthwiseConv2D(3), IMAGE, {P, C, Q}),
    "Embedding": (layers.Embedding(9, 6), (5,), {P, C, F}),
    "ReversibleEmbedding": (layers.ReversibleEmbedding(9, 6, tie_weights=False), (5,), {P, C}),
    "Attention": (listed(layers.Attention(use_scale=True)), SEQUENCE, set()),
    "AdditiveAttention": (listed(layers.AdditiveAttention()), SEQUENCE, set()),
    "MultiHeadAttention": (attention(layers.MultiHeadAttention(2, 4)), SEQUENCE, {P, C}),
    "GroupQueryAttention": (attention(layers.GroupQueryAttention(4, 4, 2)), SEQUENCE, {P, C}),
    "LSTM": (layers.LSTM(4), SEQUENCE, {P, C}),
    "GRU": (layers.GRU(4), SEQUENCE, {P, C}),
    "SimpleRNN": (layers.SimpleRNN(4), SEQUENCE, {P, C}),
    "RNN": (layers.RNN([layers.LSTMCell(4), layers.GRUCell(3)]), SEQUENCE, {P, C}),
    "Bidirectional": (layers.Bidirectional(layers.SimpleRNN(4)), SEQUENCE, {P, C}),
    "ConvLSTM1D": (layers.ConvLSTM1D(3, 3), (3, 6, 2), {P, C}),
    "ConvLSTM2D": (layers.ConvLSTM2D(3, 3), VIDEO, {P, C}),
    "ConvLSTM3D": (layers.ConvLSTM3D(3, 3), (2, 4, 4, 4, 2), {P, C}),
    "TimeDistributed": (layers.TimeDistributed(layers.Dense(5)), SEQUENCE, {P, C}),
    "SpectralNormalization": (layers.SpectralNormalization(layers.Dense(5)), SEQUENCE, {P, C}),
    "Pipeline": (layers.Pipeline([layers.Dense(5)]), SEQUENCE, {P, C}),
    "Block": (Block(), SEQUENCE, {P, C}),
    "BatchNormalization": (layers.BatchNormalization(), IMAGE, {Q}),
    "LayerNormalization": (layers.LayerNormalization(), IMAGE, {Q}),
    "GroupNormalization": (layers.GroupNormalization(2), IMAGE, {Q}),
    "RMSNormalization": (layers.RMSNormalization(), IMAGE, set()),
    "Normalization": (layers.Normalization(mean=[0.5] * 4, variance=[2.0] * 4), IMAGE, {Q}),
    "PReLU": (layers.PReLU(), IMAGE, {Q}),
    "STFTSpectrogram": (
        layers.STFTSpectrogram(frame_length=8, frame_step=4, fft_length=8),
        (64, 1),
        set(),
    ),
}

# These are inside other layers, and no layers of a student themselves.
PARTS = {layers.GRUCell, layers.LSTMCell, layers.SimpleRNNCell, layers.Wrapper}


CALLS = {
    P: lambda student, name: compression.prune(student, 0.5, layers=name),
    C: lambda student, name: compression.cluster(student, 4, layers=name),
    Q: lambda student, name: compression.quantize_aware(student, layers=name),
    F: lambda student, name: compression.factorize(student, rank=1, layers=name),
    R: lambda student, name: compression.remove_filters(student, 0.5, layers=name),
}


def test_every_family_is_called():
    assert len(CALLS) == len(FAMILIES)


def of_result(call, student, result):
    """The layers that a compression says it has acted on."""
    if call == P:
        return {layer.layer.name for layer in result.layers if hasattr(layer, "pruning_vars")}
    if call == C:
        return {layer.layer.name for layer in result.layers if hasattr(layer, "clustered")}
    if call == Q:
        rows = {row.name: row.quantization for row in compression.summary(result).layers}
        return {name for name, row in rows.items() if row.weight_bits or row.output_bits}
    measured = compression.summary(result, student)
    if call == F:
        return {layer.name for layer in measured.layers if layer.factorization}
    before = {layer.name: layer.channels for layer in measured.original.layers}
    narrower = [each for each in measured.layers if each.channels]
    return {each.name for each in narrower if each.channels < before[each.name]}


# Students with loops or with layers inside of layers take seconds to convert, and what is pruned is
# clustered (see below): but for two of them the rest is slow.
NESTED = {name for name, (*_, acting) in CASES.items() if acting == {P, C}}
NESTED -= {"EinsumDense", "SimpleRNN"}


def quick_calls(place, name):
    """What refuses a layer, and of what acts on it one after the other."""
    acting = CASES[name][2]
    if name in NESTED:
        return CALLS.keys() - {C, Q}
    return (CALLS.keys() - acting) | set(sorted(acting)[place % max(len(acting), 1) :][:1])


QUICK = {name: quick_calls(place, name) for place, name in enumerate(CASES)}
TRIED = [
    *QUICK.items(),
    *(
        pytest.param(name, CALLS.keys() - calls, marks=pytest.mark.slow)
        for name, calls in QUICK.items()
        if CALLS.keys() - calls
    ),
]


@pytest.mark.parametrize(("name", "calls"), TRIED)
def test_every_compression_acts_on_a_layer_or_refuses_it(name, calls):
    make, shape, acting = CASES[name]
    inputs = keras.Input(shape, dtype="int32" if "Embedding" in name else None)
    x = layers.Flatten()(make(inputs))
    student = keras.Model(inputs, layers.Dense(2, name="logits")(x))
    layer = student.layers[-3].name
    for call in sorted(calls):
        compress = CALLS[call]
        if call in acting:
            assert layer in of_result(call, student, compress(student, layer)), call
        else:
            with pytest.raises(ValueError, match=rf"'{layer}'.*To fix it"):
                compress(student, layer)


def test_every_layer_of_keras_with_weights_is_tried_and_has_a_row():
    tried = {
        type(make.__closure__[0].cell_contents if inspect.isfunction(make) else make)
        for make, *_ in CASES.values()
    }
    public = {item for item in vars(layers).values() if inspect.isclass(item)}
    found = {kind for kind in public if issubclass(kind, layers.Layer) and has_weights(kind)}
    assert len(found) > 30
    assert found - tried - PARTS == set()
    assert {kind.__name__ for kind in found - {layers.Wrapper}} <= set(LAYERS)


def has_weights(kind):
    """Whether the code of a class makes weights, or layers that do."""
    own = [base for base in kind.__mro__ if base.__module__.startswith("keras.src.layers")]
    code = "".join(inspect.getsource(base) for base in own if base is not layers.Layer)
    return ".add_weight(" in code or "EinsumDense(" in code or issubclass(kind, layers.Wrapper)


def test_pruning_and_clustering_have_the_same_kernels():
    for make, shape, acting in CASES.values():
        assert (P in acting) == (C in acting)
        if P in acting:
            inputs = keras.Input(shape)
            make(inputs)
            layer = make.__closure__[0].cell_contents if inspect.isfunction(make) else make
            found = [[k.name for k in kernels(layer, of)] for of in (PRUNABLE, CLUSTERABLE)]
            assert found[0] == found[1] != []
