"""Architectures from a Hugging Face config.json."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from model.blocks import Activation
from model.dimensions import (
    RANGES,
    Dimensions,
    architecture_of_dimensions,
    check_range,
    with_window,
)
from model.errors import InvalidFieldError
from model.families import ALIASES, FAMILIES, WRAPPERS, Family, WindowRule
from model.precision import Precision

if TYPE_CHECKING:
    from model.architecture import Architecture

_ACTIVATIONS = {
    "silu": Activation.SILU,
    "swish": Activation.SILU,
    "relu": Activation.RELU,
    "gelu": Activation.GELU,
    "gelu_new": Activation.GELU,
    "gelu_fast": Activation.GELU,
    "gelu_python": Activation.GELU,
    "gelu_pytorch_tanh": Activation.GELU,
    "quick_gelu": Activation.GELU,
}
_DTYPES = {
    "float32": Precision.FP32,
    "float16": Precision.FP16,
    "bfloat16": Precision.BF16,
    "float": Precision.FP32,
    "half": Precision.FP16,
}
_PLACES = {
    WindowRule.SWITCHED: "max_window_layers",
    WindowRule.SWITCHED_WITHOUT_ROPE: "no_rope_layer_interval",
    WindowRule.PATTERN: "sliding_window_pattern",
    WindowRule.CHUNKED: "no_rope_layer_interval",
}
"""Key that places the windows where no list does."""
_LEFT_OPEN = frozenset({"kv_heads", "head_dim", "learned_positions", "query_rank"})
"""Dimensions that null leaves to the others."""
_QUOTED = 100
"""Longest quotation of a value in a message: errors travel in small trailers."""


def architecture_from_config(config: Mapping[str, object], name: str = "") -> Architecture:
    """Builds the architecture that a config.json describes.

    Missing keys take the defaults of the model type in transformers. Of a model
    that reads images too (``gemma3``, ``llama4``) it is the text decoder, and layers
    that predict further tokens (MTP) are left out. Keys that change neither shapes nor
    work are ignored.

    Args:
        config: its keys; numbers may be doubles, as JSON has no other.
        name: of the architecture; empty takes the model type.

    Raises:
        InvalidFieldError: the model type is unknown or a value cannot be used; names
            the key ("hidden_size", "text_config.num_hidden_layers").
    """
    reader = _Reader(config)
    model_type = reader.text("model_type", None)
    if model_type is None:
        raise InvalidFieldError("model_type", f"missing; set it to one of {_known()}")
    if model_type in WRAPPERS:
        inner = config.get("text_config", {})
        if not isinstance(inner, Mapping):
            raise InvalidFieldError("text_config", f"{_quoted(inner)} is not an object")
        shared = {key: config[key] for key in _SHARED if key in config and key not in inner}
        nested = {**shared, **inner, "model_type": WRAPPERS[model_type]}
        try:
            return _decoder(_Reader(nested), WRAPPERS[model_type], name or model_type)
        except InvalidFieldError as error:
            outer = error.field.partition(".")[0] in shared
            raise (error if outer else error.within("text_config")) from None
    family = ALIASES.get(model_type, model_type)
    if family not in FAMILIES or reader.flag("is_encoder_decoder", default=False):
        raise InvalidFieldError(
            "model_type",
            f"{_quoted(model_type)} is not a decoder known here; known: {_known()}",
        )
    return _decoder(reader, family, name or model_type)


_SHARED = ("dtype", "torch_dtype", "quantization_config")


def _decoder(reader: _Reader, model_type: str, name: str) -> Architecture:
    family = FAMILIES[model_type]
    for key in family.refused:
        if reader.flag(key, default=False):
            raise InvalidFieldError(
                key, f"true makes a kind of block of {model_type} that is not known here; use false"
            )
    keys = {field: reader.spelling(spellings) for field, spellings in family.keys.items()}
    dimensions: dict[str, object] = dict(family.fixed)
    for field, key in keys.items():
        default = family.defaults.get(family.keys[field][0])
        if field == "activation":
            dimensions[field] = _activation(reader, key, default)
        else:
            dimensions[field] = _size(reader, field, key, default)
    if dimensions["intermediate_size"] is None:  # GPT-2 alone leaves it open
        dimensions["intermediate_size"] = 4 * cast("int", dimensions["hidden_size"])
    for key, switched in family.flags.items():
        on = reader.flag(key, default=family.defaults.get(key) is True)
        dimensions.update(dict.fromkeys(switched, on))
    dimensions["tied_embeddings"] = reader.flag(
        "tie_word_embeddings", default=family.defaults["tie_word_embeddings"] is True
    )
    keys |= _experts(reader, family, dimensions)
    given = {field: value for field, value in dimensions.items() if value is not None}
    try:
        architecture = architecture_of_dimensions(
            **cast("Dimensions", given | {"name": name}),
            model_type=model_type,
            stored_precision=_stored_precision(reader),
        )
    except InvalidFieldError as error:
        raise InvalidFieldError(keys.get(error.field, error.field), error.message) from None
    return _windowed(reader, family, architecture)


def _size(reader: _Reader, field: str, key: str, default: object) -> int | None:
    """Reads a dimension; None where null leaves it to the others."""
    low, high = RANGES[field]
    # Zero mostly stands for "left open" in the API, but is no size in a config.json.
    least = 0 if field == "leading_dense_layers" else max(low, 1)
    value = reader.integer(key, default, least, high)
    if value is None and default is not None and field not in _LEFT_OPEN:
        raise InvalidFieldError(key, "null; give an integer")
    return value


def _experts(reader: _Reader, family: Family, dimensions: dict[str, object]) -> dict[str, str]:
    """Adds what a count or a list says of the experts; returns the keys it stood in."""
    keys = {}
    if key := family.shared_experts:
        count = reader.integer(key, family.defaults[key], 0, RANGES["experts"][1])
        width = cast("int", dimensions["expert_intermediate_size"])
        dimensions["shared_intermediate_size"] = (count or 0) * width
        keys["shared_intermediate_size"] = key
    layers = cast("int", dimensions["layer_count"])
    if key := family.expert_layers:
        placed = reader.integers(key, 0, layers - 1)
    elif (key := family.dense_layers) and (dense := set(reader.integers(key, 0, layers - 1) or ())):
        interval = cast("int", dimensions["expert_interval"])
        placed = [i for i in range(layers) if (i + 1) % interval == 0 and i not in dense]
    else:
        placed = None
    if placed is not None:
        # Layers are counted, not ordered: as many dense ones in front cost the same.
        dimensions["leading_dense_layers"] = layers - len(set(placed))
        dimensions["expert_interval"] = 1
        keys["leading_dense_layers"] = key
    return keys


def _activation(reader: _Reader, key: str, default: object) -> Activation:
    text = reader.text(key, cast("str", default))
    if text not in _ACTIVATIONS:
        raise InvalidFieldError(
            key, f"{_quoted(text)} is not known; known: {', '.join(_ACTIVATIONS)}"
        )
    return _ACTIVATIONS[text]


def _windowed(reader: _Reader, family: Family, architecture: Architecture) -> Architecture:
    """Gives the layers that have it their sliding window."""
    if family.window is WindowRule.NEVER:
        return architecture
    low, high = RANGES["sliding_window"]
    key = "attention_chunk_size" if family.window is WindowRule.CHUNKED else "sliding_window"
    window = reader.integer(key, family.defaults[key], max(low, 1), high)
    count = _windowed_layers(reader, family, architecture.layer_count)
    return architecture if window is None else with_window(architecture, window, count)


def _windowed_layers(reader: _Reader, family: Family, layers: int) -> int:
    """Returns how many layers have the window, wherever there is one."""
    if family.window is WindowRule.ALWAYS:
        return layers
    switched = family.window in {WindowRule.SWITCHED, WindowRule.SWITCHED_WITHOUT_ROPE}
    if switched and not reader.flag("use_sliding_window", default=False):
        return 0
    chunked = family.window is WindowRule.CHUNKED
    kind = "chunked_attention" if chunked else "sliding_attention"
    types = reader.layer_types(layers, kind)
    if types is not None:
        return types.count(kind)
    if chunked and (rotary := reader.integers("no_rope_layers", 0, 1)):
        if len(rotary) != layers:
            raise InvalidFieldError("no_rope_layers", f"is not a list of {layers} integers")
        return sum(rotary)
    key = _PLACES[family.window]
    first = family.window is WindowRule.SWITCHED
    place = reader.integer(key, family.defaults[key], 0 if first else 1, RANGES["layer_count"][1])
    if first:
        return max(0, layers - (place or 0))
    every = layers // (place or 1)
    return every if family.window is WindowRule.SWITCHED_WITHOUT_ROPE else layers - every


def _stored_precision(reader: _Reader) -> Precision:
    """Reads the format of the checkpoint; bf16 where nothing is said."""
    quantization = reader.values.get("quantization_config")
    if quantization is not None:
        return _quantized(quantization)
    key = "dtype" if reader.values.get("dtype") is not None else "torch_dtype"
    text = reader.text(key, None)
    if text is None or text == "auto":
        return Precision.BF16
    plain = text.removeprefix("torch.")
    if plain not in _DTYPES:
        raise InvalidFieldError(key, f"{_quoted(text)} is not known; known: {', '.join(_DTYPES)}")
    return _DTYPES[plain]


def _quantized(value: object) -> Precision:
    try:
        if not isinstance(value, Mapping):
            raise InvalidFieldError("", f"{_quoted(value)} is not an object")
        reader = _Reader(value)
        method = reader.text("quant_method", None)
        if method == "fp8":
            block = value.get("weight_block_size")
            return Precision.FP8 if block is None else Precision.FP8_BLOCK
        if method == "mxfp4":
            return Precision.FP4
        if method in {"gptq", "awq"}:
            bits = reader.integer("bits", 4, 1, 32)
            if bits in {4, 8}:
                return Precision.INT4 if bits == 4 else Precision.INT8_WEIGHT_ONLY
            raise InvalidFieldError("bits", f"{bits} is neither 4 nor 8")
        raise InvalidFieldError(
            "quant_method", f"{_quoted(method)} is not known; known: fp8, mxfp4, gptq, awq"
        )
    except InvalidFieldError as error:
        raise error.within("quantization_config") from None


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads typed values of a config; each method names the key in its error."""

    values: Mapping[str, object]

    def spelling(self, spellings: tuple[str, ...]) -> str:
        """Returns the spelling of a key that is set, else the first."""
        present = (key for key in spellings if self.values.get(key) is not None)
        return next(present, spellings[0])

    def integer(self, key: str, default: object, low: int, high: int) -> int | None:
        """Returns an integer in ``low`` to ``high``, or None for null."""
        value = self.values.get(key, default)
        return None if value is None else _integer(key, value, low, high)

    def integers(self, key: str, low: int, high: int) -> list[int] | None:
        """Returns a list of integers in ``low`` to ``high``, or None where there is none."""
        values = self.values.get(key)
        if values is None:
            return None
        if not isinstance(values, list):
            raise InvalidFieldError(key, f"{_quoted(values)} is not a list of integers")
        return [_integer(f"{key}[{i}]", value, low, high) for i, value in enumerate(values)]

    def flag(self, key: str, *, default: bool) -> bool:
        """Returns a boolean; null counts as the default."""
        value = self.values.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise InvalidFieldError(key, f"{_quoted(value)} is neither true nor false")
        return value

    def text(self, key: str, default: str | None) -> str | None:
        """Returns a string; null counts as the default."""
        value = self.values.get(key)
        if value is None:
            return default
        if not isinstance(value, str):
            raise InvalidFieldError(key, f"{_quoted(value)} is not a string")
        return value

    def layer_types(self, layers: int, windowed: str) -> list[str] | None:
        """Returns the kind of each layer's attention, or None where it is not said."""
        known = ("full_attention", windowed)
        value = self.values.get("layer_types")
        if value is None:
            return None
        if not isinstance(value, list) or len(value) != layers:
            raise InvalidFieldError("layer_types", f"is not a list of {layers} strings")
        for index, kind in enumerate(value):
            if kind not in known:
                raise InvalidFieldError(
                    f"layer_types[{index}]",
                    f"{_quoted(kind)} is not known; known: {', '.join(known)}",
                )
        return value


def _integer(key: str, value: object, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidFieldError(key, f"{_quoted(value)} is not an integer")
    if not math.isfinite(value) or value != int(value):
        raise InvalidFieldError(key, f"{value} is not an integer")
    check_range(key, int(value), low, high)
    return int(value)


def _known() -> str:
    return ", ".join(sorted({*FAMILIES, *ALIASES, *WRAPPERS}))


def _quoted(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _QUOTED else f"{text[: _QUOTED - 3]}..."
