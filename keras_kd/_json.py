"""Results in types that JSON knows."""

from __future__ import annotations

import math
from typing import Any


def json_value(value: Any) -> Any:
    """The same, with None for NaN and infinity and lists for tuples: JSON has neither."""
    if isinstance(value, dict):
        return {key: json_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
