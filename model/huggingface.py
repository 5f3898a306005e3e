"""Architectures from a Hugging Face config.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from model.blocks import Activation
from model.config_reader import ConfigReader, quoted
from model.dimensions import (
    RANGES,
    Dimensions,
    architecture_of_dimensions,
    with_window,
)
from model.errors import InvalidFieldError
from model.families import ALIASES, FAMILIES, WRAPPERS, Family, WindowRule
from model.stored_formats import stored_formats

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
_PLACES = {
    WindowRule.SWITCHED: "max_window_layers",
    WindowRule.SWITCHED_WITHOUT_ROPE: "no_rope_layer_interval",
    WindowRule.PATTERN: "sliding_window_pattern",
    WindowRule.CHUNKED: "no_rope_layer_interval",
}
"""Key that places the windows where no list does."""
_LEFT_OPEN = frozenset({"kv_heads", "head_dim", "learned_positions", "query_rank"})
"""Dimensions that null leaves to the others."""


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
    reader = ConfigReader(config)
    model_type = reader.text("model_type", None)
    if model_type is None:
        raise InvalidFieldError("model_type", f"missing; set it to one of {_known()}")
    if model_type in WRAPPERS:
        inner = config.get("text_config", {})
        if not isinstance(inner, Mapping):
            raise InvalidFieldError("text_config", f"{quoted(inner)} is not an object")
        shared = {key: config[key] for key in _SHARED if key in config and key not in inner}
        nested = {**shared, **inner, "model_type": WRAPPERS[model_type]}
        try:
            return _decoder(ConfigReader(nested), WRAPPERS[model_type], name or model_type)
        except InvalidFieldError as error:
            outer = error.field.partition(".")[0] in shared
            raise (error if outer else error.within("text_config")) from None
    family = ALIASES.get(model_type, model_type)
    if family not in FAMILIES:
        raise InvalidFieldError(
            "model_type",
            f"{quoted(model_type)} is not a decoder known here; known: {_known()}",
        )
    return _decoder(reader, family, name or model_type)


_SHARED = ("dtype", "torch_dtype", "quantization_config", "tie_word_embeddings")


def _decoder(reader: ConfigReader, model_type: str, name: str) -> Architecture:
    family = FAMILIES[model_type]
    if reader.flag("is_encoder_decoder", default=False):
        raise InvalidFieldError(
            "is_encoder_decoder",
            "true makes an encoder beside the decoder, which is not known here; use false",
        )
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
    layers = cast("int", dimensions["layer_count"])
    _check_indexers(reader, family, layers)
    linear_layers = None
    if "linear_key_heads" in dimensions:
        types = reader.kinds("layer_types", layers, ("full_attention", "linear_attention"))
        if types is not None:
            linear_layers = types.count("linear_attention")
            keys["full_attention_interval"] = "layer_types"
    given = {field: value for field, value in dimensions.items() if value is not None}
    try:
        architecture = architecture_of_dimensions(
            **cast("Dimensions", given | {"name": name}),
            model_type=model_type,
            linear_layers=linear_layers,
        )
    except InvalidFieldError as error:
        raise InvalidFieldError(keys.get(error.field, error.field), error.message) from None
    stored = stored_formats(reader, has_experts=architecture.experts is not None)
    architecture = replace(
        architecture, stored_precision=stored.precision, stored_experts=stored.experts
    )
    return _windowed(reader, family, architecture)


def _size(reader: ConfigReader, field: str, key: str, default: object) -> int | None:
    """Reads a dimension; None where null leaves it to the others."""
    low, high = RANGES[field]
    # Zero mostly stands for "left open" in the API, but is no size in a config.json.
    least = 0 if field == "leading_dense_layers" else max(low, 1)
    value = reader.integer(key, default, least, high)
    if value is None and default is not None and field not in _LEFT_OPEN:
        raise InvalidFieldError(key, "null; give an integer")
    return value


def _experts(reader: ConfigReader, family: Family, dimensions: dict[str, object]) -> dict[str, str]:
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
    elif (key := family.feed_forward_types) and (
        types := reader.kinds(key, layers, ("dense", "sparse"))
    ):
        placed = [i for i, kind in enumerate(types) if kind == "sparse"]
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


def _check_indexers(reader: ConfigReader, family: Family, layers: int) -> None:
    """Refuses layers that take over what another layer's indexer picked.

    Raises:
        InvalidFieldError: there are some; names the key.
    """
    if not family.shared_indexers:
        return
    listed, pattern, interval = family.shared_indexers
    types = reader.kinds(listed, layers, ("full", "shared"))
    placed = reader.text(pattern, None)
    every = reader.integer(interval, 1, 0, RANGES["layer_count"][1]) or 1
    # The list goes before the pattern, and that before the interval.
    shared = (
        (listed, types is not None and "shared" in types),
        (pattern, types is None and "S" in (placed or "")),
        (interval, types is None and placed is None and every > 1),
    )
    for key, found in shared:
        if found:
            raise InvalidFieldError(
                key, "layers that share another's indexer are not known here; give each its own"
            )


def _activation(reader: ConfigReader, key: str, default: object) -> Activation:
    text = reader.text(key, cast("str", default))
    if text not in _ACTIVATIONS:
        raise InvalidFieldError(
            key, f"{quoted(text)} is not known; known: {', '.join(_ACTIVATIONS)}"
        )
    return _ACTIVATIONS[text]


def _windowed(reader: ConfigReader, family: Family, architecture: Architecture) -> Architecture:
    """Gives the layers that have it their sliding window."""
    if family.window is WindowRule.NEVER:
        return architecture
    low, high = RANGES["sliding_window"]
    key = "attention_chunk_size" if family.window is WindowRule.CHUNKED else "sliding_window"
    window = reader.integer(key, family.defaults[key], max(low, 1), high)
    count = _windowed_layers(reader, family, architecture.layer_count)
    return architecture if window is None else with_window(architecture, window, count)


def _windowed_layers(reader: ConfigReader, family: Family, layers: int) -> int:
    """Returns how many layers have the window, wherever there is one."""
    if family.window is WindowRule.ALWAYS:
        return layers
    switched = family.window in {WindowRule.SWITCHED, WindowRule.SWITCHED_WITHOUT_ROPE}
    if switched and not reader.flag("use_sliding_window", default=False):
        return 0
    chunked = family.window is WindowRule.CHUNKED
    kind = "chunked_attention" if chunked else "sliding_attention"
    types = reader.kinds("layer_types", layers, ("full_attention", kind))
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


def _known() -> str:
    return ", ".join(sorted({*FAMILIES, *ALIASES, *WRAPPERS}))
