"""The report of a quickstart: what to look at, and what it means."""

from __future__ import annotations

from keras_kd.evaluation import Comparison, Figure, Highlight, Page, plots
from keras_kd.evaluation.table import count, percent
from keras_kd.quickstart import variants


def page(comparison: Comparison, epochs: int, seed: int) -> Page:
    """Texts and plots around the table of measurements."""
    teacher, alone, distilled, smallest = (
        comparison[name]
        for name in (variants.TEACHER, variants.ALONE, variants.DISTILLED, variants.SMALLEST)
    )
    times = teacher.parameters / distilled.parameters
    return Page(
        title="A student for a small device",
        introduction=(
            f"{comparison.dataset}: a teacher with {count(teacher.parameters)} weights taught a "
            f"student with {count(distilled.parameters)}. Every row of the table is a .tflite "
            "file, and every accuracy was measured by running that file on the test images."
        ),
        highlights=[
            Highlight(f"{times:.0f} times", "fewer weights than the teacher"),
            Highlight(
                f"{100 * (distilled.accuracy - alone.accuracy):+.2f}",
                f"points of accuracy by distillation: {percent(distilled.accuracy)} % instead of "
                f"{percent(alone.accuracy)} %, {epochs} epochs each",
            ),
            Highlight(
                f"{smallest.compressed_bytes / 1000:.1f} kB",
                f"after gzip when pruned and quantized, at {percent(smallest.accuracy)} %; the "
                f"teacher takes {teacher.compressed_bytes / 1000:,.0f} kB",
            ),
            Highlight(
                f"{smallest.latency_microseconds:.0f} µs",
                "for one image in LiteRT on one thread of this CPU",
            ),
        ],
        figures=_figures(comparison),
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


def _figures(comparison: Comparison) -> list[Figure]:
    teacher, alone, distilled, smallest = (
        comparison[name]
        for name in (variants.TEACHER, variants.ALONE, variants.DISTILLED, variants.SMALLEST)
    )
    changed = [comparison[variant.name] for variant in variants.COMPRESSED]
    return [
        Figure(
            "Accuracy over size",
            "Further up is more accurate, further left is smaller.",
            plots.accuracy_over_size(comparison.rows),
        ),
        Figure(
            "Distilled against alone",
            "The same network, the same first weights, the same number of epochs; one learned "
            "from the labels only, the other also from the teacher.",
            plots.per_class(alone, distilled, comparison.class_names),
        ),
        Figure(
            "Teacher against student",
            "What the smallest student keeps of the teacher, and what it leaves behind.",
            plots.share_of_teacher(teacher, smallest),
        ),
        Figure(
            "What pruning and quantization cost",
            f"Against “{distilled.name}” in float32: points of accuracy won or lost, and what is "
            "left of the compressed file (the dotted line is its size before).",
            plots.cost(distilled, changed),
        ),
    ]
