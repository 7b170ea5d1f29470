import numpy as np
import pytest


@pytest.fixture(scope="module")
def join(scripts):
    with pytest.MonkeyPatch.context() as patch:
        module = scripts("join")
        patch.setattr(module, "EXAMPLES", 6)
        yield module


@pytest.mark.parametrize("way", ["by_image", "by_batch"])
def test_each_image_comes_once_and_changed(join, way):
    images = np.arange(1, 6 * 16 + 1, dtype="float32").reshape(6, 4, 4, 1)
    batches = list(getattr(join, way)((images, np.arange(6)), 4))
    assert [len(labels) for _, labels in batches] == [4, 2]
    changed, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    assert sorted(labels) == list(range(6))
    assert not np.array_equal(changed, images[labels])
    for image, label in zip(changed, labels, strict=True):
        assert set(image.ravel()) <= {0, *images[label].ravel()}


@pytest.mark.slow
def test_all_ways_are_measured_in_each_round(join):
    times = join.measured((4, 4, 1), 4, 2)
    assert np.shape(times) == (2, 3)
    assert np.min(times) > 0
