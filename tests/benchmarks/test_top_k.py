import numpy as np
import pytest


@pytest.fixture(scope="module")
def top_k(scripts):
    with pytest.MonkeyPatch.context() as patch:
        module = scripts("top_k")
        patch.setattr(module, "EXAMPLES", 50)
        yield module


def test_what_is_left_of_the_divergence_and_its_gradient(top_k):
    teacher, student = top_k.zipf(20, 2.5)
    table = list(top_k.rows("some", teacher, student, top_k=5))
    assert [row[1] for row in table] == ["1", "1", "4", "4"]
    for _, temperature, k, dtype, size, rest, kept, rounding, cosine in table:
        assert k == "5 of 20"
        # 5 bits a class; 4 distances; the mass of the rest.
        assert int(size) == 4 + (8 if dtype == "float16" else 6) + 2
        assert 0 < float(rest) < 1
        assert 0 < float(kept) <= 1
        assert 0 < float(rounding) < 0.01
        assert 0 < float(cosine) <= 1
        softened = np.exp(teacher.astype("float64") / float(temperature))
        softened = np.sort(softened / softened.sum(axis=-1, keepdims=True), axis=-1)
        assert float(rest) == pytest.approx(softened[:, :-5].sum(axis=-1).mean(), abs=6e-4)


def test_with_all_classes_nothing_is_left_out(top_k):
    teacher, student = top_k.zipf(6, 1.5)
    for row in top_k.rows("some", teacher, student, top_k=6):
        assert row[5:7] == ["0.000", "1.000"]
