"""Attention over pages: the right one by plain torch, and the best kernel that works is timed."""

from dataclasses import asdict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import profiler.paged_kernels
from model.measurement import Measurement
from model.precision import Precision
from model.shapes import operations_of
from profiler.device import Device, open_device
from profiler.interface import Skipped
from profiler.numerics import InaccurateError
from profiler.paged_attention import PagedAttentionPoint, measure_paged_attention
from profiler.paged_kernels import GatherKernel, PagedKernels, installed_kernels
from profiler.pages import PAGE_TOKENS, Pages, scattered
from profiler.timing import Effort

CPU = Device("cpu", 1 << 16)
QUICK = Effort(seconds=0.0, min_samples=2, max_samples=2, sample_ms=0.01)
POINT = PagedAttentionPoint(2, 3, 37, 4, 2, 64)
gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
devices = pytest.mark.parametrize("name", ["cpu", pytest.param("cuda:0", marks=gpu)])


def test_pages_lie_in_random_order():
    torch.manual_seed(0)
    pages = scattered(3, 5, 100, CPU)
    assert pages.table.shape == (3, 7)
    assert sorted(pages.table.flatten().tolist()) == list(range(21))
    steps = pages.table[:, 1:] - pages.table[:, :-1]
    assert (steps == 1).float().mean() < 0.3


@given(st.integers(1, 4), st.integers(1, 40), st.integers(0, 40))
def test_slots_and_positions_are_those_of_the_new_tokens(sequences, query, past):
    pages = scattered(sequences, query, past + query, CPU)
    filled = torch.full((pages.count * PAGE_TOKENS,), -1)
    filled[pages.slots] = torch.arange(sequences * query)
    assert len(set(pages.slots.tolist())) == sequences * query
    for token, (owner, position) in enumerate(
        zip(pages.owners.tolist(), pages.positions.tolist(), strict=True)
    ):
        assert (owner, position) == (token // query, past + token % query)
        page = int(pages.table[owner, position // PAGE_TOKENS])
        assert int(filled[page * PAGE_TOKENS + position % PAGE_TOKENS]) == token
    whole = (pages.table.shape[1] - 1) * PAGE_TOKENS
    assert whole + pages.last_page_tokens == past + query


@devices
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 3e-2)], ids=["fp32", "bf16"]
)
@torch.inference_mode()
def test_plain_torch_attends_to_pages(sizes, heads, dtype, tolerance, name, check_paged):
    check_paged(GatherKernel(), sizes, heads, 8, dtype, tolerance, name)


@settings(max_examples=30)
@given(
    sequences=st.integers(1, 3),
    query=st.integers(1, 40),
    past=st.integers(0, 40),
    kv_heads=st.integers(1, 2),
    groups=st.integers(1, 3),
)
@torch.inference_mode()
def test_plain_torch_attends_at_any_length(check_paged, sequences, query, past, kv_heads, groups):
    sizes = (sequences, query, query + past)
    heads = (kv_heads * groups, kv_heads)
    check_paged(GatherKernel(), sizes, heads, 8, torch.float32, 1e-4)


@devices
@pytest.mark.parametrize("precision", [Precision.FP32, Precision.BF16])
def test_attention_over_pages_is_measured_with_its_sizes(sizes, precision, name):
    point = PagedAttentionPoint(*sizes, 4, 2, 16)
    kernels = PagedKernels({"torch": GatherKernel})
    (row,) = measure_paged_attention(point, precision, open_device(name), QUICK, kernels)
    assert (row.kind, row.engine, row.precision) == ("paged_attention", "torch", precision)
    assert row.shape == asdict(point)
    assert row.group == point.group
    assert operations_of(row) == point.operations(precision)


def test_each_run_has_pools_of_its_own_over_one_table(timed):
    list(measure_paged_attention(POINT, Precision.BF16, CPU, QUICK))
    (runs,) = timed
    pools = [run.args[-2].data_ptr() for run in runs]
    assert len(set(pools)) == len(pools) >= 2
    held = sum(each.nbytes for run in runs for each in run.args[-5:])
    assert held >= CPU.cold_bytes
    assert len({id(run.args[0]) for run in runs}) == 1


class Broken:
    """A kernel that is there, and fails in one way or another."""

    name = "broken"

    def __init__(self, at, text="no kernel image"):
        self.at, self.error, self.made = at, RuntimeError(text), 0

    def __call__(self):
        self.made += 1
        if self.at == "import":
            raise ImportError("undefined symbol")
        return self

    def takes(self, heads, dtype):
        return self.at != "heads"

    def plan(self, pages, heads, dtype):
        if self.at == "plan":
            raise self.error
        exact = GatherKernel().plan(pages, heads, dtype)

        def attend(query, key, value, keys, values):
            if self.at == "run":
                raise self.error
            if self.at == "result":
                return exact(query, key, value, keys, values) + 0.1
            return exact(query, key, value, keys, values.roll(1, dims=0))

        return attend


@pytest.mark.parametrize("at", ["import", "plan", "run", "result", "pages"])
def test_a_kernel_that_fails_is_left_out_and_said_to_be(at):
    broken = Broken(at)
    kernels = PagedKernels({"broken": broken, "torch": GatherKernel})
    said, row = measure_paged_attention(POINT, Precision.FP32, CPU, QUICK, kernels)
    assert isinstance(said, Skipped)
    expected = {"import": "ImportError: undefined symbol", "result": "InaccurateError"}
    assert expected.get(at, "") in said.reason
    assert said.reason.startswith("paged_attention by broken is left out: ")
    assert isinstance(row, Measurement)
    assert row.engine == "torch"
    # It is not asked again.
    (again,) = measure_paged_attention(POINT, Precision.FP32, CPU, QUICK, kernels)
    assert again.engine == "torch"
    assert broken.made == 1


def test_a_kernel_that_takes_no_such_heads_is_asked_for_others():
    kernels = PagedKernels({"broken": Broken("heads"), "torch": GatherKernel})
    (row,) = measure_paged_attention(POINT, Precision.FP32, CPU, QUICK, kernels)
    assert row.engine == "torch"
    assert kernels.names == ("broken", "torch")


def test_memory_that_is_out_is_the_points_misfortune():
    broken = Broken("plan", "CUDA out of memory")
    kernels = PagedKernels({"broken": broken, "torch": GatherKernel})
    with pytest.raises(RuntimeError, match="out of memory"):
        list(measure_paged_attention(POINT, Precision.FP32, CPU, QUICK, kernels))
    assert kernels.names == ("broken", "torch")


def test_the_last_kernels_failure_is_raised():
    kernels = PagedKernels({"torch": lambda: Broken("result")})
    with pytest.raises(InaccurateError, match="fp32: off by"):
        list(measure_paged_attention(POINT, Precision.FP32, CPU, QUICK, kernels))


def test_libraries_are_looked_for_on_gpus_alone(monkeypatch):
    there = {"vllm", "flashinfer"}
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: object() if name in there else None
    )
    profiler.paged_kernels._installed.cache_clear()
    try:
        assert installed_kernels(CPU).names == ("torch",)
        gpu = Device("cuda:0", 1 << 20)
        assert installed_kernels(gpu).names == ("vllm", "flashinfer", "torch")
        assert installed_kernels(gpu) is installed_kernels(gpu)
        there.remove("vllm")
        assert installed_kernels(Device("cuda:1", 1)).names == ("flashinfer", "torch")
    finally:
        profiler.paged_kernels._installed.cache_clear()


class OtherTable(GatherKernel):
    """Sequences read each other's pages."""

    def plan(self, pages, heads, dtype):
        other = Pages(pages.query_tokens, pages.kv_tokens, pages.table.roll(1, dims=0))
        return super().plan(other, heads, dtype)


class OtherScale(GatherKernel):
    """Queries count for more than they should."""

    def plan(self, pages, heads, dtype):
        attend = super().plan(pages, heads, dtype)
        return lambda query, *rest: attend(1.1 * query, *rest)


@pytest.mark.parametrize("kernel", [OtherTable, OtherScale])
def test_what_is_slightly_wrong_over_a_long_context_does_not_pass(kernel):
    point = PagedAttentionPoint(2, 1, 2000, 4, 2, 64)
    with pytest.raises(InaccurateError):
        list(
            measure_paged_attention(
                point, Precision.BF16, CPU, QUICK, PagedKernels({"torch": kernel})
            )
        )
