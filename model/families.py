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
    CHUNKED = auto()
    """All with rotary positions, in chunks of ``attention_chunk_size``.

    A token looks back to the start of its chunk: over one chunk at most, as with a window.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What a model type's keys mean.

    Attributes:
        keys: dimension of ``architecture_of_dimensions`` to the key that holds it; further
            spellings that transformers takes follow it.
        defaults: first spelling of a key to its value when it is missing.
        flags: dimensions that a boolean key switches on, several by one key.
        fixed: dimensions that the family has whatever its config says.
        refused: boolean keys that make it another kind of block when true.
        window: which layers have the sliding window.
        shared_experts: key that counts shared experts, each as wide as a routed one.
        dense_layers: key that lists layers without experts, whatever the interval says.
        expert_layers: key that lists the layers with experts in the interval's place.
        feed_forward_types: key that lists each layer as "dense" or "sparse" instead.
        shared_indexers: keys of the list, the pattern and the interval of layers with an
            indexer of their own.
    """

    keys: Mapping[str, tuple[str, ...]]
    defaults: Mapping[str, object]
    flags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    fixed: Mapping[str, object] = field(default_factory=dict)
    refused: tuple[str, ...] = ()
    window: WindowRule = WindowRule.NEVER
    shared_experts: str = ""
    dense_layers: str = ""
    expert_layers: str = ""
    feed_forward_types: str = ""
    shared_indexers: tuple[str, ...] = ()


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
_ROUTED_KEYS = {
    "experts": ("n_routed_experts", "num_local_experts"),
    "experts_per_token": ("num_experts_per_tok",),
    "expert_intermediate_size": ("moe_intermediate_size",),
    "leading_dense_layers": ("first_k_dense_replace",),
}
_LATENT_KEYS = {
    "kv_rank": ("kv_lora_rank",),
    "query_rank": ("q_lora_rank",),
    "head_dim": ("qk_nope_head_dim",),
    "rope_dim": ("qk_rope_head_dim",),
    "value_dim": ("v_head_dim",),
}
# All keys and values are expanded from one latent, so KV heads play no part.
_DEEPSEEK_KEYS = {k: v for k, v in _KEYS.items() if k != "kv_heads"} | _ROUTED_KEYS | _LATENT_KEYS
_QWEN_MOE_KEYS = _KEYS | {
    "experts": ("num_experts",),
    "experts_per_token": ("num_experts_per_tok",),
    "expert_intermediate_size": ("moe_intermediate_size",),
    "expert_interval": ("decoder_sparse_step",),
}
# Where every layer has experts, the one inner width is theirs.
_ALL_MOE_KEYS = _KEYS | {
    "experts": ("num_local_experts", "num_experts"),
    "experts_per_token": ("num_experts_per_tok",),
    "expert_intermediate_size": ("intermediate_size",),
}
_INDEX_KEYS = {
    "index_top_k": ("index_topk",),
    "index_heads": ("index_n_heads",),
    "index_head_dim": ("index_head_dim",),
}
_SPARSE_KEYS = (
    _DEEPSEEK_KEYS
    | _INDEX_KEYS
    | {"experts": ("n_routed_experts", "num_local_experts", "num_experts")}
)
_LINEAR_KEYS = {
    "linear_key_heads": ("linear_num_key_heads",),
    "linear_value_heads": ("linear_num_value_heads",),
    "linear_key_dim": ("linear_key_head_dim",),
    "linear_value_dim": ("linear_value_head_dim",),
    "linear_conv_width": ("linear_conv_kernel_dim",),
    "full_attention_interval": ("full_attention_interval",),
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
_LATENT = {
    "kv_lora_rank": 512,
    "q_lora_rank": 1536,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
}

_INDEX = {"index_topk": 2048, "index_n_heads": 64, "index_head_dim": 128}
_LINEAR = {
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 32,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "linear_conv_kernel_dim": 4,
    "full_attention_interval": 4,
}
_GATED_ATTENTION = {"qk_norm": True, "attention_output_gate": True}

FAMILIES: Mapping[str, Family] = {
    "deepseek_v2": Family(
        keys=_DEEPSEEK_KEYS | {"experts": ("n_routed_experts", "num_experts")},
        defaults=_defaults(hidden=4096, inner=11008, layers=32, heads=32, vocab=102400)
        | _LATENT
        | {
            "n_routed_experts": 64,
            "num_experts_per_tok": None,
            "moe_intermediate_size": 1407,
            "n_shared_experts": 2,
            "first_k_dense_replace": 0,
        },
        refused=("attention_bias", "mlp_bias"),
        shared_experts="n_shared_experts",
    ),
    "deepseek_v3": Family(
        keys=_DEEPSEEK_KEYS,
        defaults=_defaults(hidden=7168, inner=18432, layers=61, heads=128, vocab=129280)
        | _LATENT
        | {
            "n_routed_experts": 256,
            "num_experts_per_tok": 8,
            "moe_intermediate_size": 2048,
            "n_shared_experts": 1,
            "first_k_dense_replace": 3,
        },
        refused=("attention_bias",),
        shared_experts="n_shared_experts",
    ),
    "deepseek_v32": Family(
        keys=_SPARSE_KEYS,
        defaults=_defaults(hidden=7168, inner=18432, layers=61, heads=128, vocab=129280)
        | _LATENT
        | _INDEX
        | {
            "n_routed_experts": 256,
            "num_experts_per_tok": 8,
            "moe_intermediate_size": 2048,
            "n_shared_experts": 1,
            "first_k_dense_replace": 3,
        },
        refused=("attention_bias",),
        shared_experts="n_shared_experts",
        feed_forward_types="mlp_layer_types",
    ),
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
    "glm4_moe": Family(
        keys=_KEYS | _ROUTED_KEYS,
        defaults=_defaults(hidden=4096, inner=10944, layers=46, heads=96, kv_heads=8, vocab=151552)
        | {
            "n_routed_experts": 128,
            "num_experts_per_tok": 8,
            "moe_intermediate_size": 1408,
            "n_shared_experts": 1,
            "first_k_dense_replace": 1,
        },
        flags={"attention_bias": ("qkv_bias",), "use_qk_norm": ("qk_norm",)},
        shared_experts="n_shared_experts",
    ),
    "glm_moe_dsa": Family(
        keys=_SPARSE_KEYS,
        defaults=_defaults(hidden=6144, inner=12288, layers=78, heads=64, vocab=154880)
        | _LATENT
        | _INDEX
        | {
            "q_lora_rank": 2048,
            "qk_nope_head_dim": 192,
            "v_head_dim": 256,
            "index_n_heads": 32,
            "n_routed_experts": 256,
            "num_experts_per_tok": 8,
            "moe_intermediate_size": 2048,
            "n_shared_experts": 1,
            "first_k_dense_replace": 3,
        },
        refused=("attention_bias",),
        shared_experts="n_shared_experts",
        feed_forward_types="mlp_layer_types",
        shared_indexers=("indexer_types", "index_topk_pattern", "index_topk_freq"),
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
    "gpt_oss": Family(
        keys=_ALL_MOE_KEYS,
        defaults=_defaults(
            hidden=2880, inner=2880, layers=36, heads=64, kv_heads=8, head_dim=64, vocab=201088
        )
        | {
            "num_local_experts": 128,
            "num_experts_per_tok": 4,
            "attention_bias": True,
            "sliding_window": 128,
            "sliding_window_pattern": 2,
        },
        flags={"attention_bias": _ATTENTION_BIAS},
        fixed={"expert_bias": True},
        window=WindowRule.PATTERN,
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
    "llama4_text": Family(
        keys=_KEYS
        | {
            "intermediate_size": ("intermediate_size_mlp",),
            "experts": ("num_local_experts",),
            "experts_per_token": ("num_experts_per_tok",),
            "expert_intermediate_size": ("intermediate_size",),
            "shared_intermediate_size": ("intermediate_size",),
            "expert_interval": ("interleave_moe_layer_step",),
        },
        defaults=_defaults(
            hidden=5120, inner=8192, layers=48, heads=40, kv_heads=8, head_dim=128, vocab=202048
        )
        | {
            "intermediate_size_mlp": 16384,
            "num_local_experts": 16,
            "num_experts_per_tok": 1,
            "interleave_moe_layer_step": 1,
            "use_qk_norm": True,
            "attention_chunk_size": 8192,
            "no_rope_layer_interval": 4,
        },
        # Its norm of queries and keys has no weights and skips the layers without
        # positions; it is counted as one like the other families'.
        flags={"attention_bias": _ATTENTION_BIAS, "use_qk_norm": ("qk_norm",)},
        window=WindowRule.CHUNKED,
        expert_layers="moe_layers",
    ),
    "minimax_m2": Family(
        keys=_ALL_MOE_KEYS,
        defaults=_defaults(
            hidden=3072, inner=1536, layers=62, heads=48, kv_heads=8, head_dim=128, vocab=200064
        )
        | {"num_local_experts": 256, "num_experts_per_tok": 8},
        # It has one norm over all heads, of as many values as one norm a head.
        fixed={"qk_norm": True},
    ),
    "mistral": Family(
        keys=_KEYS,
        defaults=_defaults(hidden=4096, inner=14336, layers=32, heads=32, kv_heads=8, vocab=32000)
        | {"sliding_window": 4096},
        window=WindowRule.ALWAYS,
    ),
    "mixtral": Family(
        keys=_ALL_MOE_KEYS,
        defaults=_defaults(hidden=4096, inner=14336, layers=32, heads=32, kv_heads=8, vocab=32000)
        | {"num_local_experts": 8, "num_experts_per_tok": 2, "sliding_window": None},
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
    "qwen2_moe": Family(
        keys=_QWEN_MOE_KEYS | {"shared_intermediate_size": ("shared_expert_intermediate_size",)},
        defaults=_defaults(hidden=2048, inner=5632, layers=24, heads=16, kv_heads=16, vocab=151936)
        | {
            "num_experts": 60,
            "num_experts_per_tok": 4,
            "moe_intermediate_size": 1408,
            "shared_expert_intermediate_size": 5632,
            "decoder_sparse_step": 1,
            "qkv_bias": True,
        },
        flags={"qkv_bias": ("qkv_bias",)},
        # No published model has its windows, and transformers places them by other rules
        # than the models' own code.
        refused=("use_sliding_window",),
        dense_layers="mlp_only_layers",
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
    "qwen3_5_moe_text": Family(
        keys=_KEYS
        | _LINEAR_KEYS
        | {
            # Every layer has experts.
            "intermediate_size": ("moe_intermediate_size",),
            "experts": ("num_experts",),
            "experts_per_token": ("num_experts_per_tok",),
            "expert_intermediate_size": ("moe_intermediate_size",),
            "shared_intermediate_size": ("shared_expert_intermediate_size",),
        },
        defaults=_defaults(
            hidden=2048, inner=512, layers=40, heads=16, kv_heads=2, head_dim=256, vocab=248320
        )
        | _LINEAR
        | {
            "num_experts": 256,
            "num_experts_per_tok": 8,
            "moe_intermediate_size": 512,
            "shared_expert_intermediate_size": 512,
        },
        flags={"attention_bias": _ATTENTION_BIAS},
        fixed=_GATED_ATTENTION,
    ),
    "qwen3_5_text": Family(
        keys=_KEYS | _LINEAR_KEYS,
        defaults=_defaults(
            hidden=4096, inner=12288, layers=32, heads=16, kv_heads=4, head_dim=256, vocab=248320
        )
        | _LINEAR,
        flags={"attention_bias": _ATTENTION_BIAS},
        fixed=_GATED_ATTENTION,
    ),
    "qwen3_moe": Family(
        keys=_QWEN_MOE_KEYS | {"experts": ("num_experts", "num_local_experts")},
        defaults=_defaults(hidden=2048, inner=6144, layers=24, heads=32, kv_heads=4, vocab=151936)
        | {
            "num_experts": 128,
            "num_experts_per_tok": 8,
            "moe_intermediate_size": 768,
            "decoder_sparse_step": 1,
        },
        flags={"attention_bias": _ATTENTION_BIAS},
        fixed={"qk_norm": True},
        refused=("use_sliding_window",),
        dense_layers="mlp_only_layers",
    ),
    "qwen3_next": Family(
        keys=_QWEN_MOE_KEYS
        | _LINEAR_KEYS
        | {"shared_intermediate_size": ("shared_expert_intermediate_size",)},
        defaults=_defaults(
            hidden=2048, inner=5632, layers=48, heads=16, kv_heads=2, head_dim=256, vocab=151936
        )
        | _LINEAR
        | {
            "num_experts": 512,
            "num_experts_per_tok": 10,
            "moe_intermediate_size": 512,
            "shared_expert_intermediate_size": 512,
            "decoder_sparse_step": 1,
        },
        flags={"attention_bias": _ATTENTION_BIAS},
        fixed=_GATED_ATTENTION,
        dense_layers="mlp_only_layers",
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
"""Model types that are decoders of layers as in ``model.blocks``."""

ALIASES: Mapping[str, str] = {"kimi_k2": "deepseek_v3"}
"""Model types that transformers does not know, and the one whose keys and modules they have."""

WRAPPERS: Mapping[str, str] = {
    "gemma3": "gemma3_text",
    "kimi_k25": "deepseek_v3",
    "llama4": "llama4_text",
    "qwen3_5": "qwen3_5_text",
    "qwen3_5_moe": "qwen3_5_moe_text",
}
"""Model types that hold a decoder as ``text_config``, and the type it has there."""
