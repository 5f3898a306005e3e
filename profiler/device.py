"""The device under test as torch sees it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from model.errors import InvalidFieldError
from model.precision import Precision
from profiler import processor
from profiler.texts import one_line

_DTYPES = {
    Precision.FP32: torch.float32,
    Precision.BF16: torch.bfloat16,
    Precision.FP16: torch.float16,
    Precision.INT8_WEIGHT_ONLY: torch.bfloat16,
    Precision.INT8: torch.bfloat16,
    Precision.FP8: torch.bfloat16,
    Precision.INT4: torch.bfloat16,
    Precision.FP8_BLOCK: torch.bfloat16,
}
FP8_CAPABILITY = (8, 9)
"""Compute capability from which on GPUs multiply fp8."""
_BLOCKS_CAPABILITY = (9, 0)
"""The only one for which cuBLAS multiplies fp8 in DeepSeek's blocks, since CUDA 12.9."""
_BLOCKS_CUDA = (12, 9)
_GPU_SHARE = 0.9
"""Of the memory that is free on a GPU when it is opened: beyond it torch is out of memory."""
_RANDOM_VALUES = 1 << 20
_UNKNOWN_CACHE_BYTES = 32 << 20
_MAX_COLD_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Device:
    """One device.

    Attributes:
        name: "cpu" or "cuda:0".
        cache_bytes: last-level cache.
        processors: streaming multiprocessors of a GPU, else 0.
        capability: compute capability of a GPU, major and minor.
    """

    name: str
    cache_bytes: int
    processors: int = 0
    capability: tuple[int, int] = (0, 0)

    @property
    def torch_device(self) -> torch.device:
        """The device for torch's factories."""
        return torch.device(self.name)

    @property
    def is_cuda(self) -> bool:
        """Whether it is a CUDA device."""
        return self.name.startswith("cuda")

    @property
    def cold_bytes(self) -> int:
        """Bytes to rotate over so that none are found in the cache: twice the cache.

        Bounded, as a virtual machine may report the cache of a whole socket.
        """
        return min(2 * self.cache_bytes, _MAX_COLD_BYTES)

    @property
    def default_precision(self) -> Precision:
        """What a request that names no precision gets."""
        return Precision.BF16 if self.is_cuda else Precision.FP32

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """What plain torch runs well here, the default first."""
        if self.is_cuda:
            plain = (Precision.BF16, Precision.FP16, Precision.FP32)
            has_fp8 = self.capability >= FP8_CAPABILITY
            return (*plain[:1], Precision.FP8, *plain[1:]) if has_fp8 else plain
        return (Precision.FP32, Precision.BF16, Precision.INT8_WEIGHT_ONLY)

    def check(self, precision: Precision) -> None:
        """Checks that plain torch multiplies that format here.

        Raises:
            InvalidFieldError: it does not; names ``precision``.
        """
        dtype_of(precision)
        if precision is Precision.FP8 and self.is_cuda and self.capability < FP8_CAPABILITY:
            raise InvalidFieldError(
                "precision",
                f"{self.name} has no fp8 multipliers, which came with compute capability"
                f" {'.'.join(map(str, FP8_CAPABILITY))}; use bf16 or int8",
            )
        if precision is Precision.FP8_BLOCK and not (
            self.capability == _BLOCKS_CAPABILITY and _cuda_version() >= _BLOCKS_CUDA
        ):
            raise InvalidFieldError(
                "precision",
                "torch multiplies fp8 in blocks on GPUs of compute capability"
                f" {'.'.join(map(str, _BLOCKS_CAPABILITY))} alone, built for CUDA"
                f" {'.'.join(map(str, _BLOCKS_CUDA))} or later; use fp8 or bf16",
            )

    def free_bytes(self) -> int:
        """Returns the memory that can still be taken, what torch keeps for later among it."""
        if self.is_cuda:
            kept = torch.cuda.memory_reserved(self.name) - torch.cuda.memory_allocated(self.name)
            return int(torch.cuda.mem_get_info(self.torch_device)[0]) + kept
        return processor.available_bytes()

    def synchronize(self) -> None:
        """Waits until all that was launched has run."""
        if self.is_cuda:
            torch.cuda.synchronize(self.torch_device)

    def lost(self) -> str:
        """Returns what the driver says where a kernel took the context with it; else nothing.

        No call to the device works in such a process any more.
        """
        try:
            self.synchronize()
        except RuntimeError as error:
            return one_line(error)
        return ""

    def random(self, *size: int, dtype: torch.dtype) -> torch.Tensor:
        """Returns small random values, tiled from a block: drawing them all takes seconds."""
        tensor = torch.empty(size, dtype=dtype, device=self.torch_device)
        fill_random(tensor)
        return tensor


def open_device(name: str, threads: int = 0) -> Device:
    """Returns the device of that name.

    Args:
        name: "cpu" or "cuda:0".
        threads: that torch computes with on the CPU; 0 leaves torch's own choice.

    Raises:
        RuntimeError: torch sees no such device.
    """
    if name == "cpu":
        if threads:
            torch.set_num_threads(threads)
        _settle_allocator()
        return Device(name, _cpu_cache_bytes())
    gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if name not in gpus:
        raise RuntimeError(f"torch sees no device {name!r}; it sees {', '.join(['cpu', *gpus])}")
    torch.cuda.set_device(name)  # events are recorded on the current device
    properties = torch.cuda.get_device_properties(name)
    # What others have is theirs, and what they may still need is not ours alone.
    free, total = torch.cuda.mem_get_info(name)
    torch.cuda.set_per_process_memory_fraction(_GPU_SHARE * free / total, name)
    return Device(
        name,
        int(properties.L2_cache_size),
        int(properties.multi_processor_count),
        (int(properties.major), int(properties.minor)),
    )


def dtype_of(precision: Precision) -> torch.dtype:
    """Returns torch's type of a precision's activations.

    Raises:
        InvalidFieldError: plain torch modules do not run in it; names ``precision``.
    """
    if precision not in _DTYPES:
        raise InvalidFieldError(
            "precision", f"plain torch modules do not run in {precision}; use {', '.join(_DTYPES)}"
        )
    return _DTYPES[precision]


def fill_random(tensor: torch.Tensor) -> None:
    """Fills a tensor with small random values; zeros would compute at unreal speed and power."""
    flat = tensor.view(-1)
    block = torch.randn(min(flat.numel(), _RANDOM_VALUES), device=tensor.device).mul_(0.02)
    block = block.to(tensor.dtype)
    whole = flat.numel() // max(1, block.numel()) * block.numel()
    if whole:
        flat[:whole].view(-1, block.numel()).copy_(block)
    flat[whole:].copy_(block[: flat.numel() - whole])


def _cuda_version() -> tuple[int, ...]:
    """Returns the version of CUDA that torch is built for, empty where for none."""
    return tuple(int(part) for part in (torch.version.cuda or "").split(".") if part)


def _settle_allocator() -> None:
    """Brings glibc's malloc to the state it has in a process that ran a prompt.

    It hands freed memory back to the kernel until it has seen a large block freed; then
    page faults dominate what allocates (attention's cache grows by a copy a token), by
    a factor of up to 5. Blocks up to 32 MiB raise its thresholds for good.
    """
    block = torch.empty(31 << 20, dtype=torch.uint8)
    block.fill_(1)
    del block


def _cpu_cache_bytes() -> int:
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    sizes = []
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = path.read_text().strip()
        sizes.append(int(text[:-1]) * units[text[-1]] if text[-1] in units else int(text))
    return max(sizes, default=_UNKNOWN_CACHE_BYTES)
