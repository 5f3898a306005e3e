"""Architectures from a Hugging Face config.json."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from model.architecture import Activation
from model.dense import (
    RANGES,
    DenseDimensions,
    check_range,
    dense_architecture,
    with_window,
)
from model.errors import InvalidFieldError
from model.families import FAMILIES, WRAPPERS, Family, WindowRule
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
_LAYER_TYPES = ("full_attention", "sliding_attention")
_QUOTED = 100
"""Longest quotation of a value in a message: errors travel in small trailers."""


def architecture_from_config(config: Mapping[str, object], name: str = "") -> Architecture:
    """Builds the architecture that a config.json describes.

    Missing keys take the defaults of the model type in transformers. Of a model
    that reads images too (``gemma3``) it is the text decoder. Keys that change
    neither shapes nor work are ignored.

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
    if model_type not in FAMILIES or reader.flag("is_encoder_decoder", default=False):
        raise InvalidFieldError(
            "model_type",
            f"{_quoted(model_type)} is not a dense decoder known here; known: {_known()}",
        )
    return _decoder(reader, model_type, name or model_type)


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
    given = {field: value for field, value in dimensions.items() if value is not None}
    try:
        architecture = dense_architecture(
            **cast("DenseDimensions", given | {"name": name}),
            model_type=model_type,
            stored_precision=_stored_precision(reader),
        )
    except InvalidFieldError as error:
        raise InvalidFieldError(keys.get(error.field, error.field), error.message) from None
    return _windowed(reader, family, architecture)


def _size(reader: _Reader, field: str, key: str, default: object) -> int | None:
    """Reads a dimension; None where null leaves it to the others."""
    low, high = RANGES[field]
    # Zero stands for "left open" in the API, but is no size in a config.json.
    value = reader.integer(key, default, max(low, 1), high)
    if value is None and low == 1 and default is not None:
        raise InvalidFieldError(key, "null; give an integer")
    return value


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
    window = reader.integer("sliding_window", family.defaults["sliding_window"], max(low, 1), high)
    count = _windowed_layers(reader, family, architecture.layer_count)
    return architecture if window is None else with_window(architecture, window, count)


def _windowed_layers(reader: _Reader, family: Family, layers: int) -> int:
    """Returns how many layers have the window, wherever there is one."""
    if family.window is WindowRule.ALWAYS:
        return layers
    switched = family.window in {WindowRule.SWITCHED, WindowRule.SWITCHED_WITHOUT_ROPE}
    if switched and not reader.flag("use_sliding_window", default=False):
        return 0
    types = reader.layer_types(layers)
    if types is not None:
        return types.count("sliding_attention")
    high = RANGES["layer_count"][1]
    if family.window is WindowRule.SWITCHED:
        key = "max_window_layers"
        first = reader.integer(key, family.defaults[key], 0, high)
        return max(0, layers - (first or 0))
    if family.window is WindowRule.SWITCHED_WITHOUT_ROPE:
        key = "no_rope_layer_interval"
        return layers // (reader.integer(key, family.defaults[key], 1, high) or 1)
    key = "sliding_window_pattern"
    return layers - layers // (reader.integer(key, family.defaults[key], 1, high) or 1)


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
        if method in {"gptq", "awq"}:
            bits = reader.integer("bits", 4, 1, 32)
            if bits in {4, 8}:
                return Precision.INT4 if bits == 4 else Precision.INT8_WEIGHT_ONLY
            raise InvalidFieldError("bits", f"{bits} is neither 4 nor 8")
        raise InvalidFieldError(
            "quant_method", f"{_quoted(method)} is not known; known: fp8, gptq, awq"
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
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InvalidFieldError(key, f"{_quoted(value)} is not an integer")
        if not math.isfinite(value) or value != int(value):
            raise InvalidFieldError(key, f"{value} is not an integer")
        check_range(key, int(value), low, high)
        return int(value)

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

    def layer_types(self, layers: int) -> list[str] | None:
        """Returns the kind of each layer's attention, or None where it is not said."""
        value = self.values.get("layer_types")
        if value is None:
            return None
        if not isinstance(value, list) or len(value) != layers:
            raise InvalidFieldError("layer_types", f"is not a list of {layers} strings")
        for index, kind in enumerate(value):
            if kind not in _LAYER_TYPES:
                raise InvalidFieldError(
                    f"layer_types[{index}]",
                    f"{_quoted(kind)} is not known; known: {', '.join(_LAYER_TYPES)}",
                )
        return value


def _known() -> str:
    return ", ".join(sorted({*FAMILIES, *WRAPPERS}))


def _quoted(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _QUOTED else f"{text[: _QUOTED - 3]}..."
