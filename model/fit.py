"""``python -m model.fit [--published]``: measurements in, a cost model out.

JSON on standard input, the cost model's bytes on standard output.

Fitting runs in a process of its own, so that the daemon loads no regression library.
"""

from __future__ import annotations

import sys

from model.errors import NotEnoughMeasurementsError
from model.measurement import PUBLISHED, from_json
from model.published import fit_published
from model.training import fit_cost_model


def main() -> int:
    """Fits and returns the exit code: 0, or 1 with the reason on standard error."""
    try:
        measurements = from_json(sys.stdin.buffer.read())
        published = PUBLISHED in sys.argv[1:]
        cost_model = fit_published(measurements) if published else fit_cost_model(measurements)
    except (NotEnoughMeasurementsError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    sys.stdout.buffer.write(cost_model.to_bytes())
    return 0


if __name__ == "__main__":
    sys.exit(main())
