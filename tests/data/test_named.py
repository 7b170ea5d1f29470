import json
import shutil
import sys

import numpy as np
import pytest

from keras_kd import data
from keras_kd.data.make_sample import balanced_subset, make_sample
from keras_kd.data.named import load_named_images

tfds = pytest.importorskip("tensorflow_datasets", reason="needs the `examples` extra")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """A small data set in the form and under the name of TFDS' mnist."""
    directory = tmp_path_factory.mktemp("tfds")
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(28, 28, 1)),
            "label": tfds.features.ClassLabel(num_classes=10),
        }
    )
    examples = [
        (index, {"image": np.full((28, 28, 1), index, "uint8"), "label": index % 10})
        for index in range(40)
    ]
    tfds.dataset_builders.store_as_tfds_dataset(
        name="mnist",
        version="3.0.1",
        features=features,
        split_datasets={"train": examples[:30], "test": examples[30:]},
        data_dir=directory,
    )
    return directory


def test_load_gives_images_in_0_to_1_with_their_labels(data_dir):
    dataset = data.load("mnist", data_dir)
    assert dataset.x_train.shape == (30, 28, 28, 1)
    assert dataset.x_test.shape == (10, 28, 28, 1)
    assert dataset.x_train.dtype == np.float32
    np.testing.assert_array_equal(np.rint(dataset.x_train[:, 0, 0, 0] * 255) % 10, dataset.y_train)
    assert dataset.class_names == tuple("0123456789")
    assert dataset.name == "mnist"


def test_the_environment_names_the_directory_where_no_argument_does(data_dir, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(data_dir))
    assert len(data.load("mnist").x_test) == 10


def test_unknown_name():
    with pytest.raises(ValueError, match=r"Received name='imagenet'\. Expected one of 'mnist'"):
        data.load("imagenet")


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir()])
def test_a_directory_without_the_data_set(tmp_path, make):
    directory = tmp_path / "nothing"
    make(directory)
    with pytest.raises(FileNotFoundError, match=r"does not hold 'mnist'.*tfds build mnist"):
        data.load("mnist", directory)
    assert not (directory / "mnist").exists()


def test_damaged_examples(data_dir, tmp_path):
    damaged = shutil.copytree(data_dir, tmp_path / "damaged")
    for records in damaged.glob("mnist/*/*train*tfrecord*"):
        records.write_bytes(records.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"files of 'mnist' in .* that cannot be read"):
        data.load("mnist", damaged)


def test_damaged_description(data_dir, tmp_path):
    damaged = shutil.copytree(data_dir, tmp_path / "damaged")
    for description in damaged.glob("mnist/*/dataset_info.json"):
        description.write_text("{")
    with pytest.raises(ValueError, match=r"files of 'mnist' in .* that cannot be read"):
        data.load("mnist", damaged)


def test_a_balanced_subset_is_a_function_of_the_seed():
    labels = np.repeat([3, 5], [40, 60])
    images = np.arange(100).reshape(100, 1)
    first = balanced_subset(images, labels, 10, np.random.default_rng(0))
    again = balanced_subset(images, labels, 10, np.random.default_rng(0))
    other = balanced_subset(images, labels, 10, np.random.default_rng(1))
    np.testing.assert_array_equal(first[0], again[0])
    assert not np.array_equal(first[0], other[0])
    np.testing.assert_array_equal(np.bincount(first[1])[[3, 5]], [10, 10])
    np.testing.assert_array_equal(labels[first[0][:, 0]], first[1])


def test_too_small_a_data_set_gives_no_sample(data_dir, tmp_path):
    with pytest.raises(ValueError, match="larger sample than population"):
        make_sample(data_dir, tmp_path / "sample.npz")
    assert not any(tmp_path.iterdir())


IMAGE = {"pythonClassName": "tensorflow_datasets.core.features.image_feature.Image"}
EVIL = "evil_features.Feature"


def of_other_name(data_dir, tmp_path):
    """A copy under a name that TFDS has no code for, so that its files say what is in it."""
    copy = shutil.copytree(data_dir / "mnist", tmp_path / "tfds" / "mine")
    for description in copy.glob("*/dataset_info.json"):
        description.write_text(description.read_text().replace("mnist", "mine"))
    for records in copy.glob("*/mnist*"):
        records.rename(records.with_name(records.name.replace("mnist", "mine")))
    return tmp_path / "tfds"


def changed(directory, name, change):
    for description in directory.glob(f"*/*/{name}"):
        content = json.loads(description.read_text())
        description.write_text(json.dumps(change(content) or content))


@pytest.fixture
def evil(tmp_path, monkeypatch):
    """A module that says that it was imported."""
    (tmp_path / "evil_features.py").write_text("open(__file__ + '.proof', 'w').close()")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    assert not list(tmp_path.glob("*.proof"))
    assert "evil_features" not in sys.modules


def test_a_data_set_that_tfds_has_no_code_for(data_dir, tmp_path, evil):
    directory = of_other_name(data_dir, tmp_path)
    changed(directory, "dataset_info.json", lambda info: info.update(moduleName="evil_features"))
    images = load_named_images("mine:test", (28, 28, 1), 3, directory)
    assert images.shape == (3, 28, 28, 1)
    assert len(set(images.reshape(-1)) & set(range(30, 40))) == 3


FEATURES = {
    "at the top": lambda content: content.update(pythonClassName=EVIL),
    "in another spelling": lambda content: content.update(python_class_name=EVIL),
    "in JSON of a feature": lambda content: content.update(
        jsonFeature={"json": json.dumps({"x": {"type": EVIL, "content": {}}})}
    ),
    "in JSON of a feature, in another spelling": lambda content: content.update(
        json_feature={"json": " " + json.dumps([{"type": EVIL}])}
    ),
    "a file in JSON of a feature": lambda content: content.update(
        jsonFeature={"json": json.dumps({"type": "ClassLabel", "content": {"names_file": "/x"}})}
    ),
    "nested": lambda content: content["featuresDict"]["features"].update(
        more={"sequence": {"feature": {**IMAGE, "pythonClassName": EVIL}}}
    ),
    "in the form of old versions": lambda content: {"type": EVIL, "content": {}},
    "in a text": lambda content: {
        "type": content["pythonClassName"],
        "proto_cls": "tensorflow_datasets.FeaturesDict",
        "content": json.dumps({"features": {"x": {"pythonClassName": EVIL}}}),
    },
    "a test of TFDS": lambda content: content.update(
        pythonClassName="tensorflow_datasets.core.features.features_test.AnInputConnector"
    ),
    "labels of a file": lambda content: {
        "type": "tensorflow_datasets.core.features.features_dict.FeaturesDict",
        "content": {
            "label": {
                "type": "tensorflow_datasets.core.features.class_label_feature.ClassLabel",
                "content": {"names_file": "/etc/passwd"},
            }
        },
    },
}


@pytest.mark.parametrize("change", FEATURES.values(), ids=FEATURES.keys())
@pytest.mark.parametrize("name", ["mine", "mnist"])
def test_features_of_other_packages_are_not_imported(change, name, data_dir, tmp_path, evil):
    directory = of_other_name(data_dir, tmp_path)
    (directory / "mine").rename(directory / name)
    changed(directory, "features.json", change)
    with pytest.raises(
        ValueError, match=r"features.json names the (class|file) '.*pass its images"
    ):
        load_named_images(name, (28, 28, 1), 3, directory)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("filepathTemplate", "../../../elsewhere"),
        ("filepath_template", "/etc/passwd"),
        ("filepathTemplate", "{DATASET:>9999999999}"),
        ("filepathTemplate", "{SPLIT.__class__}"),
        ("name", ".."),
    ],
)
def test_files_elsewhere_are_not_read(key, value, data_dir, tmp_path):
    directory = of_other_name(data_dir, tmp_path)

    def point(info):
        for split in info["splits"]:
            split.pop("filepathTemplate", None)
            split[key] = value

    changed(directory, "dataset_info.json", point)
    with pytest.raises(ValueError, match=r"dataset_info.json names the file "):
        load_named_images("mine", (28, 28, 1), 3, directory)


def test_a_directory_that_is_a_link_is_checked_too(data_dir, tmp_path, evil):
    directory = of_other_name(data_dir, tmp_path)
    changed(directory, "features.json", lambda content: content.update(pythonClassName=EVIL))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine").symlink_to(directory / "mine")
    with pytest.raises(ValueError, match=r"features.json names the class 'evil_features.Feature'"):
        load_named_images("mine", (28, 28, 1), 3, tmp_path / "other")
