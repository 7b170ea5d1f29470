"""Facts of the public schema of TFLite metadata (version 1.5.0): the place of each field.

The schema is `metadata_schema.fbs` in MediaPipe and in TensorFlow Lite Support, which lists the
fields of each table in the order of their slots; a union takes two, its type and its value. Only
metadata of classifiers are here.
"""

from enum import IntEnum

# Under this name a .tflite file keeps the metadata, and with these letters they begin.
ENTRY = "TFLITE_METADATA"
FILE_IDENTIFIER = b"M001"
# The first version of the schema has all that is written here. MediaPipe ends the process that
# reads a file without it.
MIN_PARSER_VERSION = "1.0.0"


class Model(IntEnum):
    """Slots of the table ModelMetadata, the root."""

    NAME = 0
    DESCRIPTION = 1
    VERSION = 2
    SUBGRAPHS = 3
    AUTHOR = 4
    LICENSE = 5
    MIN_PARSER_VERSION = 7


class Subgraph(IntEnum):
    """Slots of the table SubGraphMetadata."""

    INPUTS = 2
    OUTPUTS = 3


class Tensor(IntEnum):
    """Slots of the table TensorMetadata."""

    NAME = 0
    DESCRIPTION = 1
    CONTENT = 3
    PROCESS_UNITS = 4
    FILES = 6


class Content(IntEnum):
    """Slots of the table Content."""

    PROPERTIES_TYPE = 0
    PROPERTIES = 1


class ContentProperties(IntEnum):
    """Types of the union ContentProperties."""

    FEATURE = 1
    IMAGE = 2
    AUDIO = 4


class AudioProperties(IntEnum):
    """Slots of the table AudioProperties."""

    SAMPLE_RATE = 0
    CHANNELS = 1


class ImageProperties(IntEnum):
    """Slots of the table ImageProperties."""

    COLOR_SPACE = 0
    DEFAULT_SIZE = 1


class ColorSpace(IntEnum):
    """Values of the enumeration ColorSpaceType."""

    RGB = 1


class ImageSize(IntEnum):
    """Slots of the table ImageSize."""

    WIDTH = 0
    HEIGHT = 1


class ProcessUnit(IntEnum):
    """Slots of the table ProcessUnit."""

    OPTIONS_TYPE = 0
    OPTIONS = 1


class ProcessUnitOptions(IntEnum):
    """Types of the union ProcessUnitOptions."""

    NORMALIZATION = 1
    SCORE_CALIBRATION = 2
    REGEX_TOKENIZER = 6


class Normalization(IntEnum):
    """Slots of the table NormalizationOptions."""

    MEAN = 0
    STD = 1


class ScoreCalibration(IntEnum):
    """Slots of the table ScoreCalibrationOptions."""

    TRANSFORMATION = 0
    DEFAULT_SCORE = 1


class ScoreTransformation(IntEnum):
    """Values of the enumeration ScoreTransformationType."""

    IDENTITY = 0
    LOG = 1
    INVERSE_LOGISTIC = 2


class RegexTokenizer(IntEnum):
    """Slots of the table RegexTokenizerOptions."""

    SEPARATOR = 0
    VOCABULARY = 1


class AssociatedFile(IntEnum):
    """Slots of the table AssociatedFile."""

    NAME = 0
    DESCRIPTION = 1
    TYPE = 2


class AssociatedFileType(IntEnum):
    """Values of the enumeration AssociatedFileType."""

    LABELS = 2
    LABELS_OF_VALUES = 3
    SCORE_CALIBRATION = 4
    VOCABULARY = 5


# What the numbers of an output represent: its places on an axis, or its values themselves.
LISTS_OF_LABELS = (AssociatedFileType.LABELS, AssociatedFileType.LABELS_OF_VALUES)
