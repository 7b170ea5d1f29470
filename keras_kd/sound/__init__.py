"""Sound: clips from WAV files, augmentation, and features for models and firmware."""

from keras_kd._lazy import publish
from keras_kd.sound.augmentation import ClipAugmentation
from keras_kd.sound.clips import Clips, load_clips
from keras_kd.sound.log_mel import LogMel

__all__ = ["ClipAugmentation", "Clips", "LogMel", "load_clips"]

publish(__name__, __all__)
