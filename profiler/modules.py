"""Whole transformers models with random weights, and the ranks' shares of them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.initialization import no_init_weights

from model.dimensions import dimensions_of
from model.errors import InvalidFieldError
from model.families import FAMILIES, WindowRule
from model.precision import Precision
from profiler.device import dtype_of, fill_random
from profiler.int8 import quantize_linears

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

    from model.architecture import Architecture
    from profiler.device import Device

_POSITIONS = 1 << 20
"""Rotary positions reach as far as a request asks; no table is made of them."""


def shard(architecture: Architecture, tensor: int) -> Architecture:
    """Returns the architecture whose layers and vocabulary are one tensor-parallel rank's.

    Raises:
        InvalidFieldError: ``tensor`` does not fit the heads, or the family's modules
            cannot be cut (their head size follows from the hidden size).
    """
    if tensor == 1:
        return architecture
    if "head_dim" not in FAMILIES[architecture.model_type].keys:
        raise InvalidFieldError(
            "tensor", f"modules of {architecture.model_type} cannot be cut into ranks; use 1"
        )
    return replace(
        architecture,
        layers=tuple(replace(g, layer=g.layer.shard(tensor)) for g in architecture.layers),
        vocab_size=-(-architecture.vocab_size // tensor),
    )


def with_depth(architecture: Architecture, layer_count: int) -> Architecture:
    """Returns the architecture with about so many layers.

    Kinds of layers stay in proportion as far as one of each allows.
    """
    whole = architecture.layer_count
    if layer_count >= whole:
        return architecture
    groups = [
        replace(group, count=max(1, round(group.count * layer_count / whole)))
        for group in architecture.layers
    ]
    return replace(architecture, layers=tuple(groups))


def configuration_of(architecture: Architecture) -> PreTrainedConfig:
    """Returns the transformers configuration of a dense architecture."""
    family = FAMILIES[architecture.model_type]
    dimensions: dict[str, Any] = dict(dimensions_of(architecture))
    keys = {
        spellings[0]: dimensions[name]
        for name, spellings in family.keys.items()
        if name != "activation"
    }
    for flag, names in family.flags.items():
        keys[flag] = all(dimensions[name] for name in names)
    keys["tie_word_embeddings"] = architecture.tied_embeddings
    if "learned_positions" not in family.keys:
        keys["max_position_embeddings"] = _POSITIONS
    keys |= _window_keys(architecture, family.window)
    # Token ids beyond a small vocabulary would be refused.
    keys |= {"bos_token_id": 0, "eos_token_id": None, "pad_token_id": 0}
    return AutoConfig.for_model(architecture.model_type, **keys)


def build_model(
    architecture: Architecture, precision: Precision, device: Device
) -> PreTrainedModel:
    """Returns the model with random weights, ready to run; memory is taken here.

    Raises:
        InvalidFieldError: plain torch modules do not run in the precision.
        RuntimeError: out of memory.
    """
    configuration = configuration_of(architecture)
    with no_init_weights(), torch.device(device.torch_device):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            configuration, dtype=dtype_of(precision)
        )
    model.tie_weights()
    with torch.no_grad():
        for parameter in model.parameters():
            fill_random(parameter)
        if precision is Precision.INT8_WEIGHT_ONLY:
            quantize_linears(model)
    model.train(mode=False)
    return model


def _window_keys(architecture: Architecture, rule: WindowRule) -> dict[str, Any]:
    windows = [g.layer.attention.window for g in architecture.layers for _ in range(g.count)]
    window = max((w or 0 for w in windows), default=0) or None
    if rule is WindowRule.NEVER:
        return {}
    if rule is WindowRule.ALWAYS:
        return {"sliding_window": window}
    types = ["sliding_attention" if w else "full_attention" for w in windows]
    if rule is WindowRule.PATTERN:
        return {"sliding_window": window or 4096, "layer_types": types}
    return {
        "sliding_window": window,
        "use_sliding_window": window is not None,
        "layer_types": types,
    }
