"""The families of compression: a row for each, with all facts that the rest of the package needs.

To add one, add a row here, export its function from `keras_kd.compression`, and add a case to
`tests/compression/test_contract.py`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from keras_kd._checks import problem
from keras_kd.compression.bridge.graph import Graph


@dataclass(frozen=True, eq=False)
class Family:
    """One way to compress a student.

    Modules are named and not imported: those of wrappers import TF-MOT, which takes seconds.

    Attributes:
        name: its public function, and the kind of a `Step`.
        module: the module of that function, below `keras_kd.compression`.
        state: what its result is called in messages; None if the result is a plain model.
        marks: the classes of TF-MOT whose layers its result contains, and ours with these bases.
        wrapper: the module with these layers: registered for loading, and with a function
            `dismantle`, which gives the plain layers inside one of them or None.
        prepare_loaded: the module with a function `set_callbacks` that a loaded student needs.
        takes: the states of students that it accepts, besides plain ones.
        fix: what to do with another student.
        needs_training: whether it changes weights only while the student trains.
        stays: whether a pipeline passes its result on as it is; otherwise it strips it.
        undoes: the earlier families whose result it would destroy, and why.
        is_final: why no other family may follow; None if others may.
        result: the attribute of a `Stage` that later steps must not make worse.
    """

    name: str
    module: str
    state: str | None = None
    marks: tuple[str, ...] = ()
    wrapper: str | None = None
    prepare_loaded: str | None = None
    takes: tuple[str, ...] = ()
    fix: str = "call `strip` first"
    needs_training: bool = False
    stays: bool = False
    undoes: Mapping[str, str] = field(default_factory=dict)
    is_final: str | None = None
    result: str | None = None

    @property
    def function(self) -> Any:
        """The public function."""
        return getattr(_imported(self.module), self.name)


_DISSOLVES = "the training that follows moves each weight on its own, and {} would be lost"

# In the order in which a pipeline loses nothing.
FAMILIES = (
    Family(
        name="factorize",
        module="factorization.truncation",
        fix="call `strip` first; in a new training, factorize before pruning, clustering and"
        " quantization-aware training",
        undoes={
            "prune": "the factors of a sparse kernel are dense: its zeros would be lost",
            "cluster": "the factors of a clustered kernel have as many values as any other",
        },
    ),
    Family(
        name="remove_filters",
        module="pruning.filters",
        takes=("pruned",),
        undoes={
            "prune": _DISSOLVES.format("the zeros"),
            "cluster": _DISSOLVES.format("the clusters"),
        },
    ),
    Family(
        name="prune",
        module="pruning.magnitude",
        state="pruned",
        marks=("PruneLowMagnitude",),
        wrapper="pruning._wrapper",
        prepare_loaded="pruning._wrapper",
        fix="call `strip` first, and prune before `cluster` and `quantize_aware`",
        needs_training=True,
        undoes={"cluster": _DISSOLVES.format("the clusters")},
        result="sparsity",
    ),
    Family(
        name="cluster",
        module="clustering.sharing",
        state="clustered",
        marks=("ClusterWeights",),
        wrapper="clustering._wrapper",
        takes=("pruned",),
        fix="call `strip` first, and cluster before `quantize_aware`",
        result="distinct_values",
    ),
    Family(
        name="quantize_aware",
        module="quantization.training",
        state="quantization-aware",
        marks=("QuantizeLayer", "QuantizeWrapper"),
        wrapper="quantization._wrapper",
        takes=("pruned", "clustered"),
        fix="train this one, or call `strip` on it first",
        stays=True,
        is_final="the rounding of quantization-aware training is learned for the weights and layers"
        " as they are",
    ),
)
BY_NAME: Mapping[str, Family] = {family.name: family for family in FAMILIES}


def family_of(layer: Any) -> Family | None:
    """The family whose layer this is; None for a plain layer."""
    names = {base.__name__ for base in type(layer).__mro__}
    return next((family for family in FAMILIES if names.intersection(family.marks)), None)


def check_state(graph: Graph, name: str) -> None:
    """Check that a student is plain or in a state that the family of this name accepts.

    Raises:
        ValueError: if it is not; the message names the layer.
    """
    family = BY_NAME[name]
    for layer in graph.layers():
        found = family_of(layer)
        if found is not None and found.state not in family.takes:
            raise problem(
                f"a student that is {found.state} already (layer {layer.name!r})",
                " or ".join(["a plain student", *(f"a {state} one" for state in family.takes)]),
                family.fix,
            )


def wrapper_modules() -> list[ModuleType]:
    """The modules with the layers of all families. Importing them imports TF-MOT."""
    return [_imported(family.wrapper) for family in FAMILIES if family.wrapper is not None]


def prepare_loaded(student: Any) -> None:
    """Give a student that was read from a file what it needs besides its layers."""
    for family in FAMILIES:
        if family.prepare_loaded is not None:
            _imported(family.prepare_loaded).set_callbacks(student)


def _imported(module: str) -> ModuleType:
    return importlib.import_module(f"keras_kd.compression.{module}")
