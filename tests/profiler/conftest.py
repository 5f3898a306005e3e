"""What tests of what is timed alone share."""

import pytest

import profiler.operations


@pytest.fixture
def timed(monkeypatch):
    """What was really timed: each point's runs."""
    seen = []
    time_runs = profiler.operations.time_runs

    def spy(device, runs, effort):
        seen.append(list(runs))
        return time_runs(device, runs, effort)

    monkeypatch.setattr(profiler.operations, "time_runs", spy)
    return seen
