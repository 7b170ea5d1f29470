from pathlib import Path

import numpy as np
import pytest

import keras_kd

STUDIES = Path(__file__).parents[3] / "examples" / "studies"


@pytest.fixture(scope="session", autouse=True)
def importable():
    """The scripts import what they share by its name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(STUDIES)
        yield


@pytest.fixture(scope="session")
def keep_digits():
    """Put the bundled digits where a study keeps the data set that it has read."""

    def keep(work_dir, name="mnist"):
        sample = keras_kd.data.load_sample()
        x, x_test = (
            np.round(255 * images).astype("uint8") for images in (sample.x_train, sample.x_test)
        )
        work_dir.mkdir(parents=True, exist_ok=True)
        np.savez(
            work_dir / f"{name}.npz", x=x, y=sample.y_train, x_test=x_test, y_test=sample.y_test
        )

    return keep


@pytest.fixture(scope="session")
def finished():
    """Run the jobs of a study here, in their order, and keep their results."""

    def run(jobs, settings, description):
        import _study

        results = {}
        for job in jobs:
            needs = {need: results[need] for need in job.needs}
            results[job.name] = job.run(settings, needs, *job.arguments)
        content = {"settings": description, "jobs": results}
        _study.write_json(settings.work_dir / "results.json", content)
        return results

    return run
