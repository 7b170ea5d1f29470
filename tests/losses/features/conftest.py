"""Losses on hidden features stated a second time, in NumPy."""

import pytest


@pytest.fixture(scope="session")
def references(formulas):
    """See reference/features.py."""
    return formulas.features
