"""Where the package of published tables is not installed, what needs it skips."""

import importlib.util

import pytest


@pytest.fixture
def package():
    for name in ("aiconfigurator_core", "pyarrow"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed: the extra reference brings it where it can be")
