"""Run files in MediaPipe's tasks, as a phone does, and read and write metadata with its own schema.
It runs in an environment of its own, where neither TensorFlow nor keras_kd is.

Argument: a directory with `images.npy`, shaped (images, height, width, 3), `recordings.npy`, shaped
(recordings, samples), and `*.tflite` files: `audio_*` for the AudioClassifier, `segments_*` for the
ImageSegmenter, others for the ImageClassifier. Writes for each file a `.json` with scores by class
index, labels by class index and the name of the output, or with the error; for segments a `.npy`
with the scores, shaped (images, height, width, classes); for `metadata.bin` what is in it to
`metadata.json`; and what MediaPipe's own classes write to `independent.bin`.
"""

import json
import sys
from pathlib import Path

import flatbuffers
import mediapipe
import numpy as np
from mediapipe.tasks.metadata import metadata_schema_py_generated as schema
from mediapipe.tasks.python.audio import AudioClassifier, AudioClassifierOptions
from mediapipe.tasks.python.components.containers import AudioData
from mediapipe.tasks.python.core.base_options import BaseOptions
from mediapipe.tasks.python.vision import (
    ImageClassifier,
    ImageClassifierOptions,
    ImageSegmenter,
    ImageSegmenterOptions,
)

SAMPLE_RATE = 16000


def classify(path, images):
    """What the classifier says of each image."""
    options = ImageClassifierOptions(base_options=BaseOptions(model_asset_path=str(path)))
    labels, scores = {}, []
    with ImageClassifier.create_from_options(options) as classifier:
        for image in images:
            image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=image)
            (head,) = classifier.classify(image).classifications
            labels.update({category.index: category.category_name for category in head.categories})
            scores.append({category.index: category.score for category in head.categories})
    return {"scores": scores, "labels": labels, "output": head.head_name}


def hear(path, recordings):
    """What the audio classifier says of each recording."""
    options = AudioClassifierOptions(base_options=BaseOptions(model_asset_path=str(path)))
    labels, scores = {}, []
    with AudioClassifier.create_from_options(options) as classifier:
        for recording in recordings:
            clip = AudioData.create_from_array(recording[:, None], SAMPLE_RATE)
            (result,) = classifier.classify(clip)
            (head,) = result.classifications
            labels.update({category.index: category.category_name for category in head.categories})
            scores.append({category.index: category.score for category in head.categories})
    return {"scores": scores, "labels": labels, "output": head.head_name}


def segment(path, images):
    """The scores of the classes of each pixel, which are written, and the labels."""
    options = ImageSegmenterOptions(base_options=BaseOptions(model_asset_path=str(path)))
    with ImageSegmenter.create_from_options(options) as segmenter:
        maps = []
        for image in images:
            image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=image)
            masks = segmenter.segment(image).confidence_masks
            maps.append(np.stack([mask.numpy_view().squeeze() for mask in masks], axis=-1))
        np.save(path.with_suffix(".npy"), np.stack(maps))
        return {"labels": list(segmenter.labels)}


def run(path, images, recordings):
    """What the task for a file, which its name tells, makes of the examples."""
    if path.stem.startswith("audio_"):
        return hear(path, recordings)
    return (segment if path.stem.startswith("segments_") else classify)(path, images)


def plain(value):
    """What MediaPipe's classes unpacked, in types that JSON knows; None is left out."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return value.tolist()
    if hasattr(value, "__dict__"):
        return {key: plain(item) for key, item in vars(value).items() if item is not None}
    return value


def independent_metadata():
    """Metadata of an image classifier, written by the code that was generated from the schema."""
    labels = schema.AssociatedFileT()
    labels.name, labels.type = "names.txt", schema.AssociatedFileType.TENSOR_AXIS_LABELS
    normalization = schema.NormalizationOptionsT()
    normalization.mean, normalization.std = [1.0, 2.0, 3.0], [4.0, 5.0, 6.0]
    unit = schema.ProcessUnitT()
    unit.optionsType = schema.ProcessUnitOptions.NormalizationOptions
    unit.options = normalization
    image, scores = schema.TensorMetadataT(), schema.TensorMetadataT()
    image.processUnits, scores.associatedFiles = [unit], [labels]
    graph = schema.SubGraphMetadataT()
    graph.inputTensorMetadata, graph.outputTensorMetadata = [image], [scores]
    model = schema.ModelMetadataT()
    model.name, model.description, model.version = "Independent", "Made elsewhere.", "2"
    model.author, model.license, model.subgraphMetadata = "Somebody", "MIT", [graph]
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), b"M001")
    return bytes(builder.Output())


def main(directory):
    images, recordings = (np.load(directory / f"{name}.npy") for name in ("images", "recordings"))
    for path in directory.glob("*.tflite"):
        try:
            result = run(path, images, recordings)
        except (RuntimeError, ValueError, OSError, NotImplementedError) as error:
            result = {"error": f"{type(error).__name__}: {error}"}
        path.with_suffix(".json").write_text(json.dumps(result))
    content = (directory / "metadata.bin").read_bytes()
    unpacked = schema.ModelMetadataT.InitFromPackedBuf(content)
    (directory / "metadata.json").write_text(json.dumps(plain(unpacked)))
    (directory / "independent.bin").write_bytes(independent_metadata())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
