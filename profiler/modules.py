"""Whole transformers models with random weights, and the ranks' shares of them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.initialization import no_init_weights

from model.blocks import Experts
from model.dimensions import dimensions_of
from model.errors import InvalidFieldError
from model.families import FAMILIES, Family, WindowRule
from profiler.device import dtype_of, fill_random
from profiler.packed import PACKED, pack_linears
from profiler.spread import head_rows, with_layers_cut

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

    from model.architecture import Architecture
    from model.precision import Precision
    from profiler.device import Device
    from profiler.ranks import Rank

_PLACED = frozenset(
    {
        "activation",
        "experts",
        "experts_per_token",
        "expert_intermediate_size",
        "shared_intermediate_size",
        "leading_dense_layers",
        "expert_interval",
        "query_rank",
    }
)
"""Dimensions that are no plain key: the family's own, left out where none, or placed by list."""
_FAINT = 1e-3
_ROW_BYTES = 16
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
    _check_cut(architecture)
    return replace(
        with_layers_cut(architecture, tensor), vocab_size=-(-architecture.vocab_size // tensor)
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
    """Returns the transformers configuration of an architecture.

    Dense layers come before those with experts. Routing by groups of experts is left out:
    every expert is every token's to choose.

    Raises:
        InvalidFieldError: the family's modules lack a block of the architecture; names it.
    """
    family = FAMILIES[architecture.model_type]
    dimensions: dict[str, Any] = dict(dimensions_of(architecture))
    keys = {
        spellings[0]: dimensions[name]
        for name, spellings in family.keys.items()
        if name not in _PLACED
    }
    for flag, names in family.flags.items():
        keys[flag] = all(dimensions[name] for name in names)
    keys["tie_word_embeddings"] = architecture.tied_embeddings
    if "learned_positions" not in family.keys:
        keys["max_position_embeddings"] = _POSITIONS
    keys |= _window_keys(architecture, family.window)
    keys |= _latent_keys(architecture, family, dimensions)
    keys |= _expert_keys(architecture, family, dimensions)
    # Token ids beyond a small vocabulary would be refused.
    keys |= {"bos_token_id": 0, "eos_token_id": None, "pad_token_id": 0}
    return AutoConfig.for_model(architecture.model_type, **keys)


def build_model(
    architecture: Architecture, precision: Precision, device: Device, rank: Rank | None = None
) -> PreTrainedModel:
    """Returns the model with random weights, ready to run; memory is taken here.

    Args:
        architecture: the whole model, or one that was cut.
        precision: of weights and activations.
        device: that it is on.
        rank: whose share of the whole it is: layers and head are cut, the embedding is whole.
            What it exchanges with others is its caller's to add.

    Raises:
        InvalidFieldError: plain torch modules do not run in the precision, lack a block
            of the architecture, or cannot be cut so.
        RuntimeError: out of memory.
    """
    own = head_rows(architecture.vocab_size, rank)
    if rank is not None:
        _check_cut(architecture)
        architecture = replace(
            with_layers_cut(architecture, rank.count),
            vocab_size=rank.count * (own.stop - own.start),
        )
    if precision in PACKED and architecture.experts is not None:
        raise InvalidFieldError(
            "precision",
            f"modules of {architecture.model_type} hold no experts in {precision};"
            " use fp32 or bf16",
        )
    configuration = configuration_of(architecture)
    _check_rows(architecture, precision)
    with no_init_weights(), torch.device(device.torch_device):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            configuration, dtype=dtype_of(precision)
        )
    model.tie_weights()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            fill_random(parameter)
            if architecture.experts is not None and name.endswith("bias"):
                # The same for all tokens, it would send them to the same experts.
                parameter.mul_(_FAINT)
        if rank is not None:
            _cut_head(model, own)
        if precision in PACKED:
            pack_linears(model, precision)
    model.train(mode=False)
    return model


def _check_cut(architecture: Architecture) -> None:
    """Checks that a family's modules take fewer heads than the hidden size has room for.

    Raises:
        InvalidFieldError: they do not; names ``tensor``.
    """
    if "head_dim" not in FAMILIES[architecture.model_type].keys:
        raise InvalidFieldError(
            "tensor", f"modules of {architecture.model_type} cannot be cut into ranks; use 1"
        )


def _cut_head(model: PreTrainedModel, own: slice) -> None:
    """Leaves a head these rows alone; those that it shared with the embedding it still shares."""
    untyped: Any = model
    head = untyped.get_output_embeddings()
    head.weight, head.out_features = nn.Parameter(head.weight[own]), own.stop - own.start
    if head.bias is not None:
        head.bias = nn.Parameter(head.bias[own])


def _window_keys(architecture: Architecture, rule: WindowRule) -> dict[str, Any]:
    windows = [g.layer.attention.window for g in architecture.layers for _ in range(g.count)]
    window = max((w or 0 for w in windows), default=0) or None
    if rule is WindowRule.NEVER:
        return {}
    if rule is WindowRule.ALWAYS:
        return {"sliding_window": window}
    types = ["sliding_attention" if w else "full_attention" for w in windows]
    if rule is WindowRule.CHUNKED:
        # Layers that see everything have no positions, as the family has it.
        return {
            "attention_chunk_size": window or _POSITIONS,
            "no_rope_layers": [int(bool(w)) for w in windows],
        }
    if rule is WindowRule.PATTERN:
        return {"sliding_window": window or 4096, "layer_types": types}
    return {
        "sliding_window": window,
        "use_sliding_window": window is not None,
        "layer_types": types,
    }


def _latent_keys(
    architecture: Architecture, family: Family, dimensions: dict[str, Any]
) -> dict[str, Any]:
    if "kv_rank" not in family.keys:
        _refuse(architecture, "kv_rank", dimensions["kv_rank"], "latent attention")
        return {}
    _refuse(architecture, "kv_rank", dimensions["kv_rank"] == 0, "plain attention")
    if not dimensions["rope_dim"] or dimensions["rope_dim"] % 2:
        raise InvalidFieldError(
            "rope_dim",
            f"modules of {architecture.model_type} rotate pairs; {dimensions['rope_dim']} is no"
            " even number from 2 on",
        )
    return {
        family.keys["query_rank"][0]: dimensions["query_rank"] or None,
        "num_key_value_heads": dimensions["query_heads"],
    }


def _expert_keys(
    architecture: Architecture, family: Family, dimensions: dict[str, Any]
) -> dict[str, Any]:
    """Returns what says how many experts of which width, and which layers have none."""
    layers, names = architecture.layer_count, family.keys
    mixtures = sum(
        group.count
        for group in architecture.layers
        if isinstance(group.layer.feed_forward, Experts)
    )
    dense = layers - mixtures
    if "experts" not in names:
        _refuse(architecture, "experts", mixtures, "experts")
        return {}
    keys: dict[str, Any] = {}
    if mixtures:
        for name in ("experts", "experts_per_token", "expert_intermediate_size"):
            keys[names[name][0]] = dimensions[name]
        keys |= _shared_keys(architecture, family, dimensions)
    if "leading_dense_layers" in names:
        # One group that all may choose from takes any number of experts.
        keys |= {names["leading_dense_layers"][0]: dense, "n_group": 1, "topk_group": 1}
    elif family.expert_layers:
        keys[family.expert_layers] = list(range(dense, layers))
    elif family.dense_layers:
        keys |= {family.dense_layers: list(range(dense)), names["expert_interval"][0]: 1}
    else:
        _refuse(architecture, "leading_dense_layers", dense, "layers without experts")
    return keys


def _shared_keys(
    architecture: Architecture, family: Family, dimensions: dict[str, Any]
) -> dict[str, Any]:
    shared, width = dimensions["shared_intermediate_size"], dimensions["expert_intermediate_size"]
    block = f"shared experts of width {shared}"
    if family.shared_experts:
        _refuse(architecture, "shared_intermediate_size", shared % width, block)
        return {family.shared_experts: shared // width}
    spellings = family.keys.get("shared_intermediate_size")
    if spellings is None:
        _refuse(architecture, "shared_intermediate_size", shared, "shared experts")
        return {}
    if spellings == family.keys["expert_intermediate_size"]:
        _refuse(architecture, "shared_intermediate_size", shared - width, block)
    return {spellings[0]: shared}


def _check_rows(architecture: Architecture, precision: Precision) -> None:
    """Checks that grouped products can run: rows of experts' weights are whole blocks.

    Raises:
        InvalidFieldError: they are not; names the width.
    """
    routed = architecture.experts
    if routed is None or architecture.model_type == "llama4_text":
        return
    block = _ROW_BYTES // dtype_of(precision).itemsize
    for field, width in (
        ("hidden_size", architecture.hidden_size),
        ("expert_intermediate_size", routed.expert.intermediate_size),
    ):
        if width % block:
            raise InvalidFieldError(
                field,
                f"torch's grouped products of experts need a multiple of {block}, not {width}",
            )


def _refuse(architecture: Architecture, field: str, value: int, block: str) -> None:
    """Refuses what a family's modules have no place for.

    Raises:
        InvalidFieldError: the value is not zero; names ``field``.
    """
    if value:
        raise InvalidFieldError(
            field, f"modules of {architecture.model_type} in transformers have no {block}"
        )
