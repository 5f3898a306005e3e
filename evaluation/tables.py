"""The tables there are, by name; loads nothing that computes."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from evaluation.inputs import Inputs
    from evaluation.page import Section

TABLES = {
    "operations": (
        "operations",
        "single operations, whole shapes left out, all points and 500 of them",
    ),
    "extrapolation": (
        "extrapolation",
        "operations at longer contexts and at tensor-parallel sizes never seen",
    ),
    "devices": ("devices", "one device predicted from another, and what interval that takes"),
    "published": (
        "published",
        "latencies that engines' documents publish, whole models left out",
    ),
    "deployments": (
        "deployment_table",
        "TTFT and TPOT of deployments, whole architectures left out, by load",
    ),
    "few-rows": ("few_rows", "the same with 4, 8 or 16 rows given, and random folds"),
    "peers": (
        "peer_table",
        "the same deployments by aiconfigurator, a random forest and a roofline",
    ),
    "coefficients": ("coefficients", "engines' coefficients fitted on all deployments"),
}
"""The module that makes each and what it holds, in the order of the page."""


def section_of(name: str) -> Callable[[Inputs], Section]:
    """Returns what makes the table of that name.

    Raises:
        KeyError: there is none.
    """
    # By name: what the others need, and its start, would be paid for every one.
    module = importlib.import_module(f"evaluation.{TABLES[name][0]}")
    make: Callable[[Inputs], Section] = module.section
    return make
