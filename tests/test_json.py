import json
import math

from keras_kd._json import json_value


def test_what_json_has_no_words_for():
    value = {"a": (1, math.nan, [math.inf]), "b": {"c": -math.inf}, "d": ("x", None, True, 0.5)}
    plain = json_value(value)
    assert plain == {"a": [1, None, [None]], "b": {"c": None}, "d": ["x", None, True, 0.5]}
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
