"""Who may import whom, what is public, and what `import keras_kd` must not cost."""

import ast
import graphlib
import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import pytest

import keras_kd

PACKAGE = Path(keras_kd.__file__).parent

DOCS = PACKAGE.parent / "docs"


def rows_of(page, title):
    """The modules of each row of the first table behind a heading, without `.py` and `/`."""
    _, _, text = (DOCS / page).read_text(encoding="utf-8").partition(f"\n## {title}\n")
    _, _, table = text.partition("\n| module | content |\n|---|---|\n")
    first_cells = [line.split("|")[1] for line in table.partition("\n\n")[0].splitlines()]
    return [
        [name.removesuffix(".py").removesuffix("/") for name in re.findall("`([^`]+)`", cell)]
        for cell in first_cells
    ]


# From the ground up: a module imports only from rooms before its own.
ROOMS = [name for row in rows_of("architecture.md", "Layers") for name in row]
# They meet only where one call does it all.
APART = {"distiller", "compression", "tflite"}
# What takes models from one Keras to the other does not depend on compression.
BRIDGE = "keras_kd.compression.bridge."
# Of the large packages: the position of each module in its table, from the ground up.
INSIDE = {
    title: {name: number for number, row in enumerate(rows_of("modules.md", title)) for name in row}
    for title in ("distiller", "callbacks", "compression", "tflite", "teachers/stored", "search")
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
    assert own in ROOMS, f"{relative} is in no row of docs/architecture.md"
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


@pytest.mark.parametrize("package", INSIDE)
def test_imports_inside_a_package_point_downwards(package):
    """Also those for annotations; modules of one row may import each other."""
    order, prefix = INSIDE[package], f"keras_kd.{package.replace('/', '.')}."
    paths = [path for path in INNER if path.is_relative_to(package) and path.name != "__init__.py"]
    owners = {path: path.relative_to(package).parts[0].removesuffix(".py") for path in paths}
    assert sorted(order) == sorted(set(owners.values())), "docs/modules.md lists other modules"
    for path, own in owners.items():
        for name in imported_names(INNER[path], path):
            other = name.removeprefix(prefix).split(".")[0]
            if name.startswith(prefix) and other in order:
                assert order[other] <= order[own], f"{path} imports {name} from above"


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
