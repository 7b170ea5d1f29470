"""When does distillation help a keyword spotter? Spoken digits, clean and in noise.

    python examples/studies/keywords.py --data free-spoken-digit-dataset/recordings

A small DS-CNN (Zhang et al., Hello Edge, 2017) alone and distilled, in five situations: as it is,
with fewer filters, with labels for a tenth of the clips, without augmentation, and for a speaker
who was never heard. Files are called {digit}_{speaker}_{number}.wav; numbers 0 to 4 test, 5 to 9
validate, and the others train. Features are log-mel, `keras_kd.sound`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from _study import (
    Epochs,
    Job,
    Results,
    command,
    decaying,
    fit,
    keep,
    mean_and_error,
    parser,
    read,
    replacing,
    run_jobs,
    table,
    write_page,
)

import keras_kd
from keras_kd import tflite

NAME = "keywords"
FIRST_VALIDATION, FIRST_TRAINING = 5, 10
UNKNOWN = -1
# The speaker who is left out of the split; none where all speakers train.
ALL = "all"
SITUATIONS = {
    "standard": "as it is",
    "small": "half of the filters",
    "few-labels": "labels for a tenth of the clips",
    "clean": "no augmentation for the student",
    "unseen": "a speaker never heard",
}


@dataclass(frozen=True)
class Settings:
    """What the results depend on, and where files are.

    Attributes:
        data: a directory of WAV files.
        work_dir: of weights and results.
        versions: changed forms of each clip, which all models see.
        epochs: passes over all versions.
        noise: the ratio of signal to noise of the noisy test, in decibels.
        unseen: the speakers that are left out, one after the other. Empty: all of them.
        seeds: of the students.
    """

    data: Path
    work_dir: Path
    versions: int = 8
    epochs: int = 6
    filters: int = 32
    teacher_filters: int = 96
    noise: float = 5.0
    unseen: tuple[str, ...] = ()
    seeds: int = 5
    batch_size: int = 64
    learning_rate: float = 2e-3
    temperature: float = 4.0
    labels_weight: float = 0.1

    def described(self) -> dict[str, Any]:
        """Those that results depend on, in types of JSON."""
        values = {k: v for k, v in asdict(self).items() if k not in ("data", "work_dir")}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    def store(self, split: str) -> Path:
        """Where the outputs of a split's teacher are."""
        return self.work_dir / f"teacher-{split}.store"


@dataclass(frozen=True)
class Clips:
    """Features of all clips.

    Attributes:
        changed: float32, shape (clips, versions, frames, mels), for training.
        clean: float32, shape (clips, frames, mels).
        noisy: like `clean`, with noise.
        y: class indices, shape (clips,).
        speaker: texts, shape (clips,).
        number: that of the recording, shape (clips,).
    """

    changed: np.ndarray
    clean: np.ndarray
    noisy: np.ndarray
    y: np.ndarray
    speaker: np.ndarray
    number: np.ndarray

    def purposes(self, split: str) -> dict[str, np.ndarray]:
        """Which clips train, validate and test, where the speaker `split` is left out."""
        is_known = self.speaker != split
        validates = (self.number >= FIRST_VALIDATION) & (self.number < FIRST_TRAINING)
        tests = self.number < FIRST_VALIDATION
        return {
            "training": np.flatnonzero(is_known & (self.number >= FIRST_TRAINING)),
            "validation": np.flatnonzero(is_known & validates),
            "test": np.flatnonzero(tests if split == ALL else ~is_known),
        }


def make_features(settings: Settings, _: Results) -> dict[str, Any]:
    """Compute the features of all clips, of their changed forms, and of the noisy ones."""
    from keras_kd import sound

    clips = sound.load_clips(settings.data, seconds=1.0, names="{label}_{speaker}_{number}.wav")
    front_end = sound.LogMel(clips.sample_rate, mels=32)
    ratio = (settings.noise, settings.noise)
    noise = sound.ClipAugmentation(clips.sample_rate, shift=0.0, gain=0.0, noise=ratio)
    augment = sound.ClipAugmentation(clips.sample_rate)

    def features(change: Any, version: int) -> np.ndarray:
        seeds = np.stack([np.arange(len(clips)), np.full(len(clips), version)], axis=1)
        changed = [change(clip, seed) for clip, seed in zip(clips.x, seeds, strict=True)]
        batches = np.array_split(np.asarray(changed), max(1, len(changed) // 256))
        return np.concatenate([np.asarray(front_end(batch)) for batch in batches])

    changed = np.stack([features(augment, version) for version in range(settings.versions)], axis=1)
    with replacing(settings.work_dir / "features.npz") as temporary:
        np.savez(
            temporary,
            changed=changed,
            clean=features(lambda clip, _: clip, 0),
            noisy=features(noise, settings.versions),
            y=clips.y,
            speaker=clips.fields["speaker"],
            number=clips.fields["number"].astype("int64"),
        )
    speakers = sorted(set(clips.fields["speaker"].tolist()))
    return {"clips": len(clips), "classes": len(clips.class_names), "speakers": speakers}


def load(settings: Settings) -> Clips:
    """The features of the work directory."""
    with np.load(settings.work_dir / "features.npz") as kept:
        return Clips(**{field.name: kept[field.name] for field in dataclasses.fields(Clips)})


def flat(clips: Clips, which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All versions of some clips as examples, the first version of all of them first."""
    versions = clips.changed.shape[1]
    x = np.swapaxes(clips.changed[which], 0, 1).reshape(-1, *clips.changed.shape[2:])
    return x, np.tile(clips.y[which], versions)


def network(shape: tuple[int, int], classes: int, filters: int, seed: int) -> keras.Model:
    """DS-CNN: a convolution, then four depthwise-separable ones; logits out."""
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    inputs = keras.Input(shape, name="features")
    tensor = layers.Reshape((*shape, 1))(inputs)
    tensor = layers.Conv2D(filters, (10, 4), strides=2, padding="same", use_bias=False)(tensor)
    tensor = layers.ReLU()(layers.BatchNormalization()(tensor))
    for _ in range(4):
        tensor = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(tensor)
        tensor = layers.ReLU()(layers.BatchNormalization()(tensor))
        tensor = layers.Conv2D(filters, 1, use_bias=False)(tensor)
        tensor = layers.ReLU()(layers.BatchNormalization()(tensor))
    tensor = layers.GlobalAveragePooling2D()(tensor)
    return keras.Model(inputs, layers.Dense(classes, name="logits")(tensor))


def compiled(settings: Settings, model: Any, examples: int, epochs: int) -> Any:
    """The model or Distiller, ready to train; labels that are -1 count nowhere."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=UNKNOWN)
    model.compile(decaying(settings.learning_rate, epochs, examples, settings.batch_size), loss)
    return model


def train_on_labels(
    settings: Settings, name: str, model: keras.Model, x: np.ndarray, y: np.ndarray, epochs: int
) -> keras.Model:
    """Train and keep a model."""

    def make(epoch: int) -> tuple[np.ndarray, np.ndarray]:
        order = np.random.default_rng((0, epoch)).permutation(len(x))
        return x[order], y[order]

    path = settings.work_dir / f"{name}.keras"
    size = min(settings.batch_size, len(x))
    fit(
        compiled(settings, model, len(x), epochs),
        lambda first: Epochs(make, size, first),
        epochs,
        path.with_suffix(".npz"),
    )
    keep(model, path)
    return model


def accuracies(predict: Any, clips: Clips, which: np.ndarray) -> dict[str, float]:
    """The accuracy on clean and on noisy clips."""
    return {
        name: float(np.mean(predict(x[which]).argmax(-1) == clips.y[which]))
        for name, x in (("clean", clips.clean), ("noisy", clips.noisy))
    }


def of_model(model: keras.Model) -> Any:
    return lambda x: model.predict(x, batch_size=256, verbose=0)


def train_teacher(settings: Settings, results: Results, split: str) -> dict[str, Any]:
    """Train the teacher of a split, and store its outputs for all versions."""
    clips = load(settings)
    purposes = clips.purposes(split)
    x, y = flat(clips, purposes["training"])
    classes = results["features"]["classes"]
    model = network(x.shape[1:], classes, settings.teacher_filters, 0)
    train_on_labels(settings, f"teacher-{split}", model, x, y, settings.epochs)
    keras_kd.teachers.StoredTeacher.create(model, (x, y), settings.store(split))
    return {
        **accuracies(of_model(model), clips, purposes["test"]),
        "parameters": model.count_params(),
    }


def few(y: np.ndarray, seed: int) -> np.ndarray:
    """Which clips keep their labels: a tenth of each class, at least one."""
    generator = np.random.default_rng(seed)
    kept = np.zeros(len(y), bool)
    for number in np.unique(y):
        members = np.flatnonzero(y == number)
        kept[generator.choice(members, max(1, len(members) // 10), replace=False)] = True
    return kept


def train_pair(
    settings: Settings, results: Results, situation: str, split: str, seed: int
) -> dict[str, Any]:
    """The same student alone and distilled, from the same weights, for as many steps."""
    clips = load(settings)
    purposes = clips.purposes(split)
    training = purposes["training"]
    x, y = flat(clips, training)
    classes = results["features"]["classes"]
    filters = settings.filters // (2 if situation == "small" else 1)
    name = f"{situation}-{split}-{seed}"
    student, taught = (network(x.shape[1:], classes, filters, seed) for _ in range(2))
    epochs = settings.epochs
    known = np.ones(len(training), bool)
    if situation == "few-labels":
        known = few(clips.y[training], seed)
    versions = np.tile(known, settings.versions)
    if situation == "clean":
        x = np.tile(clips.clean[training], (settings.versions, 1, 1))

    alone_epochs = round(epochs * len(x) / versions.sum())
    train_on_labels(settings, f"{name}-alone", student, x[versions], y[versions], alone_epochs)

    path = settings.store(split)
    if situation == "clean":
        path = settings.work_dir / f"teacher-{split}-clean.store"
        teacher = keras.models.load_model(settings.work_dir / f"teacher-{split}.keras")
        keras_kd.teachers.StoredTeacher.create(teacher, (x, y), path)
    stored = keras_kd.teachers.StoredTeacher(path)
    distiller = keras_kd.Distiller(
        stored,
        taught,
        keras_kd.losses.SoftTargets(temperature=settings.temperature),
        student_loss_weight=settings.labels_weight,
    )
    labels = np.where(versions, y, UNKNOWN)
    kept = settings.work_dir / f"{name}-distilled.keras"
    fit(
        compiled(settings, distiller, len(x), epochs),
        lambda first: stored.join((x, labels), settings.batch_size, seed=1000 * seed + first),
        epochs,
        kept.with_suffix(".npz"),
    )
    keep(taught, kept)
    result = {
        key: accuracies(of_model(model), clips, purposes["test"])
        for key, model in (("alone", student), ("distilled", taught))
    }
    if situation == "standard":
        for key, model in (("alone", student), ("distilled", taught)):
            file = tflite.convert(
                model, "int8", (clips.clean[training], clips.y[training]), "microcontroller"
            )
            file.save(settings.work_dir / f"{name}-{key}.tflite")
            result[f"{key}-int8"] = {
                **accuracies(file.predict, clips, purposes["test"]),
                "bytes": file.size,
            }
    return result


def jobs(settings: Settings, speakers: tuple[str, ...]) -> list[Job]:
    """All that is computed.

    Args:
        settings: lengths and sizes.
        speakers: those that are left out, one after the other.
    """
    listed = [
        Job("features", make_features),
        Job(f"teacher-{ALL}", train_teacher, ("features",), (ALL,)),
    ]
    needs = ("features", f"teacher-{ALL}")
    for seed in range(settings.seeds):
        for situation in SITUATIONS:
            if situation != "unseen":
                name, arguments = f"{situation}-{ALL}-{seed}", (situation, ALL, seed)
                listed.append(Job(name, train_pair, needs, arguments))
    for speaker in speakers:
        teacher = f"teacher-{speaker}"
        listed.append(Job(teacher, train_teacher, ("features",), (speaker,)))
        for seed in range(settings.seeds):
            name, arguments = f"unseen-{speaker}-{seed}", ("unseen", speaker, seed)
            listed.append(Job(name, train_pair, ("features", teacher), arguments))
    return listed


def percent(values: list[float], sign: str = "") -> str:
    """Mean and standard error in percent."""
    mean, error = mean_and_error(values)
    return f"{100 * mean:{sign}.2f}" + (f" ± {100 * error:.2f}" if error is not None else "")


def pairs(results: Results, situation: str) -> list[dict[str, Any]]:
    """The results of a situation, of all seeds and speakers that are finished."""
    return [result for name, result in results.items() if name.startswith(f"{situation}-")]


def page(settings: Settings, pages: Path) -> Path:
    """Write the page of what is finished."""
    kept = read(settings.work_dir)
    results, s = kept["jobs"], kept["settings"]
    rows, helps, unclear = [], [], []
    for situation, title in SITUATIONS.items():
        found = pairs(results, situation)
        for test in ("clean", "noisy") if found else ():
            alone = [result["alone"][test] for result in found]
            taught = [result["distilled"][test] for result in found]
            gains = np.subtract(taught, alone).tolist()
            row = [f"{title}, {test}", len(found), percent(alone), percent(taught)]
            rows.append([*row, percent(gains, "+")])
            mean, error = mean_and_error(gains)
            is_clear = error is not None and abs(mean) > 2 * error
            (helps if is_clear and mean > 0 else unclear).append(f"{title} ({test} clips)")
    sections = [
        "# Keywords",
        f"A DS-CNN of {s['filters']} filters on spoken digits; accuracy in percent on clips that "
        f"train no model, clean and with noise of {s['noise']:g} dB; mean and standard error over "
        "pairs of students that begin with the same weights and take as many steps. Temperature "
        "and weights are not searched.",
    ]
    if (teacher := results.get(f"teacher-{ALL}")) is not None:
        sections.append(
            f"The teacher has {s['teacher_filters']} filters ({teacher['parameters']:,} weights): "
            f"{100 * teacher['clean']:.2f} % on clean, {100 * teacher['noisy']:.2f} % on noisy "
            "clips."
        )
    if rows:
        sections += [
            table(["", "pairs", "alone", "distilled", "gain"], rows),
            "It helps, by more than two standard errors: " + ("; ".join(helps) or "nowhere") + ".",
            "No clear gain: " + ("; ".join(unclear) or "nowhere") + ".",
        ]
    standard = pairs(results, "standard")
    if standard:
        rows = [
            [
                key,
                *(percent([each[f"{key}-int8"][test] for each in standard])
                  for test in ("clean", "noisy")),
                f"{max(each[f'{key}-int8']['bytes'] for each in standard):,}",
            ]
            for key in ("alone", "distilled")
        ]  # fmt: skip
        sections += ["## In int8", table(["", "clean", "noisy", "bytes"], rows)]
    names = ("versions", "epochs", "filters", "teacher_filters", "noise", "seeds")
    options = {name.replace("_", "-"): [s[name]] for name in names}
    if s["unseen"]:
        options["unseen"] = s["unseen"]
    line = command(NAME, options).replace(
        "--data-dir ~/tensorflow_datasets", "--data free-spoken-digit-dataset/recordings"
    )
    return write_page(pages, NAME, sections, kept, line)


def main(arguments: list[str] | None = None) -> None:
    options = parser(__doc__, NAME)
    fields = {field.name: field.default for field in dataclasses.fields(Settings)}
    names = ("versions", "epochs", "filters", "teacher_filters", "seeds")
    for name in names:
        options.add_argument(f"--{name.replace('_', '-')}", type=int, default=fields[name])
    options.add_argument("--noise", type=float, default=fields["noise"], help="in decibels")
    options.add_argument("--data", type=Path, required=True, metavar="DIR", help="of WAV files")
    options.add_argument("--unseen", nargs="*", default=(), help="speakers (default: all)")
    chosen = options.parse_args(arguments)
    settings = Settings(
        chosen.data,
        chosen.work_dir,
        noise=chosen.noise,
        unseen=tuple(chosen.unseen),
        **{name: getattr(chosen, name) for name in names},
    )
    if not chosen.page_only:
        # Who speaks is known when the features are there.
        place = settings.described(), settings.work_dir
        first = run_jobs([Job("features", make_features)], settings, *place, 1)
        speakers = settings.unseen or tuple(first["features"]["speakers"])
        run_jobs(jobs(settings, speakers), settings, *place, chosen.jobs)
    print(page(settings, chosen.pages))


if __name__ == "__main__":
    main()
