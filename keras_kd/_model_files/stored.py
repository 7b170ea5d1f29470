"""What files of Keras contain of a model, read without Keras: no model is built, no code runs."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from keras_kd._archives import check_json_member, check_json_size, check_members, read_json
from keras_kd._checks import one_line, problem
from keras_kd._memory import MEBIBYTE, check_expansion
from keras_kd._tables import Report, Table, shape_text

HDF5_SUFFIXES = (".h5", ".hdf5")
SUFFIXES = (".keras", *HDF5_SUFFIXES)
SAVED_MODEL = "saved_model.pb"
_WEIGHTS = ("model.weights.h5", "model.weights.npz")
_SHOWN_LAYERS = 60
_LONGEST_NAME = 44
# Where Keras keeps the weights of a model in its own HDF5 files; those of the optimizer are beside.
_OF_THE_MODEL = "model_weights"
# Groups of variables that are no parameters of the model.
_OTHER_VARIABLES = ("optimizer", "seed_generator", "loss_tracker", "compile_metrics")
# Where Keras 2 keeps those of metrics; a layer may have this name.
_METRICS = "metrics"


class ConfigError(ValueError):
    """What a file lacks, or what its config names that it may not.

    Args:
        reason: what is wrong, as a clause.
        expected: what is expected besides a model, for example "without code in it"; may be empty.
        fix: what the caller can do.
    """

    def __init__(self, reason: str, expected: str, fix: str) -> None:
        super().__init__(reason)
        self.expected = expected
        self.fix = fix


@dataclass(frozen=True)
class StoredLayer:
    """A layer at the top of a model.

    Attributes:
        name: its name.
        kind: its class, for example "Conv2D".
        parameters: how many numbers are stored for it and what is in it; None if it is not known
            which are its own.
    """

    name: str
    kind: str
    parameters: int | None


@dataclass(frozen=True)
class StoredInput:
    """An input of a model.

    Attributes:
        name: its name.
        shape: its shape, the batch in front; None where any size can be fed.
        dtype: its type, for example "float32"; "" where the file has none.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str


@dataclass(frozen=True)
class ModelDescription(Report):
    """What a `.keras` or `.h5` file contains of its model. `print` shows it.

    Attributes:
        name: of the model.
        kind: its class, for example "Functional".
        keras_version: of the Keras that wrote it; None where the file has none.
        size: the size of the file in bytes.
        parameters: how many numbers its weights have, without those of an optimizer; None where
            they are in no HDF5 file.
        inputs: the inputs; none where a model has no graph and was not built.
        outputs: the names of the layers that end a graph.
        layers: those at the top; none of a subclassed model.
        sha256: the SHA-256 of the file.
    """

    name: str
    kind: str
    keras_version: str | None
    size: int
    parameters: int | None
    inputs: tuple[StoredInput, ...]
    outputs: tuple[str, ...]
    layers: tuple[StoredLayer, ...]
    sha256: str

    def _records(self) -> list[dict[str, Any]]:
        return [asdict(layer) for layer in self.layers]

    def _parts(self) -> list[Table | str]:
        parameters = "unknown" if self.parameters is None else f"{self.parameters:,}"
        rows = [
            ["input", tensor.name, tensor.dtype, shape_text(tensor.shape)] for tensor in self.inputs
        ] + [["output", name, "", ""] for name in self.outputs]
        return [
            f"{self.kind} {self.name!r} of Keras {self.keras_version or '(unknown version)'}\n"
            f"parameters: {parameters}; bytes: {self.size:,}",
            "",
            Table(["", "name", "type", "shape"], rows, left=4) if rows else "inputs: unknown",
            "",
            *self._layers(),
            f"SHA-256: {self.sha256}",
        ]

    def _layers(self) -> list[Table | str]:
        rows = [
            [
                layer.name if len(layer.name) <= _LONGEST_NAME else f"{layer.name[:41]}...",
                layer.kind,
                "" if layer.parameters is None else f"{layer.parameters:,}",
            ]
            for layer in self.layers[:_SHOWN_LAYERS]
        ]
        if not rows:
            return []
        table = Table(["layer", "class", "parameters"], rows, left=2)
        left_out = self.layers[_SHOWN_LAYERS:]
        if not left_out:
            return [table, ""]
        kinds = Counter(layer.kind for layer in left_out).most_common(5)
        listed = ", ".join(f"{kind} {count}" for kind, count in kinds)
        more = f"and {len(left_out)} more ({listed}{', ...' if len(kinds) == 5 else ''})"
        return [table, more, ""]


def is_saved_model(path: Path) -> bool:
    """Whether a directory is a SavedModel."""
    return (path / SAVED_MODEL).is_file()


def describe(path: Path) -> ModelDescription:
    """What a `.keras` or `.h5` file contains of its model.

    Raises:
        ValueError: if the file is damaged, or declares far more than is stored.
    """
    try:
        return _described(path)
    except Exception as error:  # Damage shows as errors of zipfile, json, h5py and others.
        reason = one_line(error)[:200].rstrip(".") or type(error).__name__
        raise problem(
            f"the file {str(path)!r}, which cannot be read ({reason})",
            "an undamaged model that Keras has saved, as .keras or .h5",
            "copy it again, or save the model again, as .keras",
        ) from error


def _described(path: Path) -> ModelDescription:
    content = _checked(config(path), dict, "config")
    inner = content.get("config")
    # Keras 1 has a list of layers alone.
    inner = {"layers": inner} if isinstance(inner, list) else _checked(inner, dict, "config")
    layers = [each for each in inner.get("layers") or () if isinstance(each, dict)]
    sizes = _parameters(path)
    return ModelDescription(
        name=str(inner.get("name") or path.stem),
        kind=str(content.get("class_name")),
        keras_version=keras_version(path),
        size=path.stat().st_size,
        parameters=None if sizes is None else sum(sizes.values()),
        inputs=tuple(_inputs(content, layers)),
        outputs=tuple(dict.fromkeys(_names(inner.get("output_layers")))),
        layers=tuple(_layer(layer, sizes) for layer in layers),
        sha256=_sha256(path),
    )


def _layer(layer: dict[str, Any], sizes: Mapping[str, int] | None) -> StoredLayer:
    name, kind = _name(layer), str(layer.get("class_name"))
    known = None if sizes is None else sizes.get(name, 0 if _names_layers(sizes) else None)
    return StoredLayer(name, kind, known)


def _names_layers(sizes: Mapping[str, int]) -> bool:
    """Whether the file records of which layer its weights are; the first of Keras 3 did not."""
    return "" not in sizes


def _name(layer: dict[str, Any]) -> str:
    return str(layer.get("name") or _config(layer).get("name") or "")


def _config(layer: dict[str, Any]) -> dict[str, Any]:
    inner = layer.get("config")
    return inner if isinstance(inner, dict) else {}


def _inputs(content: dict[str, Any], layers: list[dict[str, Any]]) -> Iterator[StoredInput]:
    found = [layer for layer in layers if layer.get("class_name") == "InputLayer"]
    # Keras 2 wrote the input of a Sequential into its first layer.
    for layer in found or layers[:1]:
        inner = _config(layer)
        shape = inner.get("batch_shape") or inner.get("batch_input_shape")
        if shape:
            yield StoredInput(_name(layer), _shape(shape), _dtype(inner.get("dtype")))
            found = found or [layer]
    if found:
        return
    built = content.get("build_config")
    shapes = built.get("input_shape") if isinstance(built, dict) else None
    if isinstance(shapes, dict):
        yield from (StoredInput(str(name), _shape(shape), "") for name, shape in shapes.items())
    elif isinstance(shapes, list) and any(isinstance(each, list) for each in shapes):
        yield from (StoredInput(f"input {n}", _shape(each), "") for n, each in enumerate(shapes))
    elif isinstance(shapes, list):
        yield StoredInput("input", _shape(shapes), "")


def _shape(value: Any) -> tuple[int | None, ...]:
    return tuple(size if isinstance(size, int) else None for size in _checked(value, list, "shape"))


def _dtype(value: Any) -> str:
    if isinstance(value, dict):
        value = _config(value).get("name")
    return value if isinstance(value, str) else ""


def _names(structure: Any) -> Iterator[str]:
    """The layers in a structure of outputs: [name, node, tensor], and lists and dicts of those."""
    if isinstance(structure, dict):
        structure = list(structure.values())
    if isinstance(structure, list) and structure and isinstance(structure[0], str):
        yield structure[0]
    elif isinstance(structure, list):
        for each in structure:
            yield from _names(each)


def _checked(value: Any, kind: type, what: str) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"its {what} is a {type(value).__name__}")
    return value


def _parameters(path: Path) -> dict[str, int] | None:
    """How many parameters each layer has, by name; "" for the rest."""
    if path.suffix in HDF5_SUFFIXES:
        with path.open("rb") as file:
            return _parameters_of_hdf5(file, _named_by_group)
    with zipfile.ZipFile(path) as archive:
        if _WEIGHTS[0] not in archive.namelist():
            return None
        with archive.open(_WEIGHTS[0]) as file:
            return _parameters_of_hdf5(file, _named_by_attribute)


def _parameters_of_hdf5(file: Any, named: Callable[[Any, list[str]], str | None]) -> dict[str, int]:
    import h5py

    sizes: Counter[str] = Counter()

    def note(name: str, item: Any) -> None:
        parts = name.split("/")
        if not isinstance(item, h5py.Dataset) or parts[0] == _METRICS:
            return
        if not set(parts) & set(_OTHER_VARIABLES):
            layer = named(opened, parts)
            if layer is not None:
                sizes[layer] += int(item.size or 0)

    with h5py.File(file, "r") as opened:
        opened.visititems(note)
    return dict(sizes)


def _named_by_group(opened: Any, parts: list[str]) -> str | None:
    return parts[1] if parts[0] == _OF_THE_MODEL and len(parts) > 2 else None


def _named_by_attribute(opened: Any, parts: list[str]) -> str | None:
    """Groups are numbered by class; the name of the layer is beside its variables."""
    if parts[0] != "layers" or len(parts) < 3:
        return ""
    variables = opened.get(f"layers/{parts[1]}/vars")
    name = None if variables is None else variables.attrs.get("name")
    return str(name) if isinstance(name, str) else ""


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(MEBIBYTE):
            digest.update(part)
    return digest.hexdigest()


def config(path: Path) -> dict[str, Any]:
    """What a file contains of its model, after what it declares was compared with what is stored.

    Raises:
        Exception: any, for damaged files.
    """
    return _hdf5_config(path) if path.suffix in HDF5_SUFFIXES else _keras_config(path)


def keras_version(path: Path) -> str | None:
    """The version of the Keras that wrote a file; None where that cannot be read."""
    try:
        if path.suffix in HDF5_SUFFIXES:
            version = _hdf5_attribute(path, "keras_version")
        else:
            with zipfile.ZipFile(path) as archive:
                version = read_json(archive, "metadata.json")["keras_version"]
        return None if version is None else str(version)
    except Exception:  # Whoever needs the rest of the file finds out what is wrong with it.
        return None


def is_of_keras_2(path: Path) -> bool:
    """Whether the file records that Keras 2 wrote it; False where that cannot be read."""
    return str(keras_version(path)).startswith(("1.", "2."))


def _keras_config(path: Path) -> dict[str, Any]:
    """What the archive contains of the model."""
    check_members(path)
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        weights = [name for name in _WEIGHTS if name in names]
        if "config.json" not in names or not weights:
            raise ValueError("it has no config.json or no model.weights.h5")
        # HDF5 seeks, and goes through a compressed member again and again: first the rest.
        content = read_json(archive, "config.json")
        if "metadata.json" in names:
            check_json_member(archive, "metadata.json")
        if weights[0].endswith(".h5"):
            with archive.open(weights[0]) as file:
                # Both the archive and HDF5 compress: what counts is the file.
                _check_hdf5(file, path.stat().st_size)
        return content


def _hdf5_config(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        _check_hdf5(file, path.stat().st_size)
    text = _hdf5_attribute(path, "model_config")
    if text is None:
        raise ConfigError(
            "it has weights but no model: it was written by save_weights",
            "",
            f"build the model in code, call model.load_weights({path.name!r}), then "
            "model.save('model.keras'), and pass that file",
        )
    return json.loads(text)


def _hdf5_attribute(path: Path, name: str) -> str | None:
    """A text that describes the model; None if there is none."""
    import h5py

    with h5py.File(path, "r") as file:
        if name not in file.attrs:
            return None
        value = file.attrs[name]
    check_json_size(f"its {name}", len(value))
    return value.decode() if isinstance(value, bytes) else value


def _check_hdf5(file: Any, stored: int) -> None:
    """Refuse datasets that declare far more than is stored or that lie in other files."""
    import h5py

    declared = 0

    # h5py loses exceptions on the way through the C library; what is returned ends the visit.
    def link_elsewhere(name: str, link: Any) -> str | None:
        return None if isinstance(link, h5py.HardLink) else f"its {name!r} is a link"

    def dataset_elsewhere(name: str, item: Any) -> str | None:
        nonlocal declared
        if not isinstance(item, h5py.Dataset):
            return None
        declared += item.nbytes
        if item.dtype.hasobject:
            return f"its {name!r} holds values of any size"
        return f"its {name!r} is in another file" if item.external or item.is_virtual else None

    with h5py.File(file, "r") as opened:
        found = opened.visititems_links(link_elsewhere) or opened.visititems(dataset_elsewhere)
    if found:
        raise ValueError(found)
    check_expansion("its weights", declared, stored)
