"""``python -m model.fit``: measurements as JSON on standard input, a cost model on standard output.

Fitting runs in a process of its own, so that the daemon loads no regression library.
"""

from __future__ import annotations

import sys

from model.measurement import from_json
from model.training import NotEnoughMeasurementsError, fit_cost_model


def main() -> int:
    """Fits and returns the exit code: 0, or 1 with the reason on standard error."""
    try:
        cost_model = fit_cost_model(from_json(sys.stdin.buffer.read()))
    except (NotEnoughMeasurementsError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    sys.stdout.buffer.write(cost_model.to_bytes())
    return 0


if __name__ == "__main__":
    sys.exit(main())
