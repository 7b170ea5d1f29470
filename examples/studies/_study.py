"""What the studies share: options, jobs that survive a kill, results as JSON, pages in Markdown."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import resource
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, ClassVar

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

from keras_kd._files import replacing
from keras_kd._state_files import using
from keras_kd.callbacks import ResumeTraining
from keras_kd.data.named import load_arrays
from keras_kd.evaluation.machine import machine

PAGES = Path(__file__).resolve().parents[2] / "docs" / "studies"
Results = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Job:
    """One training or measurement, computed once.

    Attributes:
        name: its key in the results and the beginning of its files in the work directory.
        run: a function of a module, of the settings and of the results of `needs`; it returns what
            is kept as JSON.
        needs: the names of the jobs that come before it.
        arguments: what `run` gets besides.
    """

    name: str
    run: Callable[..., dict[str, Any]]
    needs: tuple[str, ...] = ()
    arguments: tuple = ()


@dataclass(frozen=True)
class StudySettings:
    """What the results of a study depend on, and where files are; a study adds its own.

    Each field but the first two is an option of the command line: `student_epochs` is
    `--student-epochs`, and a tuple takes several values.

    Attributes:
        DATA: the data directory in the command line on the page.
        DATA_HELP: what it is, for `--help`.
        data_dir: of the data.
        work_dir: of weights and results.
    """

    DATA: ClassVar[str] = "~/tensorflow_datasets"
    DATA_HELP: ClassVar[str] = "of TFDS (default: TFDS_DATA_DIR)"
    data_dir: Path | None
    work_dir: Path

    def described(self) -> dict[str, Any]:
        """Those that results depend on, in types of JSON."""
        values = {field.name: getattr(self, field.name) for field in own_fields(type(self))}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


def own_fields(settings: type[StudySettings]) -> list[dataclasses.Field]:
    """The fields that are options of one study; each has a default."""
    common = {field.name for field in dataclasses.fields(StudySettings)}
    return [field for field in dataclasses.fields(settings) if field.name not in common]


def option(field: str) -> str:
    """The option of the command line for a field of the settings."""
    return f"--{field.replace('_', '-')}"


def parser(description: str, name: str, settings: type[StudySettings]) -> argparse.ArgumentParser:
    """The options that every study has, then one for each of its own settings."""
    options = argparse.ArgumentParser(description=description.splitlines()[0])
    options.add_argument("--data-dir", type=Path, metavar="DIR", help=settings.DATA_HELP)
    options.add_argument(
        "--work-dir",
        type=Path,
        metavar="DIR",
        default=Path.home() / ".cache/keras_kd" / name,
        help="keeps weights and finished results (default: %(default)s)",
    )
    options.add_argument("--jobs", type=int, default=2, help="trainings at a time, a core each")
    options.add_argument("--pages", type=Path, default=PAGES, metavar="DIR", help="of the page")
    options.add_argument(
        "--page-only", action="store_true", help="write the page of what is finished, train nothing"
    )
    for field in own_fields(settings):
        several = isinstance(field.default, tuple)
        kind = type(field.default[0] if several else field.default)
        # The names of tasks and sizes are all in the default.
        choices = field.default if several and kind is str else None
        options.add_argument(
            option(field.name),
            type=kind,
            nargs="+" if several else None,
            choices=choices,
            default=field.default,
            metavar=None if choices else kind.__name__.upper(),
            help="default: %(default)s",
        )
    return options


def run_study(
    description: str,
    name: str,
    settings: type[StudySettings],
    jobs: Callable[[Any], Sequence[Job]],
    page: Callable[[Any, Path], Path],
    arguments: Sequence[str] | None = None,
) -> None:
    """The main function of a study: read the options, run the jobs, write the page.

    Args:
        description: of the study; its first line is for `--help`.
        name: of the work directory.
        settings: the class of its settings.
        jobs: from the settings to what is computed.
        page: from the settings and the directory of pages to the page.
        arguments: of the command line; None: those of this process.

    Raises:
        BlockingIOError: if another study is running in the work directory.
    """
    chosen = vars(parser(description, name, settings).parse_args(arguments))
    values = {field.name: chosen[field.name] for field in dataclasses.fields(settings)}
    made = settings(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
    if not chosen["page_only"]:
        with using(made.work_dir, "a study"):
            run_jobs(jobs(made), made, made.described(), made.work_dir, chosen["jobs"])
    print(page(made, chosen["pages"]))


def command(name: str, settings: type[StudySettings], kept: Mapping[str, Any]) -> str:
    """The command line of a study with these settings, of those that are not the default."""
    parts = [f"python examples/studies/{name}.py --data-dir {settings.DATA}"]
    for field in own_fields(settings):
        default = list(field.default) if isinstance(field.default, tuple) else field.default
        value = kept.get(field.name, default)
        if value != default:
            values = value if isinstance(value, list) else [value]
            parts += [option(field.name), *map(str, values)]
    return " ".join(parts)


def one_thread() -> None:
    """Make this process compute on one core; before TensorFlow does anything."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)


def read(work_dir: Path) -> dict[str, Any]:
    """What the work directory holds: the settings, and the results by the names of jobs."""
    path = work_dir / "results.json"
    if not path.exists():
        return {"settings": None, "jobs": {}}
    return json.loads(path.read_text(encoding="utf-8"))


def write_json(path: Path, content: Any) -> None:
    """Write a file of JSON that is whole or not there."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def run_jobs(
    jobs: Sequence[Job],
    settings: Any,
    description: dict[str, Any],
    work_dir: Path,
    processes: int,
) -> Results:
    """Run the jobs that are not finished, each when what it needs is, and keep every result.

    Args:
        jobs: in the order of their importance.
        settings: what each job gets.
        description: the settings that results depend on, for the file.
        work_dir: holds `results.json` and what the jobs write.
        processes: how many jobs run at a time, on one core each.

    Raises:
        SystemExit: if the work directory holds results of other settings.
        RuntimeError: if a job failed; what others finished is kept.
    """
    work_dir.mkdir(parents=True, exist_ok=True)
    kept = read(work_dir)
    if kept["settings"] not in (None, description):
        raise SystemExit(
            f"{work_dir} holds results of other settings: {kept['settings']}. "
            f"These are {description}. To fix it: pass another --work-dir"
        )
    finished: Results = kept["jobs"]
    waiting = [job for job in jobs if job.name not in finished]
    failures = []
    with ProcessPoolExecutor(processes, get_context("spawn"), one_thread) as pool:
        running = {}
        while waiting or running:
            for job in [job for job in waiting if all(need in finished for need in job.needs)]:
                if len(running) < processes:
                    waiting.remove(job)
                    needs = {need: finished[need] for need in job.needs}
                    running[pool.submit(_timed, job, settings, needs)] = job
            if not running:
                break
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                job = running.pop(future)
                if future.exception() is not None:
                    failures.append(f"{job.name}: {future.exception()!r}")
                    print(f"{job.name} failed: {future.exception()!r}", flush=True)
                    continue
                finished[job.name] = future.result()
                content = {"settings": description, "machine": machine(), "jobs": finished}
                write_json(work_dir / "results.json", content)
                print(
                    f"{len(finished)}/{len(jobs)} {job.name}: {short(finished[job.name])}",
                    flush=True,
                )
    if failures:
        raise RuntimeError("jobs failed: " + "; ".join(failures))
    return finished


def _timed(job: Job, settings: Any, needs: Results) -> dict[str, Any]:
    started, computed = time.time(), time.process_time()
    result = job.run(settings, needs, *job.arguments)
    return {
        **result,
        "seconds": round(time.time() - started, 1),
        "cpu_seconds": round(time.process_time() - computed, 1),
        # In KiB on Linux; of the process, which runs one job after the other.
        "peak_megabytes": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def short(result: dict[str, Any]) -> str:
    """The numbers of a result in one line."""
    return ", ".join(
        f"{key} {value:.5g}" for key, value in result.items() if isinstance(value, int | float)
    )


class Epochs(keras.utils.PyDataset):
    """Batches of arrays that are made anew in each epoch.

    Args:
        make: from the number of an epoch to its arrays, inputs and labels, in their order. It is a
            function of that number, so that a training that was interrupted sees what it would
            have seen. Inputs as bytes become float32 in 0..1, a batch at a time.
        batch_size: examples in a batch; what is left over at the end of an epoch is left out.
    """

    def __init__(self, make: Callable[[int], tuple], batch_size: int) -> None:
        super().__init__()
        self.make, self.batch_size, self.epoch = make, batch_size, 0
        self._made = (0, make(0))

    @property
    def arrays(self) -> tuple:
        """Those of this epoch, made when they are read: not of epochs that are done."""
        if self._made[0] != self.epoch:
            self._made = (self.epoch, self.make(self.epoch))
        return self._made[1]

    def __len__(self) -> int:
        return len(self._made[1][1]) // self.batch_size

    def __getitem__(self, index: int) -> tuple:
        chosen = slice(index * self.batch_size, (index + 1) * self.batch_size)
        inputs, labels = (array[chosen] for array in self.arrays)
        return (unit(inputs) if inputs.dtype == np.uint8 else inputs), labels

    def on_epoch_end(self) -> None:
        """Go on to the arrays of the next epoch."""
        self.epoch += 1


def unit(images: np.ndarray) -> np.ndarray:
    """Bytes as float32 in 0..1."""
    return images.astype("float32") / 255


def moved(images: np.ndarray, most: int, generator: np.random.Generator, mode: str) -> np.ndarray:
    """Each image moved at random by up to `most` pixels, right or left and up or down.

    Args:
        images: shape (images, height, width) or (images, height, width, channels).
        most: the largest distance in pixels.
        generator: draws the distances.
        mode: of `numpy.pad`, what comes in at the border: "constant" (black) or "reflect".
    """
    margins = [(0, 0), (most, most), (most, most), *[(0, 0)] * (images.ndim - 3)]
    windows = np.lib.stride_tricks.sliding_window_view(
        np.pad(images, margins, mode), images.shape[1:3], axis=(1, 2)
    )
    down, right = generator.integers(0, 2 * most + 1, (2, len(images)))
    chosen = windows[np.arange(len(images)), down, right]
    # The window's axes come last, behind channels.
    return chosen if images.ndim == 3 else np.moveaxis(chosen, 1, -1)


def loaded(name: str, data_dir: Path | None, work_dir: Path) -> tuple[np.ndarray, ...]:
    """A data set of TFDS as bytes: training images and labels, test images and labels.

    Decoding takes seconds; the arrays are kept in the work directory for the other jobs.
    """
    path = work_dir / f"{name}.npz"
    if not path.exists():
        (x, y), (x_test, y_test) = load_arrays(name, data_dir)
        with replacing(path) as temporary:
            np.savez(temporary, x=x, y=y, x_test=x_test, y_test=y_test)
    with np.load(path) as kept:
        return kept["x"], kept["y"], kept["x_test"], kept["y_test"]


def fit(trainer: Any, data: Any, epochs: int, path: Path) -> None:
    """Train from where an earlier run stopped.

    Args:
        trainer: a compiled model or Distiller.
        data: what `fit` takes as data.
        epochs: the number of epochs of the whole training.
        path: of the trained model, beside which the training is kept until `keep` has saved it.
    """
    resume = ResumeTraining(_training(path))
    resume.fit(trainer, data, epochs=epochs, shuffle=False, verbose=0)


def keep(model: keras.Model, path: Path) -> None:
    """Save a trained model; what is kept of its training goes."""
    with replacing(path) as temporary:
        model.save(temporary)
    shutil.rmtree(_training(path), ignore_errors=True)


def _training(path: Path) -> Path:
    return path.with_suffix(".training")


def decaying(learning_rate: float, epochs: int, examples: int, batch_size: int) -> Any:
    """Adam with a learning rate that falls to 0 by a cosine, so that the last steps average."""
    steps = max(1, epochs * (examples // batch_size))
    return keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(learning_rate, steps))


def mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    """The mean of values and its standard error; None of a single value."""
    error = float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
    return float(np.mean(values)), error


def with_error(values: Sequence[float], digits: int, sign: str = "") -> str:
    """The mean of values, with its standard error if there are several; "+" shows both signs."""
    mean, error = mean_and_error(values)
    return f"{mean:{sign}.{digits}f}" + (f" ± {error:.{digits}f}" if error is not None else "")


def percent(values: Sequence[float], sign: str = "") -> str:
    """The same of shares, in percent."""
    return with_error([100 * value for value in values], 2, sign)


def table(headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table in Markdown; numbers stand to the right."""
    lines = [headings, ["---", *["---:"] * (len(headings) - 1)], *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def save_plot(draw: Callable[[Any], None], path: Path, height: float = 3.6) -> None:
    """Run `draw` on a figure and write it as SVG, on white, so that it reads on any page."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, height), layout="constrained", facecolor="white")
    draw(figure)
    # The same figure is the same file.
    with replacing(path) as temporary, rc_context({"svg.hashsalt": path.name}):
        figure.savefig(temporary, format="svg", metadata={"Date": None})


def write_page(
    pages: Path,
    name: str,
    sections: Sequence[str],
    results: dict[str, Any],
    command: str,
) -> Path:
    """Write `NAME.md`, with what ran where, and `NAME.json`, from the results of a work directory.

    Args:
        pages: the directory.
        name: of the two files.
        sections: the text of the page, tables included.
        results: what `read` returns.
        command: reproduces the page.
    """
    kept_on = results.get("machine") or machine()
    results = {**results, "machine": kept_on, "command": command}
    packages = ", ".join(f"{key} {value}" for key, value in kept_on["packages"].items())
    hardware = f"{kept_on['processor']}, {kept_on['cores']} cores, {kept_on['system']}"
    jobs = results["jobs"].values()
    cpu = sum(job.get("cpu_seconds", 0) for job in jobs)
    peak = max((job.get("peak_megabytes", 0) for job in jobs), default=0)
    made = "\n\n".join(
        [
            "## How it was made",
            f"```bash\n{command}\n```",
            f"{cpu / 3600:.1f} hours of CPU time in {len(jobs)} jobs of one thread each, with at "
            f"most {peak:,} MiB of memory in a process, on {hardware}; Python {kept_on['python']}, "
            f"{packages}. An interrupted command resumes where it stopped. Every figure is in "
            f"[{name}.json]({name}.json).",
            "Settings: "
            + ", ".join(f"{key} {value}" for key, value in results["settings"].items())
            + ".",
        ]
    )
    write_json(pages / f"{name}.json", results)
    with replacing(pages / f"{name}.md") as temporary:
        temporary.write_text("\n\n".join([*sections, made]) + "\n", encoding="utf-8")
    return pages / f"{name}.md"
