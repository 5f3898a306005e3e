"""The parquet tables of aiconfigurator-core: which there are, and the newest of each.

They lie in the installed package under systems/data/DEVICE/KIND/ENGINE/VERSION/NAME.parquet
(aiconfigurator-core 0.12.0, Apache-2.0). Nothing of them is kept here.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from reference.errors import NotInstalledError

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = "aiconfigurator_core"
DISTRIBUTION = "aiconfigurator-core"
LICENCE = "Apache-2.0"
DEVICES = {
    "a100-sxm": "a100_sxm",
    "h100-sxm": "h100_sxm",
    "h200-sxm": "h200_sxm",
    "b200-sxm": "b200_sxm",
    "l40s": "l40s",
}
"""Our name of each device whose tables are read, and theirs."""
ENGINES = ("vllm", "sglang", "trtllm")


@dataclass(frozen=True, slots=True)
class Table:
    """One parquet file.

    Attributes:
        path: of the file.
        engine: that ran, or "nccl".
        version: of that engine.
    """

    path: Path
    engine: str
    version: str


def data_folder() -> Path:
    """Returns the folder of all devices' tables.

    Raises:
        NotInstalledError: the package is missing.
    """
    found = importlib.util.find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise NotInstalledError(
            f"{DISTRIBUTION} is not installed; pip install 'tokenpace[reference]' brings it"
        )
    return Path(next(iter(found.submodule_search_locations))) / "systems" / "data"


def deployments_file() -> Path:
    """Returns the CSV file of deployments measured end to end (TTFT, TPOT).

    Raises:
        NotInstalledError: the package is missing.
    """
    return data_folder().parent / "silicon_sample.csv"


def package_version() -> str:
    """Returns the version of the installed package, empty where it cannot be told."""
    try:
        return importlib.metadata.version(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return ""


def tables_of(device: str, kind: str, name: str, engine: str, folder: Path) -> Iterator[Table]:
    """Yields an engine's tables, the newest first, then those of others that may stand in.

    A later version's need not hold all: TensorRT-LLM's newest one of experts has those
    without a gate alone.

    Args:
        device: our name of it.
        kind: folder of the table ("gemm").
        name: file of the table ("gemm_perf.parquet").
        engine: comes first.
        folder: of all devices' tables.
    """
    for one in (engine, *(other for other in ENGINES if other != engine)):
        yield from _versions(device, kind, name, one, folder)


def newest_of(device: str, kind: str, name: str, engine: str, folder: Path) -> Table | None:
    """Returns the newest table of exactly that engine, None where it has none."""
    return next(_versions(device, kind, name, engine, folder), None)


def _versions(device: str, kind: str, name: str, engine: str, folder: Path) -> Iterator[Table]:
    found = (folder / DEVICES[device] / kind / engine).glob(f"*/{name}")
    for path in sorted(found, key=lambda path: _order(path.parent.name), reverse=True):
        yield Table(path, engine, path.parent.name)


def _order(version: str) -> tuple[tuple[int, int, str], ...]:
    """Returns what versions sort by: numbers by value, a release candidate before its release."""
    parts = re.findall(r"\d+|[a-z]+", version)
    ordered = [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts]
    return (*ordered, (1, -1, ""))
