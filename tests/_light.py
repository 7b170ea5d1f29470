"""Programs with this package, but without Keras, which takes seconds to import."""

import os
import sys

import keras_kd

_PACKAGE = os.path.dirname(keras_kd.__file__)
_BEGINNING = """
import sys, types
from pathlib import Path

package = types.ModuleType("keras_kd")
package.__path__ = [sys.argv[1]]
sys.modules["keras_kd"] = package
place = Path(sys.argv[2])
"""


def light(program, place, *arguments):
    """The command for a program that knows the path `place`."""
    return [sys.executable, "-c", _BEGINNING + program, _PACKAGE, str(place), *arguments]
