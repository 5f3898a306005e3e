"""Which experts balanced choices meet, dealt out exactly and in bfloat16."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reference.routing import met


@pytest.mark.parametrize(
    ("tokens", "experts", "top_k", "touched", "exactly"),
    [
        (32, 384, 8, 235, 256),
        (32, 512, 10, 286, 316),
        (48, 512, 10, 364, 473),
        (48, 384, 6, 256, 288),
    ],
)
def test_choices_dealt_out_in_bfloat16_collide(tokens, experts, top_k, touched, exactly):
    """Torch's own bfloat16 gives these; the latencies of vLLM's rows agree within 2%."""
    found = met(tokens, experts, top_k, experts, rounded=True)
    assert found == (tokens * top_k, touched)
    assert met(tokens, experts, top_k, experts, rounded=False).touched == exactly


def test_the_first_rank_has_an_expert_however_few_tokens_there_are():
    assert met(1, 256, 8, 1, rounded=True) == (1, 1)
    assert met(1, 256, 8, 64, rounded=True) == (2, 2)


@given(
    tokens=st.integers(1, 5000),
    experts=st.integers(1, 900),
    top_k=st.integers(1, 22),
    ranks=st.sampled_from([1, 2, 4, 8]),
    rounded=st.booleans(),
)
def test_a_rank_has_its_part_of_the_choices(tokens, experts, top_k, ranks, rounded):
    top_k = min(top_k, experts)
    whole = met(tokens, experts, top_k, experts, rounded=rounded)
    assert whole.touched <= whole.assignments <= tokens * top_k
    distance = -(-experts // top_k)
    if tokens >= distance:
        assert whole == (tokens * top_k, experts) or experts < distance * top_k
    held = -(-experts // ranks)
    part = met(tokens, experts, top_k, held, rounded=rounded)
    assert 1 <= part.touched <= min(held, whole.touched)
    assert part.touched <= part.assignments <= whole.assignments
