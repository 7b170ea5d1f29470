"""The metadata of a file about its inputs and outputs, for any kind of model."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from keras_kd._checks import one_line
from keras_kd.tflite.contents import metadata_schema as schema
from keras_kd.tflite.contents.archive import DAMAGE, read_file
from keras_kd.tflite.contents.tables import TableReader

_MARK = "\N{BYTE ORDER MARK}"
# Each may lead through all of the metadata again.
_MOST_TENSORS = 64


@dataclass(frozen=True)
class Described:
    """The metadata, and the files behind the model.

    Attributes:
        class_names: by the name of an output what its numbers represent.
        normalization: by the name of an input (mean, std): the file takes (x - mean) / std, one
            number for all channels or one for each.
        files: the names of the files that are attached.
        error: why some of it could not be read; "" if all of it was.
    """

    class_names: dict[str, tuple[str, ...]]
    normalization: dict[str, tuple[tuple[float, ...], tuple[float, ...]]]
    files: tuple[str, ...]
    error: str = ""


def described(
    content: bytes, metadata: bytes | None, inputs: Sequence[str], outputs: Sequence[str]
) -> Described:
    """Read the metadata of inputs and outputs; damage goes to `error` and is not raised.

    Args:
        content: the bytes of the file.
        metadata: those that it keeps under `schema.ENTRY`; None if there are none.
        inputs: the names of its inputs, in the order of the file.
        outputs: those of its outputs, likewise.
    """
    class_names: dict[str, tuple[str, ...]] = {}
    normalization: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {}
    error = ""
    try:
        # That of the model comes first; others are bodies of its loops.
        for graph in _first_graph(metadata):
            for name, tensor in _by_name(inputs, graph, schema.Subgraph.INPUTS):
                options = options_of(tensor, schema.ProcessUnitOptions.NORMALIZATION)
                if options is not None:
                    normalization[name] = (
                        options.floats(schema.Normalization.MEAN),
                        options.floats(schema.Normalization.STD),
                    )
            for name, tensor in _by_name(outputs, graph, schema.Subgraph.OUTPUTS):
                found = _class_names(content, tensor)
                if found:
                    class_names[name] = found
    except ValueError as failure:
        error = one_line(failure)
    try:
        files = _attached(content)
    except DAMAGE as failure:
        files, error = (), error or f"the archive behind the model is damaged ({one_line(failure)})"
    return Described(class_names, normalization, files, error)


def options_of(tensor: TableReader, kind: schema.ProcessUnitOptions) -> TableReader | None:
    """The options of the first process unit of a kind; None if there is none.

    Args:
        tensor: the metadata of an input or an output.
        kind: of the unit.
    """
    for unit in tensor.tables(schema.Tensor.PROCESS_UNITS):
        if unit.number(schema.ProcessUnit.OPTIONS_TYPE, "<B") == kind:
            return unit.table(schema.ProcessUnit.OPTIONS)
    return None


def _first_graph(metadata: bytes | None) -> Iterator[TableReader]:
    if metadata is not None:
        root = TableReader.root(metadata, schema.FILE_IDENTIFIER)
        yield from islice(root.tables(schema.Model.SUBGRAPHS), 1)


def _by_name(
    names: Sequence[str], graph: TableReader, kind: schema.Subgraph
) -> Iterator[tuple[str, TableReader]]:
    return zip(names[:_MOST_TENSORS], graph.tables(kind), strict=False)


def _class_names(content: bytes, tensor: TableReader) -> tuple[str, ...]:
    """The first list of names of an output; others are translations."""
    for file in tensor.tables(schema.Tensor.FILES):
        if file.number(schema.AssociatedFile.TYPE, "<B") in schema.LISTS_OF_LABELS:
            stored = read_file(content, file.text(schema.AssociatedFile.NAME))
            text = stored.decode("utf-8", "replace").removeprefix(_MARK).rstrip()
            return tuple(line.strip(" \t\r") for line in text.split("\n")) if text else ()
    return ()


def _attached(content: bytes) -> tuple[str, ...]:
    file = io.BytesIO(content)
    if not zipfile.is_zipfile(file):
        return ()
    with zipfile.ZipFile(file) as archive:
        return tuple(archive.namelist())
