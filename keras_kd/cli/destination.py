"""The output of a conversion: a file, or a directory with the files that belong to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_kd._checks import problem
from keras_kd._files import check_output, filling

if TYPE_CHECKING:
    from keras_kd.tflite import TFLiteModel

_SUFFIX = ".tflite"
LABELS_FILE = "labels.txt"
VOCABULARY_FILE = "vocab.txt"


@dataclass(frozen=True)
class Destination:
    """Where a converted model goes.

    Attributes:
        path: a file or a directory.
        file_name: what the model is called in a directory.
        is_file: whether `path` is a file.
        is_project: whether source for a microcontroller belongs to it.
    """

    path: Path
    file_name: str
    is_file: bool
    is_project: bool

    @classmethod
    def of(cls, model: Path, output: Path | None, target: str) -> Destination:
        """What `--output` means for a model.

        Raises:
            ValueError: for names that would replace the model or the data by what is
                made of them.
        """
        file_name = f"{model.resolve().stem}{_SUFFIX}"
        is_project = target == "microcontroller"
        if output is None:
            return cls(model.resolve().parent / file_name, file_name, True, is_project)
        # A project has its own directory, which need not exist yet.
        if output.is_dir() or (is_project and not output.suffix and not output.exists()):
            check_output(output)
            return cls(output, file_name, False, is_project)
        if output.suffix != _SUFFIX:
            raise problem(
                f"--output {str(output)!r}",
                f"a file that ends in {_SUFFIX}, or a directory that is there",
                f"add {_SUFFIX}, or make the directory first: mkdir -p {output}",
            )
        if output.parent.exists() and not output.parent.is_dir():
            raise problem(
                f"--output {str(output)!r}, but {output.parent} is a file",
                "a file in a directory",
                "choose another name",
            )
        return cls(output, file_name, True, is_project)

    def write(
        self,
        model: TFLiteModel,
        class_names: Sequence[str],
        examples: Any,
        name: str | None = None,
        words: Sequence[str] = (),
    ) -> list[Path]:
        """Write the model, and into a directory what belongs to it; all of it or nothing.

        Args:
            model: what is written.
            class_names: the name of each class, or nothing.
            examples: arrays from which a project gets its test vectors; None: random ones.
            name: what the files and variables of a project are named after.
            words: the vocabulary of a model of text, or nothing.

        Returns:
            The files.
        """
        from keras_kd.tflite import microcontroller

        if self.is_file:
            return [model.save(self.path)]
        with filling(self.path) as directory:
            if self.is_project:
                microcontroller.write_project(
                    model, directory, name or "model", x=examples, class_names=class_names or None
                )
            model.save(directory / self.file_name)
            if class_names:
                text = "".join(f"{name}\n" for name in class_names)
                (directory / LABELS_FILE).write_text(text, encoding="utf-8")
            if words:
                text = "".join(f"{word} {number}\n" for number, word in enumerate(words))
                (directory / VOCABULARY_FILE).write_text(text, encoding="utf-8")
            written = [path.relative_to(directory) for path in directory.rglob("*")]
            files = [path for path in written if (directory / path).is_file()]
        return sorted(self.path / path for path in files)
