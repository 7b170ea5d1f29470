"""Who may import whom, what is public, and what `import keras_kd` must not cost."""

import ast
import graphlib
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

import keras_kd

PACKAGE = Path(keras_kd.__file__).parent

# From the ground up: a module imports only from rooms before its own.
ROOMS = [
    "_version",
    "_lazy",
    "_checks",
    "devices",
    "_limits",
    "_native",
    "_worker",
    "_replicas",
    "_backends",
    "_keras",
    "_graphs",
    "_attention",
    "_optimizers",
    "_fitting",
    "_translation",
    "_operations",
    "_distributions",
    "_probabilities",
    "_logits",
    "schedules",
    "_files",
    "_memory",
    "_archives",
    "_state_files",
    "_json",
    "_four_bits",
    "_tables",
    "_progress",
    "_model_files",
    "_examples",
    "metrics",
    "losses",
    "adapters",
    "_masks",
    "taps",
    "teachers",
    "distiller",
    "callbacks",
    "data",
    "sound",
    "_representative",
    "compression",
    "tflite",
    "evaluation",
    "search",
    "tuning",
    "quickstart",
    "cli",
    "__main__",
]
# They meet only where one call does it all.
APART = {"distiller", "compression", "tflite"}
# What takes models from one Keras to the other knows nothing of compression.
BRIDGE = "keras_kd.compression.bridge."
# From the ground up, as in docs/architecture.md; what one imports for annotations counts, too.
INSIDE = {
    "tflite": (
        "tensors",
        "contents",
        "runtimes",
        "streams",
        "student",
        "file",
        "verification",
        "model",
        "microcontroller",
        "android",
        "conversion",
    ),
}
LAZY = {
    "ai_edge_litert": {"tflite"},
    "ai_edge_quantizer": {"tflite"},
    "jinja2": {"evaluation"},
    "keras_tuner": {"search"},
    "matplotlib": {"evaluation"},
    "sklearn": {"data"},
    "tensorflow_datasets": {"data"},
    "tensorflow_model_optimization": {"compression"},
    "tf_keras": None,
    "tflite_micro": {"tflite"},
}


def modules():
    return {path.relative_to(PACKAGE): path for path in sorted(PACKAGE.rglob("*.py"))}


def room(relative):
    return relative.parts[0].removesuffix(".py")


def imported_names(path, relative, *, for_types=True):
    """The absolute name of everything that a module imports, also inside functions.

    Without `for_types` not what is imported for annotations alone.
    """
    package = ("keras_kd", *relative.parent.parts)
    nodes = [ast.parse(path.read_text(encoding="utf-8"))]
    while nodes:
        node = nodes.pop()
        is_for_types = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if for_types or not is_for_types:
            nodes += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield f"{module}.{alias.name}"


MODULES = modules()
INNER = {path: name for path, name in MODULES.items() if path != Path("__init__.py")}


@pytest.mark.parametrize("relative", INNER, ids=str)
def test_imports_point_downwards(relative):
    own = room(relative)
    assert own in ROOMS, f"{relative} is in a room that this test and the design do not know"
    for name in imported_names(INNER[relative], relative):
        parts = name.split(".")
        if parts[0] != "keras_kd" or len(parts) < 2:
            continue
        other = parts[1]
        if other == own or other not in ROOMS:
            continue
        assert ROOMS.index(other) < ROOMS.index(own), f"{relative} imports {name} from above"
        is_bridge = name.startswith(BRIDGE)
        assert is_bridge or not (own in APART and other in APART), f"{relative} imports {name}"


@pytest.mark.parametrize(
    "relative",
    [each for each in INNER if room(each) in INSIDE and each.name != "__init__.py"],
    ids=str,
)
def test_imports_inside_a_room_point_downwards(relative):
    order = INSIDE[room(relative)]
    own = order.index(relative.parts[1].removesuffix(".py"))
    for name in imported_names(INNER[relative], relative):
        parts = name.split(".")
        if parts[:2] == ["keras_kd", room(relative)] and parts[2] in order:
            assert order.index(parts[2]) <= own, f"{relative} imports {name} from above"


def test_no_imports_run_in_a_circle():
    """Of modules, also of one room, and also where the import is inside a function."""
    files = {module_name(relative): relative for relative in INNER}
    needed = {}
    for name, relative in files.items():
        imported = imported_names(INNER[relative], relative, for_types=False)
        found = (each if each in files else each.rpartition(".")[0] for each in imported)
        needed[name] = {each for each in found if each in files and each != name}
    # Raises, and names the circle.
    graphlib.TopologicalSorter(needed).prepare()


def module_name(relative):
    return ".".join(("keras_kd", *relative.with_suffix("").parts)).removesuffix(".__init__")


@pytest.mark.parametrize("relative", MODULES, ids=str)
def test_each_dependency_is_imported_in_its_room_only(relative):
    for name in imported_names(MODULES[relative], relative):
        rooms = LAZY.get(name.split(".")[0])
        assert rooms is None or room(relative) in rooms, f"{relative} imports {name}"


PUBLIC = [
    f"keras_kd.{name}" if name != "keras_kd" else name
    for name in ("keras_kd", *(room for room in ROOMS if not room.startswith("_")))
    if name == "keras_kd" or (PACKAGE / name).exists() or (PACKAGE / f"{name}.py").exists()
]


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_are_listed_and_documented(name):
    module = importlib.import_module(name)
    assert module.__doc__, f"{name} has no docstring"
    if not hasattr(module, "__path__"):
        return
    # Names in capitals first, then by the alphabet, as ruff sorts them.
    in_order = sorted(module.__all__, key=lambda public: (not public.isupper(), public))
    assert module.__all__ == in_order, f"__all__ of {name} is not sorted"
    assert len(set(module.__all__)) == len(module.__all__)
    for public in module.__all__:
        item = getattr(module, public)
        if public.startswith("__"):
            continue
        assert getattr(item, "__doc__", None), f"{name}.{public} has no docstring"
        if isinstance(item, type):
            for attribute, value in vars(item).items():
                if not attribute.startswith("_") and callable(value):
                    assert value.__doc__, f"{name}.{public}.{attribute} has no docstring"


IN_A_NEW_PROCESS = """
import json, os, sys
import keras
before = set(sys.modules)  # Keras itself imports matplotlib where it is installed
import {rooms}
imported = [name for name in {lazy!r} if name in sys.modules and name not in before]
from keras_kd import data
returned = str(type(data.load_sample()))
from keras_kd._model_files import load_model
for path in sys.argv[1:]:
    load_model(path)
loaded = "tf_keras" in sys.modules
import tensorflow, keras_kd.compression._tfmot
kept = [os.environ.get("TF_USE_LEGACY_KERAS"), tensorflow.keras.Model.__module__.split(".")[0]]
print(json.dumps([imported, returned, loaded, kept]))
"""


@pytest.fixture(scope="module")
def in_a_new_process(tmp_path_factory):
    """What happens in a process that has imported nothing; one, since TensorFlow takes seconds."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    paths = [tmp_path_factory.mktemp("models") / f"model{end}" for end in (".keras", ".h5")]
    for path in paths:
        model.save(path)
    rooms = ", ".join(name for name in PUBLIC if name != "keras_kd.__main__")
    script = IN_A_NEW_PROCESS.format(rooms=rooms, lazy=sorted(LAZY))
    # TF-MOT sets it when it is imported, and TensorFlow then imports tf_keras by itself.
    environment = {k: v for k, v in os.environ.items() if k != "TF_USE_LEGACY_KERAS"}
    result = subprocess.run(
        [sys.executable, "-c", script, *map(str, paths)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def test_importing_costs_no_more_than_keras(in_a_new_process):
    assert in_a_new_process[0] == []


def test_returned_objects_name_their_public_path(in_a_new_process):
    assert in_a_new_process[1] == "<class 'keras_kd.data.Splits'>"


def test_no_file_is_handed_to_tf_keras(in_a_new_process):
    """Its loader runs code; `load_model` does not import it."""
    assert in_a_new_process[2] is False


def test_tf_keras_stays_keras_3_beside_tf_mot(in_a_new_process):
    assert in_a_new_process[3] == [None, "keras"]
