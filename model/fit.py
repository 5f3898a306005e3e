"""``python -m model.fit [--published] [--processors N]``: measurements in, a cost model out.

JSON on standard input, the cost model's bytes on standard output.

Fitting runs in a process of its own, so that the daemon loads no regression library.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from model.errors import NotEnoughMeasurementsError
from model.measurement import PROCESSORS, PUBLISHED, from_json
from model.published import fit_published
from model.training import fit_cost_model

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Fits and returns the exit code: 0, or 1 with the reason on standard error."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(PUBLISHED, action="store_true", dest="published")
    parser.add_argument(PROCESSORS, type=int, default=0, dest="processors")
    asked = parser.parse_args(arguments)
    fit = fit_published if asked.published else fit_cost_model
    try:
        cost_model = fit(from_json(sys.stdin.buffer.read()), asked.processors)
    except (NotEnoughMeasurementsError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    sys.stdout.buffer.write(cost_model.to_bytes())
    return 0


if __name__ == "__main__":
    sys.exit(main())
