"""The report of a quickstart, with explanations."""

from __future__ import annotations

import numpy as np

from keras_kd.evaluation import Comparison, Figure, Highlight, Measurement, Page, plots
from keras_kd.evaluation.comparison import count, percent
from keras_kd.evaluation.report import (
    figure_of_differences,
    figure_of_disagreements,
    figure_of_reliability,
    figure_over_cost,
    figures_of_classes,
)
from keras_kd.quickstart import variants


def page(comparison: Comparison, epochs: int, seed: int, x: np.ndarray) -> Page:
    """Texts and plots around the table of measurements."""
    teacher, alone, distilled, smallest = (
        comparison[name]
        for name in (variants.TEACHER, variants.ALONE, variants.DISTILLED, variants.SMALLEST)
    )
    of_teacher, of_student = teacher.known("parameters"), distilled.known("parameters")
    # The other way round it is the difference of the distilled student to the baseline.
    gain = alone.quality["accuracy"].difference
    assert gain is not None
    return Page(
        title="A student for a small device",
        introduction=(
            f"{comparison.name}: a teacher with {count(of_teacher)} weights taught a "
            f"student with {count(of_student)}. Every row of the table is a .tflite "
            "file, and every accuracy was measured by running that file on the test images."
        ),
        highlights=[
            Highlight(f"{of_teacher / of_student:.0f} times", "fewer weights than the teacher"),
            Highlight(
                f"{-100 * gain.value:+.2f}",
                f"points of accuracy by distillation (95 % interval {-100 * gain.high:+.2f} to "
                f"{-100 * gain.low:+.2f}): {percent(_accuracy(distilled))} % instead of "
                f"{percent(_accuracy(alone))} %, {epochs} epochs each",
            ),
            Highlight(
                f"{smallest.known('compressed_bytes') / 1000:.1f} kB",
                f"after gzip when pruned and quantized, at {percent(_accuracy(smallest))} %; the "
                f"teacher takes {teacher.known('compressed_bytes') / 1000:,.0f} kB",
            ),
            Highlight(
                f"{smallest.known('latency_microseconds'):.0f} µs",
                "for one image in LiteRT on one thread of this CPU",
            ),
        ],
        figures=_figures(comparison, x),
        notes=[
            f"This is one run with seed {seed}. By how much distillation helps differs from seed "
            "to seed; benchmarks/distillation_gain.py measures it over several.",
            "Pruning sets weights to zero. That makes the compressed file smaller; it does not "
            "shrink the file itself and does not make it faster on a CPU.",
            "Times are of this computer's processor, not of a phone or a microcontroller. Here a "
            "network as small as the student need not be faster in 8 bits than in float32; it "
            "needs less of the flash and of the arena.",
        ],
    )


def _figures(comparison: Comparison, x: np.ndarray) -> list[Figure]:
    teacher, alone, distilled, smallest = (
        comparison[name]
        for name in (variants.TEACHER, variants.ALONE, variants.DISTILLED, variants.SMALLEST)
    )
    changed = [comparison[variant.name] for variant in variants.COMPRESSED]
    (quality,) = comparison.mains
    kept = ("accuracy", "parameters", "bytes", "compressed_bytes", "latency_microseconds")
    figures = [
        figure_over_cost(comparison, quality, "bytes"),
        figure_over_cost(comparison, quality, "latency_microseconds"),
        *figures_of_classes(
            comparison,
            alone,
            distilled,
            "Distilled against alone",
            "The same network, the same first weights, the same number of epochs; one learned "
            "from the labels only, the other also from the teacher.",
        )[:1],
        Figure(
            "Teacher against student",
            "What the smallest student keeps of the teacher, and what it leaves behind.",
            plots.share_of_teacher(
                teacher, smallest, [each for each in comparison.columns if each.key in kept]
            ),
        ),
        figure_of_differences(quality, distilled, changed),
        *figures_of_classes(comparison, teacher, smallest, "", "")[1:],
        figure_of_reliability([teacher, smallest]),
        figure_of_disagreements(comparison, x),
    ]
    return [figure for figure in figures if figure is not None]


def _accuracy(row: Measurement) -> float:
    return row.quality["accuracy"].value
