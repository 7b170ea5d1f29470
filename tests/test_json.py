import json
import math
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from keras_kd._json import json_value


def test_what_json_has_no_words_for():
    value = {"a": (1, math.nan, [math.inf]), "b": {"c": -math.inf}, "d": ("x", None, True, 0.5)}
    plain = json_value(value)
    assert plain == {"a": [1, None, [None]], "b": {"c": None}, "d": ["x", None, True, 0.5]}
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain


def test_dataclasses_and_numbers_of_numpy():
    @dataclass(frozen=True)
    class Row:
        shape: tuple
        dtype: np.dtype
        share: np.float32

    rows = MappingProxyType({"row": Row((np.int64(1), 2), np.dtype("int8"), np.float32("nan"))})
    plain = json_value({"rows": [rows]})
    assert plain == {"rows": [{"row": {"shape": [1, 2], "dtype": "int8", "share": None}}]}
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
