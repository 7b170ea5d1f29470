"""Run files in MediaPipe's ImageClassifier, as a phone does, and read and write metadata with its
own schema. It runs in an environment of its own, where neither TensorFlow nor keras_kd is.

Argument: a directory with `images.npy`, shaped (images, height, width, 3), and `*.tflite` files.
Writes for each file a `.json` with scores by class index, labels by class index and the name of the
output, or with the error; for `metadata.bin` what is in it to `metadata.json`; and what MediaPipe's
own classes write to `independent.bin`.
"""

import json
import sys
from pathlib import Path

import flatbuffers
import mediapipe
import numpy as np
from mediapipe.tasks.metadata import metadata_schema_py_generated as schema
from mediapipe.tasks.python.core.base_options import BaseOptions
from mediapipe.tasks.python.vision import ImageClassifier, ImageClassifierOptions


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
    images = np.load(directory / "images.npy")
    for path in directory.glob("*.tflite"):
        try:
            result = classify(path, images)
        except (RuntimeError, ValueError, FileNotFoundError) as error:
            result = {"error": f"{type(error).__name__}: {error}"}
        path.with_suffix(".json").write_text(json.dumps(result))
    content = (directory / "metadata.bin").read_bytes()
    unpacked = schema.ModelMetadataT.InitFromPackedBuf(content)
    (directory / "metadata.json").write_text(json.dumps(plain(unpacked)))
    (directory / "independent.bin").write_bytes(independent_metadata())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
