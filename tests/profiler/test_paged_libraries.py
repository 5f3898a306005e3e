"""vLLM and FlashInfer are told of the right attention.

Where they are not installed, plain torch stands in for them, over the very arguments that they
take: each stand-in says what its arguments mean as the library's documents do, and refuses what
does not fit. On a GPU that has them they compute it themselves.
"""

import importlib.util
import sys
from functools import partial
from types import ModuleType

import pytest
import torch

from model.blocks import Attention
from model.precision import Precision
from profiler.device import Device, open_device
from profiler.flashinfer_kernel import FlashInferKernel
from profiler.interface import DeviceLostError
from profiler.paged_attention import PagedAttentionPoint, measure_paged_attention
from profiler.paged_kernels import GatherKernel, PagedKernels
from profiler.timing import Effort
from profiler.vllm_kernel import VllmKernel

CPU = Device("cpu", 1 << 16)
QUICK = Effort(seconds=0.0, min_samples=2, max_samples=2, sample_ms=0.01)
POINT = PagedAttentionPoint(2, 3, 37, 4, 2, 64)


def on_a_gpu(kernel):
    """What needs a library on a GPU, whatever that warns of."""
    lacking = importlib.util.find_spec(kernel.name) is None
    return pytest.param(
        kernel,
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
            pytest.mark.skipif(lacking, reason=f"needs {kernel.name}"),
            pytest.mark.filterwarnings("ignore"),
        ],
        id=kernel.name,
    )


libraries = pytest.mark.parametrize("make", [on_a_gpu(VllmKernel), on_a_gpu(FlashInferKernel)])


def int32(*tensors):
    assert all(each.dtype is torch.int32 and each.is_contiguous() for each in tensors)


# --- vLLM ------------------------------------------------------------------------


def reshape_and_cache_flash(
    key, value, key_cache, value_cache, slot_mapping, kv_cache_dtype, k_scale, v_scale
):
    """A slot is a page times the tokens of one, plus the place in it."""
    assert kv_cache_dtype == "auto"
    assert float(k_scale) == float(v_scale) == 1.0
    assert slot_mapping.dtype is torch.int64
    page_tokens = key_cache.shape[1]
    for token, slot in enumerate(slot_mapping.tolist()):
        key_cache[slot // page_tokens, slot % page_tokens] = key[token]
        value_cache[slot // page_tokens, slot % page_tokens] = value[token]


def vllm_modules(attend_exactly, version):
    """Modules of vLLM by name, with the version of FlashAttention that it runs."""

    def flash_attn_varlen_func(
        q,
        k,
        v,
        max_seqlen_q,
        cu_seqlens_q,
        max_seqlen_k,
        seqused_k,
        causal,
        block_table,
        fa_version,
    ):
        """A row of the block table names a sequence's pages, of whose tokens the first are used."""
        int32(cu_seqlens_q, seqused_k, block_table)
        assert causal
        assert fa_version == version
        output = torch.empty_like(q)
        for sequence, used in enumerate(seqused_k.tolist()):
            begin, end = cu_seqlens_q[sequence : sequence + 2].tolist()
            assert end - begin <= max_seqlen_q
            assert used <= max_seqlen_k
            pages = block_table[sequence].long()
            keys, values = (pool[pages].flatten(0, 1)[:used] for pool in (k, v))
            output[begin:end] = attend_exactly(q[begin:end], keys, values)
        return output

    return {
        "vllm": module("vllm"),
        "vllm.vllm_flash_attn": module(
            "vllm.vllm_flash_attn",
            flash_attn_varlen_func=flash_attn_varlen_func,
        ),
        "vllm._custom_ops": module(
            "vllm._custom_ops", reshape_and_cache_flash=reshape_and_cache_flash
        ),
        # As a release before the newest has it.
        "vllm.attention": module("vllm.attention"),
        "vllm.attention.utils": module("vllm.attention.utils"),
        "vllm.attention.utils.fa_utils": module(
            "vllm.attention.utils.fa_utils", get_flash_attn_version=lambda: version
        ),
    }


# --- FlashInfer ------------------------------------------------------------------


def append_paged_kv_cache(
    append_key,
    append_value,
    batch_indices,
    positions,
    paged_kv_cache,
    kv_indices,
    kv_indptr,
    kv_last_page_len,
    kv_layout="NHD",
):
    """A token stands at a position of a sequence, whose pages lie one after the other."""
    int32(batch_indices, positions, kv_indices, kv_indptr, kv_last_page_len)
    assert kv_layout == "NHD"
    for pool, new in zip(paged_kv_cache, (append_key, append_value), strict=True):
        page_tokens = pool.shape[1]
        for token, (sequence, position) in enumerate(
            zip(batch_indices.tolist(), positions.tolist(), strict=True)
        ):
            page = kv_indices[int(kv_indptr[sequence]) + position // page_tokens]
            pool[page, position % page_tokens] = new[token]


class Wrapper:
    """Both of FlashInfer's wrappers; for CUDA graphs they read their own buffers alone."""

    needed_bytes = 0

    def __init__(self, attend, float_workspace_buffer, kv_layout, buffers=None):
        assert float_workspace_buffer.dtype is torch.uint8
        assert not float_workspace_buffer.any()
        assert kv_layout == "NHD"
        self.attend, self.workspace, self.buffers = attend, float_workspace_buffer, buffers

    def keep(self, *planned):
        if len(self.workspace) < Wrapper.needed_bytes:
            raise RuntimeError("Buffer overflow [...] Increase the workspace buffer size.")
        int32(*planned)
        if self.buffers is None:
            self.buffers = planned
            return
        for buffer, given in zip(self.buffers, planned, strict=True):
            int32(buffer)
            assert buffer.data_ptr() != given.data_ptr()
            buffer.copy_(given)

    def sizes(self, query_heads, kv_heads, head_dim, page_size, q_data_type, kv_data_type):
        self.shapes = (query_heads, head_dim), (page_size, kv_heads, head_dim)
        self.types = q_data_type, kv_data_type

    def run(self, q, paged_kv_cache):
        queries, starts, indices, last = self.buffers
        assert (q.shape[1:], paged_kv_cache[0].shape[1:]) == self.shapes
        assert (q.dtype, paged_kv_cache[0].dtype) == self.types
        output = torch.empty_like(q)
        for sequence, tokens in enumerate(last.tolist()):
            begin, end = queries[sequence : sequence + 2].tolist()
            first, behind = starts[sequence : sequence + 2].tolist()
            pages = indices[first:behind].long()
            whole = (len(pages) - 1) * paged_kv_cache[0].shape[1]
            keys, values = (pool[pages].flatten(0, 1)[: whole + tokens] for pool in paged_kv_cache)
            output[begin:end] = self.attend(q[begin:end], keys, values)
        return output


class BatchDecodeWithPagedKVCacheWrapper(Wrapper):
    """One query a sequence."""

    tensor_cores = None

    def __init__(
        self,
        attend,
        float_workspace_buffer,
        kv_layout="NHD",
        use_cuda_graph=False,
        use_tensor_cores=False,
        paged_kv_indptr_buffer=None,
        paged_kv_indices_buffer=None,
        paged_kv_last_page_len_buffer=None,
    ):
        assert use_cuda_graph
        queries = torch.empty(len(paged_kv_indptr_buffer), dtype=torch.int32)
        table = (paged_kv_indptr_buffer, paged_kv_indices_buffer, paged_kv_last_page_len_buffer)
        super().__init__(attend, float_workspace_buffer, kv_layout, (queries, *table))
        type(self).tensor_cores = use_tensor_cores

    def plan(self, indptr, indices, last_page_len, *sizes, q_data_type, kv_data_type):
        queries = torch.arange(len(indptr), dtype=torch.int32)
        self.keep(queries, indptr, indices, last_page_len)
        self.sizes(*sizes, q_data_type, kv_data_type)


class BatchPrefillWithPagedKVCacheWrapper(Wrapper):
    """Several queries a sequence."""

    def plan(
        self, qo_indptr, indptr, indices, last_page_len, *sizes, causal, q_data_type, kv_data_type
    ):
        assert causal
        self.keep(qo_indptr, indptr, indices, last_page_len)
        self.sizes(*sizes, q_data_type, kv_data_type)


def flashinfer_modules(attend_exactly):
    """FlashInfer by its name."""
    return {
        "flashinfer": module(
            "flashinfer",
            append_paged_kv_cache=append_paged_kv_cache,
            BatchDecodeWithPagedKVCacheWrapper=partial(
                BatchDecodeWithPagedKVCacheWrapper, attend_exactly
            ),
            BatchPrefillWithPagedKVCacheWrapper=partial(
                BatchPrefillWithPagedKVCacheWrapper, attend_exactly
            ),
        )
    }


def module(name, **members):
    made = ModuleType(name)
    made.__path__ = []
    vars(made).update(members)
    return made


# --- what they are told ----------------------------------------------------------


@pytest.fixture
def vllm(monkeypatch, exact_attention):
    """Puts what stands for vLLM in its place, and returns its kernel."""

    def put(version=3):
        for name, module in vllm_modules(exact_attention, version).items():
            monkeypatch.setitem(sys.modules, name, module)
        return VllmKernel()

    return put


@pytest.fixture
def flashinfer(monkeypatch, exact_attention):
    """The kernel of what stands for FlashInfer, with little memory to work in."""
    for name, module in flashinfer_modules(exact_attention).items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr("profiler.flashinfer_kernel.WORKSPACE_BYTES", 1 << 12)
    return FlashInferKernel()


@pytest.mark.parametrize("version", [2, 3])
@torch.inference_mode()
def test_what_vllm_is_told_describes_the_attention(sizes, heads, version, vllm, check_paged):
    check_paged(vllm(version), sizes, heads, 64, torch.bfloat16, 3e-2)


@torch.inference_mode()
def test_what_flashinfer_is_told_describes_the_attention(sizes, heads, flashinfer, check_paged):
    check_paged(flashinfer, sizes, heads, 64, torch.bfloat16, 3e-2)
    if sizes[1] == 1:
        assert BatchDecodeWithPagedKVCacheWrapper.tensor_cores is (heads == (8, 1))


@pytest.mark.parametrize(("needed", "fits"), [(1 << 14, True), (1 << 16, False)])
@torch.inference_mode()
def test_flashinfer_gets_the_room_that_it_asks_for(needed, fits, flashinfer, monkeypatch):
    monkeypatch.setattr(Wrapper, "needed_bytes", needed)
    monkeypatch.setattr("profiler.flashinfer_kernel._MOST_BYTES", 1 << 15)
    kernels = PagedKernels({"flashinfer": lambda: flashinfer, "torch": GatherKernel})
    measured = measure_paged_attention(POINT, Precision.BF16, CPU, QUICK, kernels)
    if fits:
        (row,) = measured
        assert row.engine == "flashinfer"
    else:  # other points may still fit
        with pytest.raises(MemoryError, match="Increase the workspace"):
            list(measured)
    assert kernels.names == ("flashinfer", "torch")


@libraries
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
@torch.inference_mode()
def test_each_library_attends_to_pages_on_a_gpu(make, sizes, heads, dtype, check_paged):
    check_paged(make(), sizes, heads, 64, dtype, 3e-2, "cuda:0")


@libraries
@pytest.mark.parametrize("sizes", [(64, 1, 1000), (1, 300, 4000), (2, 500, 500)])
def test_each_library_is_timed_in_a_graph(make, sizes):
    point = PagedAttentionPoint(*sizes, 8, 2, 128)
    kernels = PagedKernels({make.name: make})
    (row,) = measure_paged_attention(point, Precision.BF16, open_device("cuda:0"), QUICK, kernels)
    assert row.engine == make.name
    assert 0 < row.latency_ms.median < 100


@pytest.mark.parametrize(
    ("head_dim", "dtype", "vllm_takes", "flashinfer_takes"),
    [
        (128, torch.bfloat16, True, True),
        (64, torch.float16, True, True),
        (96, torch.bfloat16, True, False),
        (80, torch.bfloat16, True, False),
        (100, torch.bfloat16, False, False),
        (512, torch.bfloat16, False, False),
        (128, torch.float32, False, False),
    ],
)
def test_libraries_refuse_heads_that_they_have_no_kernel_for(
    head_dim, dtype, vllm_takes, flashinfer_takes, vllm, flashinfer
):
    block = Attention(query_heads=4, kv_heads=2, head_dim=head_dim)
    assert vllm().takes(block, dtype) is vllm_takes
    assert flashinfer.takes(block, dtype) is flashinfer_takes
    assert GatherKernel().takes(block, dtype)


def test_vllm_without_flash_attention_here_says_so(vllm):
    with pytest.raises(RuntimeError, match="does not run on this GPU"):
        vllm(version=None)


def test_a_library_that_is_installed_comes_before_torch(vllm, flashinfer):
    kernels = PagedKernels({"vllm": vllm, "flashinfer": lambda: flashinfer, "torch": GatherKernel})
    (row,) = measure_paged_attention(POINT, Precision.BF16, CPU, QUICK, kernels)
    assert row.engine == "vllm"
    kernels.leave_out("vllm")
    (row,) = measure_paged_attention(POINT, Precision.BF16, CPU, QUICK, kernels)
    assert row.engine == "flashinfer"
    (row,) = measure_paged_attention(POINT, Precision.FP32, CPU, QUICK, kernels)
    assert row.engine == "torch"


class LostDevice(Device):
    """Its context is gone once a library has failed."""

    def lost(self):
        return "CUDA error: an illegal memory access was encountered"


def test_a_library_that_took_the_device_with_it_is_named_and_left_out_by_the_next_process(vllm):
    def broken():
        raise RuntimeError("CUDA error")

    kernels = PagedKernels({"flashinfer": broken, "vllm": vllm, "torch": GatherKernel})
    lost = LostDevice("cpu", CPU.cache_bytes)
    with pytest.raises(DeviceLostError, match="illegal memory access") as raised:
        list(measure_paged_attention(POINT, Precision.BF16, lost, QUICK, kernels))
    assert raised.value.group == "paged_attention by flashinfer"
    kernels.leave_out_lost({"linear-8x8", raised.value.group})
    assert kernels.names == ("vllm", "torch")
