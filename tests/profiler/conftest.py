"""What tests of what is timed and of campaigns share."""

import time
from types import SimpleNamespace

import pytest

import profiler.campaign
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


class Ticks:
    """A clock that goes on by being read: a budget is so many readings on any machine."""

    tick_s = 0.05

    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        self.now_s += self.tick_s
        return self.now_s


@pytest.fixture
def ticking(monkeypatch):
    """Lets campaigns read a clock that counts its readings."""
    clock = SimpleNamespace(monotonic=Ticks(), perf_counter=time.perf_counter)
    monkeypatch.setattr(profiler.campaign, "time", clock)


@pytest.fixture
def stopping(monkeypatch):
    """Ends campaigns by what they have measured, long before their budget."""
    measure = profiler.campaign.Campaign.run

    def after(attentions):
        def run(self):
            left = attentions
            for event in measure(self):
                yield event
                left -= getattr(event, "kind", "") == "attention"
                if not left:
                    return

        monkeypatch.setattr(profiler.campaign.Campaign, "run", run)

    return after
