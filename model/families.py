"""Which decoder families a config.json may name, and what their keys mean.

Keys and defaults are those of the families' configuration classes in transformers
(a test compares them with the installed release).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING

from model.architecture import Norm

if TYPE_CHECKING:
    from collections.abc import Mapping


class WindowRule(Enum):
    """Which layers of a family have its sliding window."""

    NEVER = auto()
    ALWAYS = auto()
    """All of them, wherever ``sliding_window`` is set."""
    SWITCHED = auto()
    """With ``use_sliding_window``, those from ``max_window_layers`` on."""
    SWITCHED_WITHOUT_ROPE = auto()
    """With ``use_sliding_window``, every ``no_rope_layer_interval``-th."""
    PATTERN = auto()
    """All but every ``sliding_window_pattern``-th."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What a model type's keys mean.

    Attributes:
        keys: dimension of ``dense_architecture`` to the key that holds it; further
            spellings that transformers takes follow it.
        defaults: first spelling of a key to its value when it is missing.
        flags: dimensions that a boolean key switches on, several by one key.
        fixed: dimensions that the family has whatever its config says.
        refused: boolean keys that make it another kind of block when true.
        window: which layers have the sliding window.
    """

    keys: Mapping[str, tuple[str, ...]]
    defaults: Mapping[str, object]
    flags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    fixed: Mapping[str, object] = field(default_factory=dict)
    refused: tuple[str, ...] = ()
    window: WindowRule = WindowRule.NEVER


_KEYS = {
    "hidden_size": ("hidden_size",),
    "layer_count": ("num_hidden_layers",),
    "query_heads": ("num_attention_heads",),
    "kv_heads": ("num_key_value_heads",),
    "head_dim": ("head_dim",),
    "intermediate_size": ("intermediate_size",),
    "vocab_size": ("vocab_size",),
    "activation": ("hidden_act",),
}
_GEMMA_KEYS = _KEYS | {"activation": ("hidden_activation", "hidden_act")}
_GPT2_KEYS = {
    "hidden_size": ("n_embd", "hidden_size"),
    "layer_count": ("n_layer", "num_hidden_layers"),
    "query_heads": ("n_head", "num_attention_heads"),
    "intermediate_size": ("n_inner",),
    "vocab_size": ("vocab_size",),
    "learned_positions": ("n_positions", "max_position_embeddings"),
    "activation": ("activation_function",),
}
_ATTENTION_BIAS = ("qkv_bias", "attention_output_bias")
_LAYER_NORM = {"norm": Norm.LAYER}


def _defaults(
    *,
    hidden: int,
    inner: int,
    layers: int,
    heads: int,
    vocab: int,
    kv_heads: int | None = None,
    head_dim: int | None = None,
    activation: str = "silu",
    tied: bool = False,
) -> dict[str, object]:
    """Returns the usual keys with a family's values."""
    return {
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "vocab_size": vocab,
        "hidden_act": activation,
        "tie_word_embeddings": tied,
    }


_LLAMA_FLAGS = {"attention_bias": _ATTENTION_BIAS, "mlp_bias": ("mlp_bias",)}
_GEMMA_ACTIVATION = {"hidden_activation": "gelu_pytorch_tanh"}

FAMILIES: Mapping[str, Family] = {
    "gemma": Family(
        keys=_GEMMA_KEYS,
        defaults=_defaults(
            hidden=3072,
            inner=24576,
            layers=28,
            heads=16,
            kv_heads=16,
            head_dim=256,
            vocab=256000,
            tied=True,
        )
        | _GEMMA_ACTIVATION,
        flags={"attention_bias": _ATTENTION_BIAS},
        refused=("use_bidirectional_attention",),
    ),
    "gemma2": Family(
        keys=_GEMMA_KEYS,
        defaults=_defaults(
            hidden=2304,
            inner=9216,
            layers=26,
            heads=8,
            kv_heads=4,
            head_dim=256,
            vocab=256000,
            tied=True,
        )
        | _GEMMA_ACTIVATION
        | {"sliding_window": 4096, "sliding_window_pattern": 2},
        flags={"attention_bias": _ATTENTION_BIAS},
        fixed={"norms_per_layer": 4},
        refused=("use_bidirectional_attention",),
        window=WindowRule.PATTERN,
    ),
    "gemma3_text": Family(
        keys=_GEMMA_KEYS,
        defaults=_defaults(
            hidden=2304,
            inner=9216,
            layers=26,
            heads=8,
            kv_heads=4,
            head_dim=256,
            vocab=262208,
            tied=True,
        )
        | _GEMMA_ACTIVATION
        | {"sliding_window": 4096, "sliding_window_pattern": 6},
        flags={"attention_bias": _ATTENTION_BIAS},
        fixed={"norms_per_layer": 4, "qk_norm": True},
        refused=("use_bidirectional_attention",),
        window=WindowRule.PATTERN,
    ),
    "gpt2": Family(
        keys=_GPT2_KEYS,
        defaults={
            "n_embd": 768,
            "n_layer": 12,
            "n_head": 12,
            "n_inner": None,
            "n_positions": 1024,
            "vocab_size": 50257,
            "activation_function": "gelu_new",
            "tie_word_embeddings": True,
        },
        fixed=_LAYER_NORM
        | {
            "plain_mlp": True,
            "qkv_bias": True,
            "attention_output_bias": True,
            "mlp_bias": True,
        },
        refused=("add_cross_attention",),
    ),
    "granite": Family(
        keys=_KEYS,
        defaults=_defaults(hidden=4096, inner=11008, layers=32, heads=32, vocab=32000),
        flags=_LLAMA_FLAGS,
    ),
    "llama": Family(
        keys=_KEYS,
        defaults=_defaults(hidden=4096, inner=11008, layers=32, heads=32, vocab=32000),
        flags=_LLAMA_FLAGS,
    ),
    "mistral": Family(
        keys=_KEYS,
        defaults=_defaults(hidden=4096, inner=14336, layers=32, heads=32, kv_heads=8, vocab=32000)
        | {"sliding_window": 4096},
        window=WindowRule.ALWAYS,
    ),
    "phi": Family(
        keys=_KEYS,
        defaults=_defaults(
            hidden=2048, inner=8192, layers=24, heads=32, vocab=51200, activation="gelu_new"
        ),
        fixed=_LAYER_NORM
        | {
            "norms_per_layer": 1,
            "plain_mlp": True,
            "qkv_bias": True,
            "attention_output_bias": True,
            "mlp_bias": True,
            "head_bias": True,
        },
        refused=("qk_layernorm",),
    ),
    "phi3": Family(
        keys=_KEYS,
        defaults=_defaults(hidden=3072, inner=8192, layers=32, heads=32, vocab=32064)
        | {"sliding_window": None},
        window=WindowRule.ALWAYS,
    ),
    "qwen2": Family(
        keys=_KEYS,
        defaults=_defaults(hidden=4096, inner=22016, layers=32, heads=32, kv_heads=32, vocab=151936)
        | {"sliding_window": 4096, "max_window_layers": 28},
        fixed={"qkv_bias": True},
        window=WindowRule.SWITCHED,
    ),
    "qwen3": Family(
        keys=_KEYS,
        defaults=_defaults(
            hidden=4096, inner=22016, layers=32, heads=32, kv_heads=32, head_dim=128, vocab=151936
        )
        | {"sliding_window": 4096, "max_window_layers": 28},
        flags={"attention_bias": _ATTENTION_BIAS},
        fixed={"qk_norm": True},
        window=WindowRule.SWITCHED,
    ),
    "smollm3": Family(
        keys=_KEYS,
        defaults=_defaults(
            hidden=2048, inner=11008, layers=36, heads=16, kv_heads=4, vocab=128256, tied=True
        )
        | {"sliding_window": None, "no_rope_layer_interval": 4},
        flags=_LLAMA_FLAGS,
        window=WindowRule.SWITCHED_WITHOUT_ROPE,
    ),
    "stablelm": Family(
        keys={key: spelling for key, spelling in _KEYS.items() if key != "head_dim"},
        defaults=_defaults(hidden=2560, inner=6912, layers=32, heads=32, kv_heads=32, vocab=50304),
        flags={"use_qkv_bias": ("qkv_bias",)},
        fixed=_LAYER_NORM,
        refused=("qk_layernorm", "use_parallel_residual"),
    ),
    "starcoder2": Family(
        keys=_KEYS,
        defaults=_defaults(
            hidden=3072,
            inner=12288,
            layers=30,
            heads=24,
            kv_heads=2,
            vocab=49152,
            activation="gelu_pytorch_tanh",
            tied=True,
        )
        | {"use_bias": True, "sliding_window": None},
        flags={"use_bias": (*_ATTENTION_BIAS, "mlp_bias")},
        fixed=_LAYER_NORM | {"plain_mlp": True},
        window=WindowRule.ALWAYS,
    ),
}
"""Model types that are dense decoders."""

WRAPPERS: Mapping[str, str] = {"gemma3": "gemma3_text"}
"""Model types that hold a decoder as ``text_config``, and the type it has there."""
