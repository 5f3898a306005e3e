"""What tests of what is timed and of campaigns share."""

import time
from types import SimpleNamespace

import pytest
import torch

import profiler.campaign
import profiler.operations
from model.blocks import Attention
from profiler.device import open_device
from profiler.pages import PAGE_TOKENS, scattered


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


def causal(query, keys, values):
    """Attention of the last tokens of one sequence in 32 bits, each (tokens, heads, head_dim)."""
    tokens, heads, width = query.shape
    groups = heads // keys.shape[1]
    keys, values = (each.float().repeat_interleave(groups, dim=1) for each in (keys, values))
    scores = torch.einsum("qhd,khd->hqk", query.float(), keys) * width**-0.5
    past = len(keys) - tokens
    hidden = torch.arange(len(keys))[None, :] > past + torch.arange(tokens)[:, None]
    shares = scores.masked_fill(hidden, -torch.inf).softmax(dim=-1)
    return torch.einsum("hqk,khd->qhd", shares, values).to(query.dtype)


def layer(pages, heads, dtype=torch.float32):
    """Queries, new keys and values, and pools of one layer."""
    tokens, device = pages.sequences * pages.query_tokens, pages.table.device
    shapes = (
        (tokens, heads.query_heads, heads.head_dim),
        *[(tokens, heads.kv_heads, heads.head_dim)] * 2,
        *[(pages.count, PAGE_TOKENS, heads.kv_heads, heads.head_dim)] * 2,
    )
    return [torch.randn(shape, dtype=dtype, device=device) for shape in shapes]


def check_kernel(kernel, sizes, heads, head_dim, dtype, tolerance, name="cpu"):
    """What a kernel computes and writes is what attention over whole sequences does."""
    torch.manual_seed(0)
    block = Attention(query_heads=heads[0], kv_heads=heads[1], head_dim=head_dim)
    assert kernel.takes(block, dtype)
    pages = scattered(*sizes, open_device(name))
    attend = kernel.plan(pages, block, dtype)
    for _ in range(2):  # one plan serves all layers
        query, key, value, keys, values = layer(pages, block, dtype)
        before = keys.clone(), values.clone()
        found = attend(query, key, value, keys, values)
        past = pages.kv_tokens - pages.query_tokens
        for sequence, places in enumerate(pages.table.tolist()):
            own = slice(sequence * pages.query_tokens, (sequence + 1) * pages.query_tokens)
            whole = []
            for pool, kept, new in zip((keys, values), before, (key, value), strict=True):
                old = torch.cat([kept[place] for place in places])[:past]
                whole.append(torch.cat([old, new[own]]))
                now = torch.cat([pool[place] for place in places])
                assert torch.equal(now[: pages.kv_tokens], whole[-1])
            exact = causal(query[own].cpu(), *(each.cpu() for each in whole))
            torch.testing.assert_close(found[own].cpu(), exact, rtol=tolerance, atol=tolerance)


@pytest.fixture(scope="session")
def exact_attention():
    """Causal attention of one sequence."""
    return causal


@pytest.fixture(scope="session")
def check_paged():
    """Compares a kernel over pages with attention over whole sequences."""
    return check_kernel


@pytest.fixture(
    params=[(3, 1, 40), (2, 5, 37), (2, 16, 48), (3, 21, 21), (1, 1, 1)],
    ids=["decode", "chunk", "page behind a page", "prompt", "one token"],
)
def sizes(request):
    """Sequences, new tokens and all tokens of each: the corners of attention over pages."""
    return request.param


@pytest.fixture(params=[(4, 4), (4, 2), (8, 1)], ids=["alone", "pairs", "shared"])
def heads(request):
    """Query heads, and heads of keys and values that they share."""
    return request.param
