"""The documentation: its links lead somewhere, and every public name has a page."""

import importlib
import re
import subprocess
import sys
import types
import zlib
from pathlib import Path

import pytest

import keras_kd

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(
    path
    for path in [
        *ROOT.glob("*.md"),
        *DOCS.rglob("*.md"),
        *(ROOT / "examples").glob("*.md"),
        ROOT / "examples" / "web" / "README.md",
        *(ROOT / "tflite_models").rglob("*.md"),
    ]
)
LINK = re.compile(r"\[[^\]]+\]\((?!\w+:)([^)#\s]*)(?:#([^)\s]*))?\)")
CODE = re.compile(r"^```.*?^```$|`[^`\n]*`", re.S | re.M)


def anchors(path):
    """The anchors of the headings of a page, as GitHub and MkDocs make them."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.S | re.M)
    titles = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links(page):
    text = CODE.sub("", page.read_text(encoding="utf-8"))
    for path, anchor in LINK.findall(text):
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name} links to {path}, which does not exist"
        if anchor:
            assert anchor in anchors(target), f"{target.name} has no heading #{anchor}"


def public_modules(module=keras_kd, name="keras_kd"):
    """The public modules by their public names: what `__all__` lists, and what these list."""
    found = {name: module}
    for public in getattr(module, "__all__", []):
        value = getattr(module, public)
        if isinstance(value, types.ModuleType):
            found |= public_modules(value, f"{name}.{public}")
    return found


def test_every_public_module_has_a_page():
    described = {
        name: path
        for path in (DOCS / "api").glob("*.md")
        for name in re.findall(r"^::: ([\w.]+)$", path.read_text(encoding="utf-8"), re.M)
    }
    for name in public_modules():
        covered = [one for one in described if f"{one}.".startswith(f"{name}.")]
        assert covered, f"docs/api has no page with ::: {name}"
    for name in described:
        parent, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(parent), attribute)


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    for path in DOCS.rglob("*.md"):
        assert f" {path.relative_to(DOCS).as_posix()}\n" in navigation


@pytest.mark.slow
def test_the_site(tmp_path):
    """It builds without a warning, asks no other host, and describes every public name."""
    pytest.importorskip("mkdocstrings")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    inventory = (tmp_path / "objects.inv").read_bytes().split(b"\n", 4)[4]
    names = {line.split()[0] for line in zlib.decompress(inventory).decode().splitlines() if line}
    public = {
        f"{name}.{one}": getattr(module, one)
        for name, module in public_modules().items()
        for one in getattr(module, "__all__", [])
        if callable(getattr(module, one))
    }
    described = [value for name, value in public.items() if name in names]
    # Some have two public paths, such as keras_kd.Distiller; one page is enough.
    missing = [name for name, value in public.items() if value not in described]
    assert not missing, f"no page describes {missing}"
    for page in tmp_path.rglob("*.html"):
        loaded = re.findall(
            r"<(?:script|img|iframe)[^>]*\ssrc=\"?([^\s\">]+)"
            r"|<link[^>]*rel=\"?stylesheet[^>]*href=\"?([^\s\">]+)",
            page.read_text(encoding="utf-8"),
        )
        assert not [one for pair in loaded for one in pair if re.match(r"(\w+:)?//", one)]
