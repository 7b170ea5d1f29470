from keras_kd.compression import Factorization, FactorizedLayer


def test_a_table_of_what_was_saved_and_lost():
    report = Factorization(
        layers={
            "hidden": FactorizedLayer("dense", (1568, 64), 8, 64, 100416, 13120, 0.25, 1.2, 1.2),
            "conv": FactorizedLayer("spatial", (3, 5, 2, 4), 2, 6, 124, 56, 0.5, 0.75, 0.8),
        },
        skipped={"depthwise": "no low-rank form"},
        parameters_before=120000,
        parameters_after=32636,
    )
    assert str(report).splitlines() == [
        "layer   form     kernel   rank  of   before   after   error  output error",
        "hidden  dense    1568x64     8  64  100,416  13,120  25.00%           1.2",
        "conv    spatial  3x5x2x4     2   6      124      56  50.00%           0.8",
        "all parameters: 120,000 -> 32,636 (27.2%)",
        "kept depthwise: no low-rank form",
    ]
