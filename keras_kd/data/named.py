"""Data sets that tensorflow-datasets (TFDS) keeps on the user's disk.

A directory may come from anywhere. Its JSON files name classes, whose modules TFDS imports, and
files; both are checked before TFDS reads them.
"""

from __future__ import annotations

import inspect
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from keras_kd._checks import check_choice, check_integer, one_line, problem, three_parts
from keras_kd._progress import with_progress
from keras_kd.data.images import decode_image
from keras_kd.data.splits import Splits, from_bytes

NAMES = ("mnist", "fashion_mnist")
# Those that can also be loaded as integers.
_KNOWN = (*NAMES, "cifar10")
# "cifar10", "cifar10:test[:20%]", "imagenet_resized/32x32:train"
_NAME = re.compile(r"(?P<name>\w+(/[\w.\-]+)?)(:(?P<split>.+))?", re.ASCII)

_PARTS = 10

# What names a class in features.json, in its present form and in that of TFDS 4.0 to 4.4.
_CLASSES = ("pythonClassName", "python_class_name", "type")
# What features of that form read a file of.
_FILES = ("labels", "names_file")
# What dataset_info.json makes names of files of, and what such a name may be: "{SPLIT}.{SUFFIX}"
# is filled in by str.format, which would do more for other braces.
_PARTS_OF_FILES = ("configname", "fileformat", "filepathtemplate", "name", "version")
_PART_OF_FILE = re.compile(r"([\w.+\-]|\{[A-Z_]+\})*")
# Of the files of a split, for example: as many as their names distinguish.
_MOST_ITEMS = 65_535
_MOST_BYTES_OF_JSON = 2**26


def load(name: str, data_dir: str | os.PathLike | None = None) -> Splits:
    """Load a whole data set that is already on the disk; nothing is downloaded.

    Args:
        name: "mnist" or "fashion_mnist".
        data_dir: the TFDS data directory. None: the environment variable `TFDS_DATA_DIR`, else
            TFDS' own default.

    Raises:
        ValueError: if `name` is unknown, or the files of the data set are damaged.
        FileNotFoundError: if the directory does not hold the data set.
        ModuleNotFoundError: if tensorflow-datasets is not installed.
    """
    builder = _builder(check_choice("name", name, NAMES), data_dir)
    training, test = _read(builder, "train"), _read(builder, "test")
    return from_bytes(name, training, test, tuple(builder.info.features["label"].names))


def load_arrays(
    name: str, data_dir: str | os.PathLike | None
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Like `load`, "cifar10" too, as stored integers: ((x_train, y_train), (x_test, y_test))."""
    builder = _builder(check_choice("name", name, _KNOWN), data_dir)
    return _read(builder, "train"), _read(builder, "test")


def is_name(text: str) -> bool:
    """Whether a text could be the name of a data set, as `load_named_images` takes it."""
    return _NAME.fullmatch(text) is not None


def load_named_images(
    name: str, shape: Sequence[int], most: int, data_dir: str | os.PathLike | None = None
) -> np.ndarray:
    """Load evenly spaced images of any data set that is already on the disk.

    Args:
        name: its name in TFDS, and a split if it is not "train": "cifar10", "cifar10:test".
        shape: (height, width, channels) to which they are brought, as `load_images` does.
        most: how many images at most.
        data_dir: as for `load`.

    Returns:
        float32 in 0..255, shape (images, height, width, channels).

    Raises:
        ValueError: if there is no such split, no image in an example, or if files are damaged.
        FileNotFoundError: if the directory does not hold the data set.
        ModuleNotFoundError: if tensorflow-datasets is not installed.
    """
    check_integer("most", most, at_least=1, fix="pass a whole number of at least 1")
    parts = _NAME.fullmatch(name)
    if parts is None:
        raise problem(
            f"the data set {name!r}", "a name such as 'mnist' or 'mnist:test'", "correct it"
        )
    builder, split = _builder(parts["name"], data_dir), parts["split"] or "train"
    key = _image_feature(builder)
    _check_split(builder, split)
    try:
        encoded = _evenly_spaced(builder, split, key, most)
        images = [decode_image(one, shape) for one in with_progress(encoded, f"Reading {name}")]
    except Exception as error:  # Damage shows as many kinds of TensorFlow and TFDS errors.
        raise ValueError(_damaged(builder.name, builder.data_dir)) from error
    return np.stack(images)


def _tensorflow_datasets() -> ModuleType:
    try:
        import tensorflow_datasets
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            three_parts(
                "a data set's name without tensorflow-datasets installed",
                "the `examples` extra",
                "run: pip install 'keras-kd[examples]', or use the bundled sample",
            ),
            name=error.name,
        ) from error
    return tensorflow_datasets


def _builder(name: str, data_dir: str | os.PathLike | None) -> Any:
    tfds = _tensorflow_datasets()
    if data_dir is None:
        data_dir = os.environ.get("TFDS_DATA_DIR")
    directory = Path(data_dir or tfds.core.constants.DATA_DIR).expanduser()
    # TFDS logs warnings about directories that are not there, so look before asking it.
    check_directory(name, directory)
    _check_descriptions(directory, name)
    try:
        builder = tfds.builder(name, data_dir=directory)
        prepared = builder.is_prepared()
    except Exception as error:  # TFDS raises any error of its parsers of JSON and protobuf.
        raise ValueError(_damaged(name, directory)) from error
    if not prepared:
        raise FileNotFoundError(_missing(name, directory))
    return builder


def check_directory(name: str, directory: Path) -> None:
    """Refuse a data directory without a data set; TFDS is not imported.

    Raises:
        FileNotFoundError: if it is not there.
    """
    if not any(directory.glob(f"{name}/*/dataset_info.json")):
        raise FileNotFoundError(_missing(name, directory))


def _missing(name: str, directory: Path) -> str:
    return three_parts(
        f"data_dir={str(directory)!r}, which does not hold {name!r}",
        f"a TFDS data directory with {name}/VERSION/dataset_info.json in it",
        f"name the right directory, or download the data into this one with `tfds build {name} "
        f"--data_dir {directory}`",
    )


def _check_descriptions(directory: Path, name: str) -> None:
    """Refuse a data set that would have TFDS import a module, or read a file elsewhere.

    Raises:
        ValueError: naming the file and what it names, or for damaged files.
    """
    import tensorflow_datasets as tfds

    own = {
        f"{kind.__module__}.{kind.__name__}"
        for kind in vars(tfds.features).values()
        if inspect.isclass(kind) and issubclass(kind, tfds.features.FeatureConnector)
    }
    # A version may lie in a configuration.
    for depth in ("", "*/", "*/*/"):
        for file in (directory / name).glob(f"{depth}*.json"):
            if file.name not in ("features.json", "dataset_info.json"):
                continue
            try:
                members = list(_members(_read_json(file)))
            except (OSError, ValueError, RecursionError) as error:
                raise ValueError(_damaged(name, directory)) from error
            for key, value in members:
                plain = key.replace("_", "").lower()
                if file.name == "features.json":
                    is_fine = key not in _FILES and (key not in _CLASSES or value in own)
                    what = "class" if key in _CLASSES else "file"
                else:
                    is_fine = plain not in _PARTS_OF_FILES or _is_part_of_file(value)
                    what = "file"
                if not is_fine:
                    raise problem(
                        f"the data set {name!r} in {str(directory)!r}, whose {file.name} names "
                        f"the {what} {value[:80]!r}",
                        "features of TFDS itself, and files beside that one",
                        "if you trust it, read it with tensorflow-datasets in Python, and pass "
                        "its images as an array",
                    )


def _read_json(file: Path) -> Any:
    if not file.is_file() or file.stat().st_size > _MOST_BYTES_OF_JSON:
        raise ValueError(f"{file} is no description of a data set")
    return json.loads(file.read_text(encoding="utf-8"))


def _members(value: Any) -> Iterator[tuple[str, str]]:
    """Every key of nested JSON that has a text, also within JSON that is itself kept as a text."""
    pending = [value]
    while pending:
        value = pending.pop()
        pairs = value.items() if isinstance(value, dict) else ()
        pending.extend(value if isinstance(value, list) else (item for _, item in pairs))
        if isinstance(value, list) and len(value) > _MOST_ITEMS:
            raise ValueError(f"a list of {len(value)} items")
        for key, item in pairs:
            if not isinstance(item, str):
                continue
            inner = _json_in(item)
            if inner is None:
                yield key, item
            else:
                pending.append(inner)


def _json_in(text: str) -> Any:
    """The value of a text if it is JSON with parts: TFDS reads some of them; None for others."""
    if text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        return json.loads(text)
    except ValueError:
        return None


def _is_part_of_file(text: str) -> bool:
    return _PART_OF_FILE.fullmatch(text) is not None and text not in (".", "..")


def _image_feature(builder: Any) -> str:
    import tensorflow_datasets as tfds

    features = builder.info.features
    images = [key for key in features if isinstance(features[key], tfds.features.Image)]
    if not images:
        raise problem(
            f"the data set {builder.name!r} with the features {sorted(features)}",
            "a data set of images",
            "pass arrays instead",
        )
    return "image" if "image" in images else images[0]


def _check_split(builder: Any, split: str) -> None:
    try:
        count = builder.info.splits[split].num_examples
    except (KeyError, ValueError) as error:
        raise problem(
            f"the split {split!r} of {builder.name!r} ({one_line(error)[:200]})",
            f"one of {sorted(builder.info.splits)}, or a part of it",
            f"write for example '{builder.name}:{next(iter(builder.info.splits), 'train')}'",
        ) from error
    if count == 0:
        raise problem(
            f"the split {split!r} of {builder.name!r} without an example",
            "at least one image",
            "choose another part of it",
        )


def _evenly_spaced(builder: Any, split: str, key: str, most: int) -> list[bytes]:
    """The files of images from the beginnings of equal parts of a split.

    Images one by one would mean to read the whole split.
    """
    import tensorflow_datasets as tfds

    count = builder.info.splits[split].num_examples
    parts = min(_PARTS, most, count)
    datasets = builder.as_dataset(
        split=tfds.even_splits(split, parts),
        decoders={key: tfds.decode.SkipDecoding()},
        shuffle_files=False,
    )
    return [
        example[key].numpy()
        for place, dataset in enumerate(datasets)
        for example in dataset.take((place + 1) * most // parts - place * most // parts)
    ]


def _read(builder: Any, split: str) -> tuple[np.ndarray, np.ndarray]:
    """All images and labels of one split, in the order of the files."""
    try:
        images, labels = builder.as_dataset(split=split, batch_size=-1, as_supervised=True)
        return images.numpy(), labels.numpy()
    except Exception as error:  # Damage shows as many kinds of TensorFlow and TFDS errors.
        raise ValueError(_damaged(builder.name, builder.data_dir)) from error


def _damaged(name: str, directory: str | os.PathLike) -> str:
    return three_parts(
        f"files of {name!r} in '{directory}' that cannot be read",
        "the complete files that TFDS wrote",
        "delete that directory and prepare the data set again",
    )
