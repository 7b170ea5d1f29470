"""What MkDocs and Griffe need to know about this repository.

In the repository all links are relative to their own file. On the site README.md is the home page,
and some other files are pages beside those of docs/: their links, and links to them, are rewritten.
A link to a file that is no page becomes plain text.
"""

import posixpath
import re
from pathlib import Path

import griffe
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
# Files of the repository, and the names of their pages.
ADDED = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "examples/README.md": "examples.md",
    "tflite_models/README.md": "models.md",
}
LINK = re.compile(r"\[([^\]]+)\]\((?!\w+:)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files, config):
    """Add the files of `ADDED`."""
    for source, page in ADDED.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Write each link to a file of the repository as one to its page."""
    origin = {name: path for path, name in ADDED.items()}
    folder = posixpath.dirname(origin.get(page.file.src_uri, f"docs/{page.file.src_uri}"))

    def rewritten(match):
        text, path, anchor = match.groups()
        target = posixpath.normpath(posixpath.join(folder, path))
        name = ADDED.get(target, target.removeprefix("docs/"))
        if files.get_file_from_path(name) is None and (ROOT / target).exists():
            return text
        start = posixpath.dirname(page.file.src_uri) or "."
        return f"[{text}]({posixpath.relpath(name, start)}{anchor or ''})"

    return LINK.sub(rewritten, markdown)


class Docstrings(griffe.Extension):
    """The project's docstrings as Griffe reads them, and methods described where they begin."""

    def on_object(self, *, obj, **_):
        """Make `Example:` the section of examples, which Griffe calls `Examples:`."""
        if obj.docstring:
            obj.docstring.value = re.sub(r"(?m)^Example:$", "Examples:", obj.docstring.value)

    def on_package(self, *, pkg, **_):
        """Leave out methods that override one of a base class, which has its description.

        A public function that shares its name with its module, such as `evaluation.compare`, takes
        the module's place, as it does for whoever imports it.
        """
        for module in list(_modules(pkg)):
            for name in module.exports or ():
                inner = module.members.get(name)
                if isinstance(inner, griffe.Module):
                    function = inner.members.get(name)
                    if isinstance(function, griffe.Function):
                        module.members[name] = griffe.Alias(name, function, parent=module)
            for cls in module.classes.values():
                if cls.is_alias:
                    continue
                for name in list(cls.members):
                    overrides = any(name in base.members for base in cls.mro())
                    if overrides and not name.startswith("__"):
                        del cls.members[name]


def _modules(module):
    yield module
    for inner in module.modules.values():
        if not inner.is_alias:
            yield from _modules(inner)
