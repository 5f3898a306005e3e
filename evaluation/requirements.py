"""What evaluating needs beyond the standard library, and which extra brings it."""

from __future__ import annotations

import importlib.util

EXTRA = "evaluation"
PACKAGES = {
    "numpy": "numpy",
    "scipy": "scipy",
    "sklearn": "scikit-learn",
    "onnx": "onnx",
    "onnxruntime": "onnxruntime",
    "pyarrow": "pyarrow",
    "aiconfigurator_core": "aiconfigurator-core",
    "matplotlib": "matplotlib",
}
"""Modules, and the distributions that hold them."""


def missing() -> str:
    """Returns what is missing and the remedy in one line, empty where nothing is."""
    absent = [name for module, name in PACKAGES.items() if importlib.util.find_spec(module) is None]
    if not absent:
        return ""
    return (
        f"evaluating needs {', '.join(absent)}: install the extra `{EXTRA}`:"
        f" pip install 'tokenpace[{EXTRA}]'"
        " (aiconfigurator-core is for x86-64 and Python below 3.14)"
    )
