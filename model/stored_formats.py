"""Which number formats a checkpoint keeps its weights in, by its config.json."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from model.config_reader import ConfigReader, quoted
from model.errors import InvalidFieldError
from model.precision import PackedFormat, Precision

_DTYPES = {
    "float32": Precision.FP32,
    "float16": Precision.FP16,
    "bfloat16": Precision.BF16,
    "float": Precision.FP32,
    "half": Precision.FP16,
}
_METHODS = ("fp8", "mxfp4", "compressed-tensors", "modelopt", "gptq", "awq")
_MODELOPT = {"FP8": Precision.FP8, "NVFP4": Precision.FP4}
"""Its ``quant_algo`` where no group of modules tells more."""
_MXFP4 = PackedFormat(Precision.FP4, 0.5 + 1 / 32)
"""One exponent of 8 bits for 32 values (OCP Microscaling Formats, version 1.0)."""
_SCALE_BYTES = {"int": 2, "float": 1}
"""Scales of a group: bf16 beside integers, fp8 or an exponent beside 4-bit floats."""
_ANY_LAYER = "layers.N."
_ATTENTION, _EXPERT = "layers.N.self_attn.o_proj", "layers.N.mlp.experts.N.down_proj"
"""What stands for all projections of attention and of routed experts."""


class StoredFormats(NamedTuple):
    """Formats of a checkpoint.

    Attributes:
        precision: of all projections but those of ``experts``.
        experts: of the routed experts where they have one of their own.
    """

    precision: Precision
    experts: PackedFormat | None = None


def stored_formats(reader: ConfigReader, *, has_experts: bool) -> StoredFormats:
    """Reads the formats that a config.json tells; bf16 where nothing is said.

    Args:
        reader: of the config.json.
        has_experts: whether some layers have routed experts.

    Raises:
        InvalidFieldError: a format is not known; names its key.
    """
    quantization = reader.values.get("quantization_config")
    if quantization is None:
        return StoredFormats(_plain(reader))
    if not isinstance(quantization, Mapping):
        raise InvalidFieldError("quantization_config", f"{quoted(quantization)} is not an object")
    inner = ConfigReader(quantization)
    try:
        method = inner.text("quant_method", None)
        if method == "mxfp4":
            # transformers packs the experts alone so.
            packed = _MXFP4
            left_out = [_ATTENTION] if has_experts else []
        elif method == "compressed-tensors" or "config_groups" in quantization:
            packed = _compressed(inner)
            left_out = _left_out(inner)
        else:
            return StoredFormats(_whole(inner, method))
    except InvalidFieldError as error:
        raise error.within("quantization_config") from None
    if not left_out:
        return StoredFormats(packed.precision)
    if not has_experts:
        raise InvalidFieldError(
            "quantization_config.ignore",
            "leaves the attention of a dense model in another format than the rest, which is not"
            " known here; leave the list out",
        )
    plain = _plain(reader)
    if _ATTENTION not in left_out:
        return StoredFormats(packed.precision, PackedFormat(plain, plain.weight_bytes))
    return StoredFormats(plain, None if _EXPERT in left_out else packed)


def _plain(reader: ConfigReader) -> Precision:
    """Reads the format of what is not packed."""
    key = "dtype" if reader.values.get("dtype") is not None else "torch_dtype"
    text = reader.text(key, None)
    if text is None or text == "auto":
        return Precision.BF16
    plain = text.removeprefix("torch.")
    if plain not in _DTYPES:
        raise InvalidFieldError(key, f"{quoted(text)} is not known; known: {', '.join(_DTYPES)}")
    return _DTYPES[plain]


def _whole(reader: ConfigReader, method: str | None) -> Precision:
    """Reads the format of a method that packs all projections alike."""
    if method == "fp8":
        block = reader.values.get("weight_block_size")
        return Precision.FP8 if block is None else Precision.FP8_BLOCK
    if method == "modelopt":
        algorithm = reader.text("quant_algo", None)
        if algorithm in _MODELOPT:
            return _MODELOPT[algorithm]
        raise InvalidFieldError(
            "quant_algo", f"{quoted(algorithm)} is not known; known: {', '.join(_MODELOPT)}"
        )
    if method in {"gptq", "awq"}:
        bits = reader.integer("bits", 4, 1, 32)
        if bits in {4, 8}:
            return Precision.INT4 if bits == 4 else Precision.INT8_WEIGHT_ONLY
        raise InvalidFieldError("bits", f"{bits} is neither 4 nor 8")
    raise InvalidFieldError(
        "quant_method", f"{quoted(method)} is not known; known: {', '.join(_METHODS)}"
    )


def _compressed(reader: ConfigReader) -> PackedFormat:
    """Reads the one format of compressed-tensors' ``config_groups``."""
    groups = reader.values.get("config_groups")
    if not isinstance(groups, Mapping) or len(groups) != 1:
        raise InvalidFieldError("config_groups", "is not an object with one group of modules")
    ((name, group),) = groups.items()
    field = f"config_groups.{quoted(name)}"
    if not isinstance(group, Mapping) or not isinstance(group.get("weights"), Mapping):
        raise InvalidFieldError(field, "is not an object with weights")
    weights = ConfigReader(group["weights"])
    try:
        kind, bits = weights.text("type", "int"), weights.integer("num_bits", 8, 1, 32)
        size = weights.integer("group_size", None, -1, 1 << 20)
        strategy = weights.text("strategy", None)
    except InvalidFieldError as error:
        raise error.within(f"{field}.weights") from None
    weight_only = group.get("input_activations") is None
    formats = {
        ("int", 4, True): Precision.INT4,
        ("int", 8, True): Precision.INT8_WEIGHT_ONLY,
        ("int", 8, False): Precision.INT8,
        ("float", 8, False): Precision.FP8_BLOCK if strategy == "block" else Precision.FP8,
        ("float", 4, True): Precision.FP4,
        ("float", 4, False): Precision.FP4,
    }
    precision = formats.get((kind or "", bits or 0, weight_only))
    if precision is None:
        raise InvalidFieldError(
            f"{field}.weights",
            f"{bits} bits of {quoted(kind)} {'alone' if weight_only else 'with activations'}"
            " are not known here; known: int 4 and 8 alone, int 8 and float 8 with activations,"
            " float 4",
        )
    if size is None or size < 1:
        return PackedFormat(precision, precision.weight_bytes)
    return PackedFormat(precision, (bits or 0) / 8 + _SCALE_BYTES[kind or "int"] / size)


def _left_out(reader: ConfigReader) -> list[str]:
    """Returns which of the two kinds of projections the ignore list covers."""
    entries = reader.values.get("ignore")
    if entries is None:
        return []
    if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
        raise InvalidFieldError("ignore", "is not a list of strings")
    names = (_ATTENTION, _EXPERT)
    return [name for name in names if any(_covers(entry, name) for entry in entries)]


def _covers(entry: str, name: str) -> bool:
    """Returns whether an entry of an ignore list names a module, of whatever layer.

    An entry is a name, the beginning of one before ``*`` or, behind ``re:``, a pattern. One
    that takes whole layers out names no module of all layers: it says nothing of the others.
    Of patterns the literal pieces between ``.*`` are looked for, one behind the other: a
    stranger's regular expression may take for ever, and published lists need no more.
    """
    if not entry.startswith("re:"):
        plain = re.sub(r"\d+", "N", entry)
        if not plain.endswith("*"):
            return plain.endswith(name)
        stem = plain.rstrip("*").rpartition(_ANY_LAYER)[2]
        return bool(stem) and name.removeprefix(_ANY_LAYER).startswith(stem)
    place = 0
    for piece in entry.removeprefix("re:").replace("\\.", ".").split(".*"):
        found = name.find(piece, place)
        if found < 0:
            return False
        place = found + len(piece)
    return True
