"""What is known of each file, measured on it: as JSON for programs, as Markdown for people."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from teaching import Setting, Subject

from keras_kd import compression
from keras_kd._files import replacing
from keras_kd.evaluation.machine import processor
from keras_kd.metrics import accuracy
from keras_kd.tflite import TFLiteModel, microcontroller

COMMAND = "make models DATA_DIR=DIRECTORY_OF_TFDS"
CARDS = "cards.json"
RUNS = 2000
LINE = 100
_PACKAGES = ("tensorflow", "keras", "tensorflow-model-optimization", "ai-edge-litert")


class Images(NamedTuple):
    """Test images.

    Attributes:
        place: where they are.
        x: shaped (examples, 28, 28, 1), from 0 to 1.
        y: their labels.
    """

    place: str
    x: np.ndarray
    y: np.ndarray


@dataclass(frozen=True)
class Lesson:
    """What the cards of a subject have in common.

    Attributes:
        subject: what was learned.
        setting: how.
        training_images: from how many images.
        test: the whole test set.
        bundled: those test images that are in the repository.
        teacher_weights: how many weights the teacher has.
        teacher_accuracy: its accuracy on the test set, from 0 to 1.
    """

    subject: Subject
    setting: Setting
    training_images: int
    test: Images
    bundled: Images
    teacher_weights: int
    teacher_accuracy: float


@dataclass(frozen=True)
class Card:
    """What is known of a file; shares are from 0 to 1.

    Attributes:
        file: its path in this directory.
        sha256: of its bytes, in hexadecimal.
        command: what makes it.
        form: "float32", "int8" or "pruned_int8".
        target: what it was made for.
        data: name, source and licence of the data, numbers of images.
        epochs: how often the training images were seen, by step of the training.
        teacher: its number of weights and its accuracy on the test images.
        weights: how many the student has.
        sparsity: the share of zeros in its kernels.
        bytes: the size of the file.
        gzip_bytes: after gzip.
        inputs: what goes in.
        outputs: what comes out.
        operators: how often each occurs.
        accuracy: of the file in LiteRT on all test images.
        bundled: the test images in the repository, and the accuracy on them: in LiteRT and, for
            microcontrollers, in TensorFlow Lite Micro.
        arena_bytes: the working memory in TensorFlow Lite Micro; None for other targets.
        latency: median and 95th percentile for one image in microseconds, and where that was.
    """

    file: str
    sha256: str
    command: str
    form: str
    target: str
    data: dict[str, Any]
    epochs: dict[str, int]
    teacher: dict[str, Any]
    weights: int
    sparsity: float
    bytes: int
    gzip_bytes: int
    inputs: list[str]
    outputs: list[str]
    operators: dict[str, int]
    accuracy: float
    bundled: dict[str, Any]
    arena_bytes: int | None
    latency: dict[str, Any]


def described(model: TFLiteModel, student: Any, form: str, target: str, lesson: Lesson) -> Card:
    """Measure a file and write its card.

    Args:
        model: the file.
        student: what it was made from.
        form: see `Card`.
        target: see `Card`.
        lesson: what the student has learned, from whom and from what.
    """
    subject, setting = lesson.subject, lesson.setting
    steps = ["teacher", "student"]
    if form == "pruned_int8":
        steps += ["pruning", "quantization"]
    plain = compression.strip(student)
    bundled, arena = _on_bundled(model, target, lesson.bundled)
    return Card(
        file=f"{subject.name}/{form}_{target}.tflite",
        sha256=sha256(model.content).hexdigest(),
        command=COMMAND,
        form=form,
        target=target,
        data={
            "name": subject.title,
            "source": subject.source,
            "licence": subject.licence,
            "training_images": lesson.training_images,
            "test_images": len(lesson.test.y),
        },
        epochs={step: getattr(setting, f"{step}_epochs") for step in steps},
        teacher={"weights": lesson.teacher_weights, "accuracy": lesson.teacher_accuracy},
        weights=plain.count_params(),
        sparsity=compression.summary(plain).sparsity,
        bytes=model.size,
        gzip_bytes=model.compressed_size,
        inputs=[str(tensor) for tensor in model.inputs],
        outputs=[str(tensor) for tensor in model.outputs],
        operators=model.operators,
        accuracy=accuracy(model.predict(fitting(lesson.test.x, model)), lesson.test.y),
        bundled=bundled,
        arena_bytes=arena,
        latency=_latency(model),
    )


def fitting(images: np.ndarray, model: TFLiteModel) -> np.ndarray:
    """Grey images with as many channels, all equal, as a file takes."""
    return np.repeat(images, model.inputs[0].shape[-1], axis=-1)


def _on_bundled(
    model: TFLiteModel, target: str, images: Images
) -> tuple[dict[str, Any], int | None]:
    measured = {
        "place": images.place,
        "images": len(images.y),
        "accuracy": accuracy(model.predict(fitting(images.x, model)), images.y),
    }
    if target != "microcontroller":
        return measured, None
    on_device = microcontroller.run(model, images.x)
    (scores,) = on_device.outputs.values()
    return {**measured, "accuracy_in_tflm": accuracy(scores, images.y)}, on_device.arena_bytes


def _latency(model: TFLiteModel) -> dict[str, Any]:
    measured = model.benchmark(runs=RUNS, threads=1)
    return {
        "median_microseconds": round(measured.median, 1),
        "p95_microseconds": round(measured.p95, 1),
        "runs": measured.runs,
        "threads": measured.threads,
        "kernels": measured.kernels,
        "processor": processor(),
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
    }


def write_cards(cards: Sequence[Card], directory: Path) -> None:
    """Write a card beside each file, and all that are known into `cards.json` and `README.md`."""
    path = directory / CARDS
    known = json.loads(path.read_text()) if path.exists() else {}
    known |= {card.file: asdict(card) for card in cards}
    for card in known.values():
        _write((directory / card["file"]).with_suffix(".md"), page(card))
    _write(path, json.dumps(known, indent=1) + "\n")
    _write(directory / "README.md", overview(known))


def _write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text)


def page(card: dict[str, Any]) -> str:
    """A card in Markdown."""
    data, teacher, latency, bundled = (
        card[part] for part in ("data", "teacher", "latency", "bundled")
    )
    rows = {
        "Made for": card["target"],
        "Made by": f"`{card['command']}`",
        "Data": f"{data['name']} ({data['source']}), licence {data['licence']}: "
        f"{data['training_images']:,} images to learn from, {data['test_images']:,} to test on",
        "Epochs": ", ".join(f"{step} {count}" for step, count in card["epochs"].items()),
        "Teacher": f"{teacher['weights']:,} weights, {_percent(teacher['accuracy'])} of the test "
        "images",
        "Student": f"{card['weights']:,} weights, {_percent(card['sparsity'])} of those in kernels "
        "are zero",
        "Accuracy": f"{_percent(card['accuracy'])} of {data['test_images']:,} test images, in "
        "LiteRT",
        "Accuracy on bundled images": _bundled(bundled),
        "Size": f"{card['bytes']:,} bytes, {card['gzip_bytes']:,} after gzip",
        "Arena in TensorFlow Lite Micro": _arena(card),
        "Input": ", ".join(f"`{text}`" for text in card["inputs"]),
        "Output": ", ".join(f"`{text}`" for text in card["outputs"]),
        "Operators": ", ".join(f"{count} {name}" for name, count in card["operators"].items()),
        "Time for one image": f"{latency['median_microseconds']} µs (median of "
        f"{latency['runs']:,} runs; 95 % took at most {latency['p95_microseconds']} µs), LiteRT on "
        f"{latency['threads']} thread with {latency['kernels']}, {latency['processor']}, "
        f"{latency['date']}",
        "Versions": ", ".join(f"{name} {number}" for name, number in latency["versions"].items()),
        "SHA-256": f"`{card['sha256']}`",
    }
    lines = [f"| {name} | {value} |" for name, value in rows.items() if value]
    return "\n".join([f"# {card['file']}", "", "| | |", "| --- | --- |", *lines, ""])


def _bundled(bundled: dict[str, Any]) -> str:
    text = f"{_percent(bundled['accuracy'])} of the {bundled['images']:,} in `{bundled['place']}`"
    if "accuracy_in_tflm" in bundled:
        text += f"; in TensorFlow Lite Micro {_percent(bundled['accuracy_in_tflm'])}"
    return text


def _arena(card: dict[str, Any]) -> str:
    return "" if card["arena_bytes"] is None else f"{card['arena_bytes']:,} bytes"


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


INTRODUCTION = """\
# Students

Small classifiers of images of 28x28, made by this package: a teacher was trained, then a student
on its outputs, also while the student was pruned and prepared for 8 bits. Each is here in the
form that its target takes, with a card that describes how it was made and measured.

- `android`: color images in, the mean of the channels counts; labels and normalization are
  in the file, and MediaPipe's ImageClassifier runs it as it is.
- `microcontroller`: one channel in, nothing in the file that a device does not need; `int8` has
  8-bit integers in and out.
- `web`: one channel in, floating point in and out; `examples/web` runs those of the digits.

This makes all of them, their cards and this page, in about an hour; trained models are
kept, so that a second run takes minutes:

    {command}

DIRECTORY_OF_TFDS is a data directory of `tensorflow-datasets` with `mnist` and `fashion_mnist` in
it. The same versions on the same processor make the same bytes: a test trains twice, for a few
steps, and compares.

`cards.json` has what is on the cards for programs. No figure is typed by hand, and no setting was
chosen on test images. Times are of the processor on the card, which also had other work.

`clothes/examples.npz` has the first test images of Fashion-MNIST (copyright 2017 Zalando SE, MIT
licence, https://github.com/zalandoresearch/fashion-mnist), for tests where the whole data set is
not at hand. Those of the digits are in `keras_kd/data`.
"""
HEAD = (
    "| file | bytes | gzip | accuracy, % | µs | arena |\n| --- | ---: | ---: | ---: | ---: | ---: |"
)


def overview(cards: dict[str, dict[str, Any]]) -> str:
    """The page on all files."""
    parts = [INTRODUCTION.format(command=COMMAND)]
    for name in sorted({file.split("/")[0] for file in cards}, reverse=True):
        own = [card for file, card in cards.items() if file.startswith(f"{name}/")]
        data, teacher = own[0]["data"], own[0]["teacher"]
        parts += [
            f"## {name.capitalize()}\n",
            textwrap.fill(
                f"{data['name']} by {data['source']}, licence {data['licence']}. The teacher has "
                f"{teacher['weights']:,} weights and is right on {_percent(teacher['accuracy'])} "
                f"of the {data['test_images']:,} test images, the student has "
                f"{own[0]['weights']:,}.",
                LINE,
            )
            + "\n",
            HEAD,
            *(_row(card) for card in own),
            "",
        ]
    return "\n".join(parts)


def _row(card: dict[str, Any]) -> str:
    file = card["file"]
    cells = [
        f"[{file.split('/')[1]}]({file.removesuffix('.tflite')}.md)",
        f"{card['bytes']:,}",
        f"{card['gzip_bytes']:,}",
        f"{100 * card['accuracy']:.2f}",
        f"{card['latency']['median_microseconds']}",
        "" if card["arena_bytes"] is None else f"{card['arena_bytes']:,}",
    ]
    return f"| {' | '.join(cells)} |"
