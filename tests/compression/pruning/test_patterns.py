import numpy as np
import pytest
import tensorflow as tf
from tensorflow_model_optimization.python.core.sparsity.keras import pruning_impl, pruning_utils

from keras_kd.compression.kernels import Axes
from keras_kd.compression.pruning import patterns
from keras_kd.compression.pruning.patterns import Blocks, MByN, Single

DENSE = Axes((), (0,), (1,))
CONVOLUTION = Axes((0, 1), (2,), (3,))


def weights(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def mask(pattern, kernel, sparsity, axes=DENSE):
    matrices = axes.as_matrices(tf.abs(kernel))
    return np.asarray(axes.as_kernel(pattern.mask(matrices, sparsity), kernel.shape))


def mask_of_tf_mot(kernel, sparsity, **options):
    class Share:
        def __call__(self, step):
            return True, tf.constant(sparsity)

    options = {"block_size": (1, 1), "block_pooling_type": "AVG", **options}
    pruning = pruning_impl.Pruning(lambda: 1, [], Share(), **options)
    return pruning._maybe_update_block_mask(tf.constant(kernel))[1].numpy() == 1


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.81, 0.999])
def test_the_smallest_weights_become_zero(sparsity):
    kernel = weights(7, 9)
    kept = max(1, round(63 * (1 - sparsity)))
    expected = np.zeros(63, bool)
    expected[np.argsort(-np.abs(kernel.ravel()))[:kept]] = True
    np.testing.assert_array_equal(mask(Single(), kernel, sparsity), expected.reshape(7, 9))
    np.testing.assert_array_equal(mask_of_tf_mot(kernel, sparsity), expected.reshape(7, 9))


def test_of_equal_weights_as_many_become_zero_as_of_others():
    kernel = np.ones((4, 5), "float32")
    assert mask(Single(), kernel, 0.6).sum() == 8
    # TF-MOT keeps all that are equal to the smallest that stays.
    assert mask_of_tf_mot(kernel, 0.6).all()


def test_a_large_kernel_is_counted_exactly():
    # float32 cannot tell 2^24 + 1 from 2^24.
    size = 2**24 + 3
    kept = int(patterns._kept(size, 0.0))
    assert kept == size


@pytest.mark.parametrize(
    ("pattern", "arguments", "message"),
    [
        (Blocks, (4,), r"Blocks with 4.*two integers above 0.*Blocks\(\(4, 1\)\)"),
        (Blocks, ((4, 0),), r"Blocks with \(4, 0\)"),
        (Blocks, ((2, 2), "MEAN"), "pooling='MEAN'.*'AVG', 'MAX'"),
        (MByN, (4, 4), r"MByN\(zeros=4, of=4\).*fewer zeros"),
        (MByN, (1, 2.5), r"MByN with \(1, 2.5\).*MByN\(2, 4\)"),
    ],
)
def test_patterns_that_make_no_sense(pattern, arguments, message):
    with pytest.raises(ValueError, match=message):
        pattern(*arguments)


def blocks_in_numpy(kernel, size, pool, kept):
    """Blocks of (positions, inputs, outputs), cut at the edges, one by one."""
    pooled = {}
    positions, inputs, outputs = kernel.shape
    for position in range(positions):
        for row in range(0, inputs, size[0]):
            for column in range(0, outputs, size[1]):
                where = np.s_[position, row : row + size[0], column : column + size[1]]
                pooled[position, row, column] = (pool(np.abs(kernel[where])), where)
    expected = np.zeros(kernel.shape, bool)
    for _, where in sorted(pooled.values(), key=lambda item: -item[0])[:kept]:
        expected[where] = True
    return expected


@pytest.mark.parametrize(("pooling", "pool"), [("AVG", np.mean), ("MAX", np.max)])
@pytest.mark.parametrize("size", [(4, 1), (1, 3), (2, 2), (3, 4), (16, 16)])
def test_whole_blocks_become_zero_at_each_position(pooling, pool, size):
    kernel = weights(2, 3, 7, 8)
    matrices = kernel.reshape(6, 7, 8).astype("float64")
    blocks = 6 * -(-7 // size[0]) * -(-8 // size[1])
    expected = blocks_in_numpy(matrices, size, pool, max(1, round(blocks * 0.4)))
    received = mask(Blocks(size, pooling), kernel, 0.6, CONVOLUTION)
    np.testing.assert_array_equal(received, expected.reshape(kernel.shape))


@pytest.mark.parametrize("pooling", ["AVG", "MAX"])
def test_blocks_that_fit_are_those_of_tf_mot(pooling):
    kernel = weights(8, 6)
    expected = mask_of_tf_mot(kernel, 0.5, block_size=(4, 2), block_pooling_type=pooling)
    np.testing.assert_array_equal(mask(Blocks((4, 2), pooling), kernel, 0.5), expected)


def test_blocks_of_tf_mot_are_not_those_that_it_compares_where_they_do_not_fit():
    # A kernel of 5 rows has the blocks 0-3 and 4; TF-MOT compares rows 0-2 with rows 3-4.
    kernel = np.repeat(np.float32([[1.0], [1.0], [1.0], [9.0], [1.1]]), 4, axis=1)
    assert mask(Blocks((4, 2)), kernel, 0.5)[:, 0].tolist() == [True] * 4 + [False]
    assert mask_of_tf_mot(kernel, 0.5, block_size=(4, 2))[:, 0].tolist() == [False] * 4 + [True]


@pytest.mark.parametrize(("zeros", "of"), [(2, 4), (1, 4), (1, 2), (3, 8)])
@pytest.mark.parametrize(("shape", "axes"), [((16, 5), DENSE), ((3, 2, 16, 5), CONVOLUTION)])
def test_m_of_every_n_inputs_become_zero_as_in_tf_mot(zeros, of, shape, axes):
    kernel = weights(*shape)
    received = mask(MByN(zeros, of), kernel, zeros / of, axes)
    groups = np.moveaxis(received, -2, -1).reshape(-1, of)
    assert ((~groups).sum(axis=1) == zeros).all()
    assert pruning_utils.is_pruned_m_by_n(tf.constant(kernel * received), (zeros, of))
    np.testing.assert_array_equal(received, mask_of_tf_mot(kernel, 0, sparsity_m_by_n=(zeros, of)))


def test_in_a_last_group_that_is_short_as_many_stay_at_most():
    kernel = weights(10, 3)
    received = mask(MByN(3, 4), kernel, 0.75)
    assert received[8:].sum(axis=0).tolist() == [1, 1, 1]
    np.testing.assert_array_equal(received, mask_of_tf_mot(kernel, 0, sparsity_m_by_n=(3, 4)))
    assert mask(MByN(2, 4), kernel, 0.5)[8:].all()


def test_m_by_n_follows_the_schedule():
    kernel = weights(8, 4)
    counts = [int((~mask(MByN(2, 4), kernel, share)).sum()) for share in (0.0, 0.2, 0.3, 0.5, 0.9)]
    # Of 8 groups none, one, one, two and never more than two each.
    assert counts == [0, 8, 8, 16, 16]
    # TF-MOT does not ask its schedule.
    assert (~mask_of_tf_mot(kernel, 0.0, sparsity_m_by_n=(2, 4))).sum() == 16


@pytest.mark.fast_rows(1)
@pytest.mark.parametrize("pattern", [Single(), Blocks((4, 2), "MAX"), MByN(2, 4)])
def test_masks_are_the_same_when_compiled(pattern):
    kernel = tf.constant(weights(1, 8, 6))
    compiled = tf.function(pattern.mask, jit_compile=True)
    share = tf.constant(0.5)
    np.testing.assert_array_equal(
        compiled(tf.abs(kernel), share), pattern.mask(tf.abs(kernel), share)
    )


@pytest.mark.parametrize("pattern", [Single(), Blocks((4, 2), "MAX"), MByN(2, 4)])
def test_a_pattern_is_made_again_of_its_config(pattern):
    assert patterns.from_config(pattern.get_config()) == pattern


@pytest.mark.parametrize(
    "axes", [DENSE, Axes((0,), (2,), (1,)), Axes((1,), (0, 2), ()), Axes((), (1,), (2, 0))]
)
def test_matrices_become_the_same_kernel_again(axes):
    kernel = weights(3, 4) if axes is DENSE else weights(3, 4, 5)
    np.testing.assert_array_equal(axes.as_kernel(axes.as_matrices(kernel), kernel.shape), kernel)


def test_matrices_have_the_inputs_before_the_outputs():
    kernel = weights(3, 4, 5)
    matrices = np.asarray(Axes((1,), (2,), (0,)).as_matrices(kernel))
    np.testing.assert_array_equal(matrices, kernel.transpose(1, 2, 0))
