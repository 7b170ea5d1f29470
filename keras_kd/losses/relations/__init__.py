"""Losses on relations between the examples of a batch."""

__all__: list[str] = []
