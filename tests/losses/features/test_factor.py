"""Factor transfer."""

import numpy as np
import pytest

from keras_kd.losses import AttentionTransfer, FactorTransfer


def test_with_norm_2_it_is_attention_transfer():
    teacher, student = np.random.default_rng(0).normal(size=(2, 3, 4, 5, 2)).astype("float32")
    assert float(FactorTransfer(norm=2).compute_loss(teacher, student)) == pytest.approx(
        float(AttentionTransfer().compute_loss(teacher, student)), rel=1e-6
    )


@pytest.mark.parametrize("argument", ["power", "norm"])
def test_arguments_below_1_are_refused(argument):
    with pytest.raises(ValueError, match=rf"{argument}=0.5.*at least 1"):
        FactorTransfer(**{argument: 0.5})
