"""``python -m model.fit [--published] [--processors N] [--lender NAME FILE]``: fits a cost model.

Measurements as JSON on standard input, the cost model's bytes on standard output.

Fitting runs in a process of its own, so that the daemon loads no regression library.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from model.cost_model import FittedCostModel
from model.errors import NotEnoughMeasurementsError
from model.loading import no_collection
from model.measurement import LENDER, PROCESSORS, PUBLISHED, from_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model.kernels import Lender


def main(arguments: Sequence[str] | None = None) -> int:
    """Fits and returns the exit code: 0, or 1 with the reason on standard error."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(PUBLISHED, action="store_true", dest="published")
    parser.add_argument(PROCESSORS, type=int, default=0, dest="processors")
    parser.add_argument(LENDER, nargs=2, dest="lender", metavar=("NAME", "FILE"))
    asked = parser.parse_args(arguments)
    with no_collection():
        from model.published import fit_published  # noqa: PLC0415 - regression takes a second to load
        from model.side_by_side import usual_processes  # noqa: PLC0415
        from model.training import fit_cost_model  # noqa: PLC0415

    fit = fit_published if asked.published else fit_cost_model
    try:
        lender = _lender(*asked.lender) if asked.lender else None
        measurements = from_json(sys.stdin.buffer.read())
        cost_model = fit(measurements, asked.processors, lender, usual_processes())
    except (NotEnoughMeasurementsError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    sys.stdout.buffer.write(cost_model.to_bytes())
    return 0


def _lender(name: str, file: str) -> Lender:
    """Returns what the device of that name lends, from the file of its cost model.

    Raises:
        ValueError: there is none in it.
        OSError: it cannot be read.
    """
    return FittedCostModel.from_bytes(Path(file).read_bytes()).lends(name)


if __name__ == "__main__":
    sys.exit(main())
