"""What evaluating needs beyond the standard library, and which extra brings it."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

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
"""Modules, and the distributions that hold them: all that the tables need."""
CAMPAIGN = {name: PACKAGES[name] for name in ("numpy", "scipy", "sklearn", "matplotlib")}
"""What the page of a campaign needs."""
_NARROW = "aiconfigurator-core"


def missing(packages: Mapping[str, str] = PACKAGES) -> str:
    """Returns what is missing and the remedy in one line, empty where nothing is.

    Args:
        packages: what is needed: distributions by module.
    """
    absent = [name for module, name in packages.items() if importlib.util.find_spec(module) is None]
    if not absent:
        return ""
    if packages is CAMPAIGN:
        remedy = f"pip install {' '.join(absent)}"
    else:
        remedy = f"install the extra `{EXTRA}`: pip install 'tokenpace[{EXTRA}]'"
    where = f" ({_NARROW} is for x86-64 and Python below 3.14)" if _NARROW in absent else ""
    return f"evaluating needs {', '.join(absent)}: {remedy}{where}"
