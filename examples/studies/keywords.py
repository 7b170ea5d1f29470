"""When does distillation help a keyword spotter? Spoken digits, clean, in noise, of a new speaker.

    python examples/studies/keywords.py --data-dir free-spoken-digit-dataset/recordings

A depthwise-separable CNN (Zhang et al., Hello Edge: Keyword Spotting on Microcontrollers, 2017)
trains alone and distilled from a wider one, for as many steps and from the same weights, in each
of `CONDITIONS`: all labels, few labels, a smaller student, a speaker who is in no training, and
without augmentation. Files are named {digit}_{speaker}_{index}.wav; the indices 0 to 4 test, 5 to 9
validate, the others train, as in the Free Spoken Digit Dataset.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np
from _study import (
    Epochs,
    Job,
    Results,
    StudySettings,
    command,
    decaying,
    fit,
    keep,
    mean_and_error,
    read,
    run_study,
    save_plot,
    table,
    with_error,
    write_page,
)

import keras_kd
from keras_kd import metrics, sound, tflite
from keras_kd._files import replacing

NAME = "keywords"
TESTED, VALIDATED = range(5), range(5, 10)
UNKNOWN = -1
NOISE = (0.0, 30.0)


@dataclass(frozen=True)
class Condition:
    """One comparison of a student alone with the same student distilled.

    Attributes:
        title: on the page.
        is_small: whether the smaller student is compared.
        labelled: clips of each word and speaker that have a label; 0: all. Others in each seed.
        is_taught_by_few: whether the teacher has seen these labels only. It then teaches all
            training clips, most of them without a label; else the labelled ones.
        is_unseen: whether the test is on a speaker who is left out: another one in each seed.
        is_changed: whether the clips are augmented, for teacher and student.
    """

    title: str
    is_small: bool = False
    labelled: int = 0
    is_taught_by_few: bool = False
    is_unseen: bool = False
    is_changed: bool = True

    def teacher(self, seed: int) -> str:
        """The name of the teacher in a seed."""
        if self.is_unseen:
            return f"teacher-unseen-{seed}"
        if self.is_taught_by_few:
            return f"teacher-{self.labelled}-labels-{seed}"
        return "teacher" if self.is_changed else "teacher-clean"


CONDITIONS = {
    "all": Condition("all labels"),
    "few": Condition("10 % of the labels, all clips", labelled=4, is_taught_by_few=True),
    "small": Condition("all labels, smaller student", is_small=True),
    "unseen": Condition("all labels, a speaker left out", is_unseen=True),
    "clean": Condition("all labels, no augmentation", is_changed=False),
    "one": Condition("2.5 % of the labels, all clips", labelled=1, is_taught_by_few=True),
    "few-strong": Condition("10 % of the labels, strong teacher", labelled=4),
    "one-strong": Condition("2.5 % of the labels, strong teacher", labelled=1),
}
MEASURES = {"clean": "On clean clips", "noisy": "On noisy clips, {snr:g} dB"}
LEAST_PAIRS = 3
# Quantiles 0.975 of Student's t distribution for 1, 2, ... degrees of freedom.
T_95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


@dataclass(frozen=True)
class Settings(StudySettings):
    """What the results depend on.

    Attributes:
        filters, small_filters, teacher_filters: of each convolution.
        versions: how many changed versions of each clip there are; an epoch has each once.
        epochs, teacher_epochs: lengths of trainings.
        snr: decibels of the clip's power over that of the white noise, for the noisy clips.
        draws: of noise, for each test clip.
        temperatures: those among which validation chooses.
        labels_weight: the weight of the loss on labels beside the soft targets.
        seeds: of each condition, up to 10.
        speakers: how many are left out, one after the other.
    """

    DATA: ClassVar[str] = "free-spoken-digit-dataset/recordings"
    DATA_HELP: ClassVar[str] = "of WAV files, {digit}_{speaker}_{index}.wav"
    seconds: float = 0.8
    mels: int = 20
    filters: int = 40
    small_filters: int = 20
    teacher_filters: int = 96
    versions: int = 8
    epochs: int = 2
    teacher_epochs: int = 2
    snr: float = 0.0
    draws: int = 4
    temperatures: tuple[float, ...] = (1.0, 2.0, 4.0)
    labels_weight: float = 0.3
    seeds: int = 3
    speakers: int = 6
    batch_size: int = 64
    learning_rate: float = 5e-3

    def path(self, name: str) -> Path:
        """The file of a trained model."""
        return self.work_dir / f"{name}.keras"


@dataclass(frozen=True, eq=False)
class Features:
    """What models see of all clips; frames and mel bands are the last two axes.

    Attributes:
        clean: shape (clips, ...).
        noisy: with noise of one level, shape (draws, clips, ...).
        changed: augmented, shape (versions, clips, ...).
        y: classes, shape (clips,).
        speaker, index: from the names of the files, shape (clips,).
    """

    clean: np.ndarray
    noisy: np.ndarray
    changed: np.ndarray
    y: np.ndarray
    speaker: np.ndarray
    index: np.ndarray

    def rows(self, purpose: str, without: str | None = None) -> np.ndarray:
        """Whether each clip trains, validates or tests; a speaker left out does only the last."""
        indices = {"test": TESTED, "validation": VALIDATED}.get(purpose)
        is_own = np.isin(self.index, indices or [*TESTED, *VALIDATED])
        if without is not None and purpose == "test":
            return self.speaker == without
        return (is_own if indices else ~is_own) & (self.speaker != without)


def make_features(settings: Settings, _: Results) -> dict[str, Any]:
    """Run the front end on all clips, as they are, in noise and changed, and keep the features."""
    import tensorflow as tf

    if settings.data_dir is None:
        raise ValueError("no directory of clips; pass --data-dir, with WAV files of these names")
    names = "{label}_{speaker}_{index}.wav"
    clips = sound.load_clips(settings.data_dir, seconds=settings.seconds, names=names)
    rate = clips.sample_rate
    front_end = sound.LogMel(rate, window=0.032, hop=0.032, mels=settings.mels)
    level = settings.snr, settings.snr
    noise = sound.ClipAugmentation(rate, shift=0, speed=0, gain=0, noise=level)
    change = sound.ClipAugmentation(rate, shift=0.1, speed=0.1, gain=6, noise=NOISE)

    def made(change: Callable[[Any, Any], Any], first: int) -> np.ndarray:
        """The features of all clips, each changed by a seed of two numbers, of which one is its."""
        data = tf.data.Dataset.from_tensor_slices(clips.x).enumerate()
        data = data.map(lambda i, clip: change(clip, tf.stack([first, tf.cast(i, tf.int32)])))
        return np.concatenate(list(data.batch(200).map(front_end).as_numpy_iterator()))

    with replacing(settings.work_dir / "features.npz") as temporary:
        np.savez(
            temporary,
            clean=made(lambda clip, _: clip, 0),
            noisy=[made(noise, 1000 + draw) for draw in range(settings.draws)],
            changed=[made(change, version) for version in range(settings.versions)],
            y=clips.y,
            speaker=clips.fields["speaker"],
            index=clips.fields["index"].astype(int),
        )
    return {"clips": len(clips), "classes": len(clips.class_names)}


def load(settings: Settings) -> Features:
    """The features that were kept."""
    with np.load(settings.work_dir / "features.npz") as kept:
        return Features(**kept)


def network(shape: tuple[int, ...], classes: int, filters: int, seed: int) -> keras.Model:
    """A convolution and four depthwise-separable ones, each with normalization; logits out."""
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    tensor = inputs = keras.Input(shape, name="features")
    # From -14 to 0, the logarithms of 2**-20 and 1, to about -0.5 to 3.
    tensor = layers.Rescaling(0.25, 3.0)(layers.Reshape((*shape, 1))(tensor))
    tensor = layers.Conv2D(filters, 5, strides=2, padding="same", use_bias=False)(tensor)
    for strides in (2, 1, 1, 1):
        tensor = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(tensor))
        tensor = layers.SeparableConv2D(
            filters, 3, strides=strides, padding="same", use_bias=False
        )(tensor)
    tensor = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(tensor))
    tensor = layers.Flatten()(layers.AveragePooling2D(tensor.shape[1:3])(tensor))
    return keras.Model(inputs, layers.Dense(classes, name="logits")(tensor))


def without(features: Features, condition: Condition, seed: int) -> str | None:
    """The speaker that is left out."""
    speakers = np.unique(features.speaker)
    return str(speakers[seed]) if condition.is_unseen else None


def training(
    features: Features, condition: Condition, seed: int, every_clip: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inputs, labels and keys of an epoch, which has as many examples in each condition.

    Args:
        features: of all clips.
        condition: says which clips have a label, and whether they are changed.
        seed: chooses the labelled clips, or the speaker that is left out.
        every_clip: whether clips without a label are there, with the label `UNKNOWN`.

    Returns:
        Arrays of shape (examples, frames, mels), (examples,) and (examples,).
    """
    x = features.changed if condition.is_changed else features.clean[None]
    rows = features.rows("training", without(features, condition, seed))
    labelled = rows
    if condition.labelled:
        first = VALIDATED.stop + seed * condition.labelled
        labelled = rows & np.isin(features.index, range(first, first + condition.labelled))
    y = np.where(labelled, features.y, UNKNOWN)
    used = np.flatnonzero(rows if every_clip else labelled)
    keys = (np.arange(len(x))[:, None] * len(y) + used).reshape(-1)
    keys = np.resize(keys, len(features.changed) * rows.sum())
    return x.reshape(-1, *x.shape[2:])[keys], y[keys % len(y)], keys


def accuracies(
    predict: Callable[[np.ndarray], Any], features: Features, speaker: str | None
) -> dict[str, float]:
    """The accuracy on clean and on noisy clips, of those that test and of those that validate."""
    found = {}
    for purpose, prefix in (("test", ""), ("validation", "validation_")):
        rows = features.rows(purpose, speaker)
        noisy = features.noisy[:, rows]
        for key, x in (("clean", features.clean[None, rows]), ("noisy", noisy)):
            outputs = predict(x.reshape(-1, *x.shape[2:]))
            y = np.tile(features.y[rows], len(x))
            found[prefix + key] = float(metrics.accuracy(outputs, y))
    return found


def outputs_of(model: keras.Model) -> Callable[[np.ndarray], Any]:
    return lambda x: model.predict(x, batch_size=300, verbose=0)


def labels_loss() -> keras.losses.Loss:
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def train_on_labels(
    settings: Settings, name: str, condition: Condition, seed: int, filters: int, epochs: int
) -> tuple[keras.Model, dict[str, Any]]:
    """Train a model on the labels of a condition, and keep it."""
    features = load(settings)
    x, y, _ = training(features, condition, seed, every_clip=False)
    model = network(x.shape[1:], int(features.y.max()) + 1, filters, seed)
    optimizer = decaying(settings.learning_rate, epochs, len(x), settings.batch_size)
    model.compile(optimizer, labels_loss(), jit_compile=False)

    def make(epoch: int) -> tuple[np.ndarray, np.ndarray]:
        order = np.random.default_rng((seed, epoch)).permutation(len(x))
        return x[order], y[order]

    fit(model, Epochs(make, settings.batch_size), epochs, settings.path(name))
    keep(model, settings.path(name))
    found = accuracies(outputs_of(model), features, without(features, condition, seed))
    return model, {**found, "parameters": model.count_params()}


def train_teacher(
    settings: Settings, _: Results, name: str, condition: Condition, seed: int
) -> dict[str, Any]:
    """Train a teacher and store its logits for all training clips, with a label or without."""
    size = settings.teacher_filters, settings.teacher_epochs
    model, found = train_on_labels(settings, name, condition, seed, *size)
    x, _y, keys = training(load(settings), condition, seed, every_clip=True)
    # Clips that are not changed come several times in an epoch.
    keys, once = np.unique(keys, return_index=True)
    data = ({"features": x[once], "key": keys},)
    path = settings.work_dir / f"{name}.store"
    keras_kd.teachers.StoredTeacher.create(model, data, path, key="key")
    return found


def train_alone(
    settings: Settings, _: Results, name: str, condition: Condition, seed: int
) -> dict[str, Any]:
    """Train a student on labels."""
    size = filters_of(settings, condition), settings.epochs
    return train_on_labels(settings, name, condition, seed, *size)[1]


def filters_of(settings: Settings, condition: Condition) -> int:
    return settings.small_filters if condition.is_small else settings.filters


def train_distilled(
    settings: Settings,
    results: Results,
    name: str,
    condition: Condition,
    seed: int,
    teacher: str,
    temperature: float | None = None,
) -> dict[str, Any]:
    """Distill a student, at the chosen temperature or at the one of a trial."""
    features = load(settings)
    x, y, keys = training(features, condition, seed, every_clip=condition.is_taught_by_few)
    temperature = temperature or chosen_temperature(results)
    classes = int(features.y.max()) + 1
    student = network(x.shape[1:], classes, filters_of(settings, condition), seed)
    stored = keras_kd.teachers.StoredTeacher(settings.work_dir / f"{teacher}.store")
    distiller = keras_kd.Distiller(
        stored,
        student,
        keras_kd.losses.SoftTargets(temperature=temperature),
        student_loss_weight=settings.labels_weight,
        missing_label=UNKNOWN,
    )
    optimizer = decaying(settings.learning_rate, settings.epochs, len(x), settings.batch_size)
    distiller.compile(optimizer, labels_loss(), jit_compile=False)
    data = stored.join(({"features": x, "key": keys}, y), settings.batch_size, seed=seed)
    fit(distiller, data, settings.epochs, settings.path(name))
    keep(student, settings.path(name))
    found = accuracies(outputs_of(student), features, without(features, condition, seed))
    return {**found, "temperature": temperature}


def chosen_temperature(results: Results) -> float:
    """That of the trial that is right on most validation clips, the lowest of equals."""
    trials = [result for name, result in results.items() if name.startswith("trial-")]
    return max(trials, key=lambda trial: (validation(trial), -trial["temperature"]))["temperature"]


def validation(result: dict[str, Any]) -> float:
    """The mean of both accuracies on validation clips."""
    return (result["validation_clean"] + result["validation_noisy"]) / 2


def convert(settings: Settings, _: Results, name: str) -> dict[str, Any]:
    """The int8 file of a student, as it is measured on the test clips."""
    features = load(settings)
    x, y, _keys = training(features, CONDITIONS["all"], 0, every_clip=False)
    model = keras.models.load_model(settings.path(name))
    file = tflite.convert(model, "int8", (x, y), "microcontroller")
    rows = features.rows("test")
    compared = keras_kd.evaluation.compare({"file": file}, features.clean[rows], features.y[rows])
    costs = {"bytes": compared["file"].bytes, "arena_bytes": compared["file"].arena_bytes}
    return {**accuracies(file.predict, features, None), **costs}


def jobs(settings: Settings) -> list[Job]:
    """All that is computed, in the order of its importance."""
    listed = {"features": Job("features", make_features)}
    trials = tuple(f"trial-T{temperature:g}" for temperature in settings.temperatures)

    def add(name: str, run: Any, needs: tuple[str, ...], *arguments: Any) -> None:
        listed.setdefault(name, Job(name, run, ("features", *needs), (name, *arguments)))

    add("teacher", train_teacher, (), CONDITIONS["all"], 0)
    for name, temperature in zip(trials, settings.temperatures, strict=True):
        # Of weights that no other student has.
        arguments = CONDITIONS["all"], 100, "teacher", temperature
        add(name, train_distilled, ("teacher",), *arguments)
    for key, condition in CONDITIONS.items():
        for seed in range(settings.speakers if condition.is_unseen else settings.seeds):
            teacher = condition.teacher(seed)
            if teacher != "teacher":
                add(teacher, train_teacher, (), condition, seed)
            add(alone(key, seed), train_alone, (), condition, seed)
            name = f"{key}-{seed}"
            add(name, train_distilled, (teacher, *trials), condition, seed, teacher)
            for student in (alone(key, seed), name) if key == "all" else ():
                listed[f"{student}-int8"] = Job(
                    f"{student}-int8", convert, ("features", student), (student,)
                )
    return list(listed.values())


def alone(key: str, seed: int) -> str:
    """The name of the student alone, which does not depend on the teacher."""
    return f"{key.removesuffix('-strong')}-alone-{seed}"


def pairs(results: Results, key: str) -> list[tuple[str, str]]:
    """The names of the student alone and distilled, for each seed that has both."""
    named = [(alone(key, seed), f"{key}-{seed}") for seed in range(len(T_95) + 1)]
    return [pair for pair in named if all(name in results for name in pair)]


def values(results: Results, names: Sequence[str], measure: str) -> list[float]:
    """Accuracies in percent."""
    return [100 * results[name][measure] for name in names]


def differences(results: Results, key: str, measure: str) -> list[float]:
    """By how many points the distilled student of each pair is better."""
    columns = zip(*pairs(results, key), strict=True)
    without, taught = (values(results, names, measure) for names in columns)
    return [after - before for before, after in zip(without, taught, strict=True)]


def verdict(found: Sequence[float]) -> str:
    """What differences show at 95 %, by Student's t distribution; nothing with two pairs.

    Accuracies come in steps of a test clip, so that two of them are often equal by chance.
    """
    mean, error = mean_and_error(found)
    if error is None or len(found) < LEAST_PAIRS or abs(mean) <= T_95[len(found) - 2] * error:
        return "not shown"
    return "better" if mean > 0 else "worse"


def page(settings: Settings, pages: Path) -> Path:
    """Write the page of what is finished."""
    kept = read(settings.work_dir)
    results, s = kept["jobs"], kept["settings"]
    finished = [key for key in CONDITIONS if pairs(results, key)]
    sections = [
        "# Keywords: when does distillation help?",
        "A small keyword spotter on the 3,000 spoken digits of six speakers, alone and distilled "
        "from a wider network of the same kind. Both begin with the same weights and train for as "
        "many steps.",
    ]
    if finished:
        sections += _answer(results, finished)
        sections += _tables(results, s, finished)
        save_plot(lambda figure: _draw(figure, results, finished), pages / f"{NAME}.svg", 4.4)
    missing = [
        condition.title
        for key, condition in CONDITIONS.items()
        if len(pairs(results, key)) < s["speakers" if condition.is_unseen else "seeds"]
    ]
    if missing:
        sections.append(f"Not finished when this page was written: {'; '.join(missing)}.")
    sections += [*_files(results), *_method(results, s)]
    return write_page(pages, NAME, sections, kept, command(NAME, Settings, s))


def _answer(results: Results, finished: list[str]) -> list[str]:
    """The conditions by what their pairs show."""
    found: dict[str, list[str]] = {"better": [], "worse": [], "not shown": []}
    for key in finished:
        for measure in MEASURES:
            each = differences(results, key, measure)
            few = ", too few pairs" if len(each) < LEAST_PAIRS else ""
            text = f"{CONDITIONS[key].title}: {with_error(each, 1, '+')} on {measure} clips{few}"
            found[verdict(each)].append(text)
    titles = "Distillation helps", "Distillation harms", "No difference is shown"
    lines = [
        f"- **{title}:** {'; '.join(texts) or 'nowhere'}."
        for title, texts in zip(titles, found.values(), strict=True)
    ]
    return [
        "## The answer",
        "\n".join(lines),
        "In points of accuracy, with the standard error over the pairs. A difference is shown if "
        "its 95 % interval, by Student's t, leaves out 0; with three pairs, the fewest that count, "
        "it has to be larger than 4.3 standard errors, so that small gains stay hidden. Of all "
        "comparisons one in twenty shows a difference by chance.",
        f"![The difference of each pair, and the mean with its standard error]({NAME}.svg)",
        "Few labels are 4 clips or 1 clip of each word and speaker, others in each seed; alone, "
        "the student sees these clips. **All clips**: the teacher has seen these labels only and "
        "teaches all training clips, most of them without a label. **Strong teacher**: the teacher "
        "has seen all labels and teaches the student's few clips.",
    ]


def _tables(results: Results, s: dict[str, Any], finished: list[str]) -> list[str]:
    sections = []
    for measure, title in MEASURES.items():
        rows = []
        for key in finished:
            found = pairs(results, key)
            names = [
                [CONDITIONS[key].teacher(int(name.rpartition("-")[2])) for _, name in found],
                *zip(*found, strict=True),
            ]
            means = [f"{np.mean(values(results, each, measure)):.1f}" for each in names]
            each = differences(results, key, measure)
            rows.append(
                [CONDITIONS[key].title, len(found), *means, with_error(each, 1, "+"), verdict(each)]
            )
        headings = ["", "pairs", "teacher", "alone", "distilled", "difference", "distilled is"]
        sections += [f"## {title.format(**s)}", table(headings, rows)]
    return sections


def _draw(figure: Any, results: Results, finished: list[str]) -> None:
    axes = figure.subplots()
    for shift, (measure, colour) in enumerate(zip(MEASURES, ("tab:blue", "tab:red"), strict=True)):
        for place, key in enumerate(finished):
            found, height = differences(results, key, measure), place + 0.3 * shift - 0.15
            mean, error = mean_and_error(found)
            axes.plot(found, [height] * len(found), ".", color=colour, alpha=0.35)
            label = f"{measure} clips" if not place else None
            axes.errorbar(mean, height, xerr=error or 0, fmt="s", color=colour, label=label)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(finished)), [CONDITIONS[key].title for key in finished], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("distilled less alone, in points of accuracy")
    axes.legend()


def _files(results: Results) -> list[str]:
    rows = []
    columns = zip(*pairs(results, "all"), strict=True)
    for title, names in zip(("alone", "distilled"), columns, strict=False):
        done = [name for name in names if f"{name}-int8" in results]
        files = [f"{name}-int8" for name in done]
        if files:
            means = [
                f"{np.mean(values(results, each, measure)):.1f}"
                for measure in MEASURES
                for each in (done, files)
            ]
            sizes = [results[files[0]][cost] for cost in ("bytes", "arena_bytes")]
            rows.append([title, len(files), *means, *(f"{size or 0:,}" for size in sizes)])
    headings = ["", "files", "clean, float", "clean, int8", "noisy, float", "noisy, int8"]
    return rows and [
        "## In int8",
        "All labels: accuracy in percent of the float students and of their int8 files, run in "
        "LiteRT; bytes of a file, and of its arena in TensorFlow Lite Micro.",
        table([*headings, "bytes", "arena"], rows),
    ]


def _method(results: Results, s: dict[str, Any]) -> list[str]:
    names = {"teacher": "teacher", "student": alone("all", 0), "smaller student": alone("small", 0)}
    weights = [
        f"{title} {results[name]['parameters']:,}"
        for title, name in names.items()
        if name in results
    ]
    trials = [result for name, result in results.items() if name.startswith("trial-")]
    scores = [f"{t['temperature']:g}: {100 * validation(t):.1f} %" for t in trials]
    return [
        "## How it was measured",
        f"Weights: {', '.join(weights)}. Of each word and speaker the clips 0 to 4 test, 5 to 9 "
        "validate, the other 40 train. A speaker who is left out is in no training and no "
        "validation; all 500 clips of that speaker test.",
        f"The front end computes {s['mels']} bands in frames of 32 ms. Of each training clip there "
        f"are {s['versions']} versions, moved by up to 0.1 s, up to 10 % faster or slower, up to "
        f"6 dB louder or softer, in white noise {NOISE[0]:g} to {NOISE[1]:g} dB below the clip; "
        "an epoch has each of them once. Teacher and student see the same ones. Noisy test clips "
        f"are in white noise at {s['snr']:g} dB (the power of the clip over that of the noise, in "
        f"{s['seconds']:g} s), {s['draws']} draws of each, mixed into the samples before the front "
        f"end. A student sees each clip {s['epochs'] * s['versions']} times, and more often where "
        "it trains on fewer clips, in as many steps.",
        "Each seed has its own initial weights, order and labelled clips; the standard errors "
        "count these. They do not count the choice of test clips, nor of speakers, except where "
        "each pair leaves out another speaker.",
        "The temperature was chosen on the clean and noisy validation clips, with all labels and "
        f"a seed of its own; mean accuracy of each: {', '.join(scores)}. The learning rate and the "
        f"weight of the labels ({s['labels_weight']:g}) were not searched.",
    ]


def main(arguments: list[str] | None = None) -> None:
    run_study(__doc__, NAME, Settings, jobs, page, arguments)


if __name__ == "__main__":
    main()
