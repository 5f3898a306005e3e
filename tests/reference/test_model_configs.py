"""Presets and readers against the config.json files that the package of tables carries."""

import importlib.util
import json
from pathlib import Path

import pytest

from model.errors import InvalidFieldError
from model.huggingface import architecture_from_config
from model.precision import Precision
from model.presets import preset

PRESETS = {
    "MiniMaxAI--MiniMax-M2.5": "minimax-m2",
    "Qwen--Qwen3-235B-A22B": "qwen3-235b-a22b",
    "Qwen--Qwen3-30B-A3B": "qwen3-30b-a3b",
    "Qwen--Qwen3-32B": "qwen3-32b",
    "Qwen--Qwen3.5-122B-A10B": "qwen3.5-122b-a10b",
    "Qwen--Qwen3.5-27B": "qwen3.5-27b",
    "Qwen--Qwen3.5-35B-A3B": "qwen3.5-35b-a3b",
    "Qwen--Qwen3.5-397B-A17B": "qwen3.5-397b-a17b",
    "deepseek-ai--DeepSeek-R1": "deepseek-r1",
    "deepseek-ai--DeepSeek-V3.2": "deepseek-v3.2",
    "meta-llama--Meta-Llama-3.1-70B": "llama-3.1-70b",
    "meta-llama--Meta-Llama-3.1-8B": "llama-3.1-8b",
    "mistralai--Mixtral-8x22B-v0.1": "mixtral-8x22b",
    "mistralai--Mixtral-8x7B-v0.1": "mixtral-8x7b",
    "moonshotai--Kimi-K2-Instruct": "kimi-k2",
    "moonshotai--Kimi-K2.5": "kimi-k2.5",
    "openai--gpt-oss-120b": "gpt-oss-120b",
    "openai--gpt-oss-20b": "gpt-oss-20b",
    "zai-org--GLM-5": "glm-5",
}


@pytest.fixture(scope="module")
def folder():
    found = importlib.util.find_spec("aiconfigurator_core")
    if found is None:
        pytest.skip("aiconfigurator-core is not installed (extra reference)")
    return Path(next(iter(found.submodule_search_locations))) / "model_configs"


def read(folder, name):
    return architecture_from_config(json.loads((folder / f"{name}_config.json").read_text()))


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_what_the_published_configuration_says(folder, name):
    found, known = read(folder, name), preset(PRESETS[name])
    for field in ("layers", "hidden_size", "vocab_size", "stored_precision", "stored_experts"):
        assert getattr(found, field) == getattr(known, field), field


@pytest.mark.parametrize(
    ("name", "precision", "experts"),
    [
        ("nvidia--Kimi-K2.5-NVFP4", Precision.BF16, Precision.FP4),
        ("nvidia--MiniMax-M2.5-NVFP4", Precision.BF16, Precision.FP4),
        ("nvidia--GLM-5.1-NVFP4", Precision.BF16, Precision.FP4),
        ("Qwen--Qwen3-32B-FP8-Static-PerTensor", Precision.FP8, None),
        ("Qwen--Qwen3-32B-FP8", Precision.FP8_BLOCK, None),
    ],
)
def test_requantised_checkpoints_are_read_in_their_own_formats(folder, name, precision, experts):
    found = read(folder, name)
    assert found.stored_precision is precision
    assert (found.stored_experts and found.stored_experts.precision) is experts


def test_only_families_not_known_yet_are_refused(folder):
    fields = set()
    for path in sorted(folder.glob("*_config.json")):
        config = json.loads(path.read_text())
        if "producer" in config:  # of a format, not of a model
            continue
        try:
            architecture_from_config(config)
        except InvalidFieldError as error:
            fields.add(error.field)
    # And two checkpoints that pack their modules in two formats.
    assert fields == {"model_type", "indexer_types", "quantization_config.config_groups"}
