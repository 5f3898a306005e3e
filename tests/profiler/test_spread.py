"""Ranks with shares of one model's weights compute what the whole model computes."""

from dataclasses import replace

import pytest
import torch

from model.architecture import Norm
from model.blocks import Activation
from model.dimensions import architecture_of_dimensions
from model.errors import InvalidFieldError
from model.families import FAMILIES
from model.huggingface import architecture_from_config
from model.precision import Precision
from profiler.device import Device
from profiler.modules import build_model
from profiler.plain import PlainDecoder
from profiler.plain_models import GreedyRequest, PlainModel
from profiler.ranks import Rank, run_on_ranks
from profiler.spread import join_ranks
from profiler.tensor_parallel import build_share, fixed_effort
from profiler.wholes import ForwardPoint, GeneratePoint
from tests.profiler.rank_work import by_name

devices = pytest.mark.parametrize(
    "names",
    [
        ("cpu", "cpu"),
        # One rank shows that NCCL's kernels run, and that a graph holds them.
        *(
            pytest.param(
                tuple(f"cuda:{index}" for index in range(count)),
                marks=[
                    pytest.mark.gpu,
                    pytest.mark.skipif(
                        torch.cuda.device_count() < count, reason=f"needs {count} CUDA devices"
                    ),
                ],
            )
            for count in (1, 2)
        ),
    ],
)
CPU = Device("cpu", 1 << 20)
SIZES = {"hidden_size": 32, "layer_count": 2, "intermediate_size": 64}
LLAMA = architecture_of_dimensions(**SIZES, query_heads=4, kv_heads=2, vocab_size=96)
ARCHITECTURES = {
    "llama": LLAMA,
    # The one KV head is both ranks'; the last rank's share of the vocabulary is padded.
    "one KV head": architecture_of_dimensions(**SIZES, query_heads=4, kv_heads=1, vocab_size=97),
    "tied": architecture_of_dimensions(
        **SIZES, query_heads=4, kv_heads=2, vocab_size=97, tied_embeddings=True, qkv_bias=True
    ),
    "normed heads": architecture_of_dimensions(
        **SIZES, query_heads=4, kv_heads=4, vocab_size=96, qk_norm=True
    ),
    "learned positions": architecture_of_dimensions(
        **SIZES,
        query_heads=4,
        vocab_size=96,
        plain_mlp=True,
        activation=Activation.GELU,
        qkv_bias=True,
        attention_output_bias=True,
        mlp_bias=True,
        learned_positions=64,
        norm=Norm.LAYER,
        tied_embeddings=True,
    ),
    "experts": architecture_of_dimensions(
        **SIZES,
        query_heads=4,
        kv_heads=2,
        vocab_size=96,
        experts=4,
        experts_per_token=2,
        expert_intermediate_size=32,
        shared_intermediate_size=32,
        leading_dense_layers=1,
    ),
}
SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "intermediate_size": 48,
    "vocab_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}
MIXTURE = SMALL | {
    "moe_intermediate_size": 32,
    "num_local_experts": 4,
    "num_experts": 4,
    "num_experts_per_tok": 2,
}
CONFIGS = {
    "mixtral": MIXTURE,
    "qwen2_moe": MIXTURE | {"shared_expert_intermediate_size": 32},
    "gpt_oss": MIXTURE,
    "deepseek_v3": MIXTURE
    | {
        "kv_lora_rank": 16,
        "q_lora_rank": 16,
        "qk_rope_head_dim": 4,
        "qk_nope_head_dim": 8,
        "v_head_dim": 8,
        "n_routed_experts": 4,
        "n_shared_experts": 1,
        "first_k_dense_replace": 1,
        "n_group": 1,
        "topk_group": 1,
        "num_key_value_heads": 4,
    },
}
EAGER = {
    name: replace(ARCHITECTURES[name], vocab_size=96) for name in ("llama", "one KV head", "tied")
} | {
    family: architecture_from_config({"model_type": family, **config}, family)
    for family, config in CONFIGS.items()
}
_EXPERTS = 3
"""Dimensions of the weights of all experts in one."""


def share_of(rank, whole, size):
    """The rank's rows of a weight of which ranks hold so many, all where that is all."""
    if whole.shape[0] == size:
        return whole
    return whole.narrow(0, rank.index * size, size)


def share_of_experts(rank, whole, *, gated):
    """The rank's columns of all experts' weights: of gate and up each, or of what follows."""
    if not gated:
        return whole.chunk(rank.count, dim=2)[rank.index]
    return torch.cat(
        [half.chunk(rank.count, dim=1)[rank.index] for half in whole.chunk(2, dim=1)], 1
    )


def give_plain(rank, share, whole):
    """Gives a rank's decoder its share of the whole one's weights, none of them random."""
    given = dict(whole.named_parameters())
    heads = whole.architecture.layers[0].layer.attention
    own = share.architecture.layers[0].layer.attention
    of_whole = [n * heads.head_dim for n in (heads.query_heads, heads.kv_heads, heads.kv_heads)]
    of_rank = [n * heads.head_dim for n in (own.query_heads, own.kv_heads, own.kv_heads)]
    for name, parameter in share.named_parameters():
        source = given.get(name)
        if source is not None and source.dim() == _EXPERTS:
            source = share_of_experts(rank, source, gated=name.endswith("up"))
        elif ".qkv." in name:
            parts = zip(source.split(of_whole), of_rank, strict=True)
            source = torch.cat([share_of(rank, part, size) for part, size in parts])
        elif ".up." in name and getattr(
            whole.architecture.layers[0].layer.feed_forward, "gated", True
        ):
            size = len(parameter) // 2
            source = torch.cat([share_of(rank, part, size) for part in source.chunk(2)])
        elif ".up." in name:
            source = share_of(rank, source, len(parameter))
        elif name.endswith(("output.weight", "down.weight")):
            source = share_of(rank, source.t(), parameter.shape[1]).t()
        elif name.endswith(("output.bias", "down.bias")) and rank.index:
            assert not parameter.any()
            continue
        elif name == "head.weight":
            if source is None:  # it shares the embedding's, which is given already
                continue
            padded = torch.cat([source, torch.zeros_like(source[:1])])
            source = padded.narrow(0, rank.index * len(parameter), len(parameter))
        if name == "embedding.weight":
            parameter[: len(source)].copy_(source)
            parameter[len(source) :].zero_()
        else:
            parameter.copy_(source)


@torch.inference_mode()
def plain_errors(rank):
    """The relative error of each architecture's streams and logits, with those of the whole."""
    found = {}
    for name, architecture in ARCHITECTURES.items():
        torch.manual_seed(0)
        whole = PlainDecoder(architecture, Precision.FP32, rank.device)
        ids = torch.randint(0, architecture.vocab_size, (2, 7), device=rank.device.torch_device)
        for parameter in whole.parameters():
            parameter.mul_(10)
        share = PlainDecoder(architecture, Precision.FP32, rank.device, rank)
        give_plain(rank, share, whole)
        caches = whole.new_cache(2, 8), share.new_cache(2, 8)
        for begin, end in ((0, 5), (5, 6), (6, 7)):
            exact, logits = (
                decoder(ids[:, begin:end], cache, begin)
                for decoder, cache in zip((whole, share), caches, strict=True)
            )
            assert logits.shape == exact.shape == (2, architecture.vocab_size)
            found[name, begin] = float((logits - exact).norm() / exact.norm())
        kept = share.architecture.layers[0].layer.attention.kv_heads
        assert (
            caches[1].layers[0][0].shape[1]
            == kept
            == max(1, caches[0].layers[0][0].shape[1] // rank.count)
        )
    return found


def eager_share(rank, name, whole, like):
    """The rank's part of a weight of transformers' modules, cut where its own is narrower."""
    cut = [
        d for d, sizes in enumerate(zip(whole.shape, like.shape, strict=True)) if len({*sizes}) > 1
    ]
    if not cut:
        return whole
    (dim,) = cut
    # Gate and up of all experts lie behind one another, but for gpt-oss, which has them in turn.
    halves = whole.chunk(2, dim) if name.endswith("gate_up_proj") and dim == 1 else (whole,)
    return torch.cat([half.chunk(rank.count, dim)[rank.index] for half in halves], dim)


@torch.inference_mode()
def eager_errors(rank):
    found = {}
    for family, architecture in EAGER.items():
        torch.manual_seed(0)
        whole = build_model(architecture, Precision.FP32, rank.device)
        ids = torch.randint(0, 96, (2, 7), device=rank.device.torch_device)
        for parameter in whole.parameters():
            parameter.mul_(10)
        share = build_share(architecture, Precision.FP32, rank)
        given = dict(whole.named_parameters(remove_duplicate=False))
        for name, parameter in share.named_parameters(remove_duplicate=False):
            if rank.index and name.endswith(("o_proj.bias", "down_proj_bias")):
                assert not parameter.any()
                continue
            parameter.copy_(eager_share(rank, name, given[name], parameter))
        exact, logits = (model(input_ids=ids).logits for model in (whole, share))
        found[family] = float((logits - exact).norm() / exact.norm())
    return found


def timed(rank):
    """Runs passes and requests, on GPUs from graphs that hold the exchanges."""
    decoder = PlainDecoder(LLAMA, Precision.FP32, rank.device, rank)
    passes = PlainModel(decoder).every_pass_ms(ForwardPoint(2, 1, 8), fixed_effort(5))
    request = GreedyRequest(decoder, GeneratePoint(2, 5, 4))
    return passes, [request.once() for _ in range(3)]


def tried(rank):
    """All of it by the same processes, which take seconds to start."""
    return plain_errors(rank) | eager_errors(rank), *timed(rank)


@devices
def test_ranks_compute_what_the_whole_model_does_as_often_as_asked(names):
    errors, passes, requests = run_on_ranks(names, 1, by_name, __name__, tried.__name__)
    assert len(errors) == 3 * len(ARCHITECTURES) + len(EAGER)
    assert {name: error for name, error in errors.items() if error > 2e-5} == {}
    assert len(passes) == 5
    assert all(ms > 0 for ms, _ in passes)
    assert [len(request.steps_ms) for request in requests] == [3] * 3


NOT_MEASURED = {
    name
    for name, family in FAMILIES.items()
    if {"linear_key_heads", "index_heads"} & family.keys.keys()
}


@pytest.mark.parametrize("family", sorted(FAMILIES.keys() - NOT_MEASURED))
def test_every_familys_layers_are_spread_or_refused(family):
    keys = FAMILIES[family].keys
    config = CONFIGS.get(family, CONFIGS["deepseek_v3"] if "kv_rank" in keys else MIXTURE)
    architecture = architecture_from_config({"model_type": family, **config}, "x")
    rank = Rank(1, 2, CPU)
    if "head_dim" not in keys:
        with pytest.raises(InvalidFieldError, match="cannot be cut"):
            build_share(architecture, Precision.FP32, rank)
        return
    model = build_share(architecture, Precision.FP32, rank)
    assert model.lm_head.weight.shape == (48, 32)
    assert model.get_input_embeddings().weight.shape == (96, 32)
    joined = [name for name, module in model.named_modules() if module._forward_hooks]
    assert len(joined) == 2 * 2 + 1


def test_layers_whose_parts_have_other_names_are_refused():
    layer = torch.nn.ModuleDict({"mixer": torch.nn.Linear(4, 4)})
    with pytest.raises(InvalidFieldError, match="cannot be spread") as raised:
        join_ranks([layer], torch.nn.Linear(4, 8), Rank(0, 2, CPU), 16)
    assert raised.value.field == "tensor"
