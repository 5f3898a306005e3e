"""The blocks that decoder layers are made of: attentions and feed-forwards.

An attention has ``window``, ``shard``, ``cached_values``, ``activation_values``,
``matrix_parameters`` and ``parameter_count``; a feed-forward the like without window and
cache. All counts are of one layer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from model.errors import InvalidFieldError


class Activation(StrEnum):
    """Activation function of a feed-forward block."""

    SILU = "silu"
    GELU = "gelu"
    RELU = "relu"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """Multi-head attention with grouped KV heads (MHA and MQA are its corners).

    With ``output_gate`` a sigmoid, projected beside the queries, gates the heads' output
    (Qwen3-Next's gated attention).
    """

    query_heads: int
    kv_heads: int
    head_dim: int
    window: int | None = None
    qkv_bias: bool = False
    output_bias: bool = False
    qk_norm: bool = False
    output_gate: bool = False

    def shard(self, tensor: int) -> Attention:
        """Returns the heads of one tensor-parallel rank; KV heads are replicated when too few.

        Raises:
            InvalidFieldError: ``tensor`` does not fit the heads.
        """
        _check_heads(self.query_heads, tensor)
        if self.kv_heads % tensor and tensor % self.kv_heads:
            raise InvalidFieldError(
                "tensor",
                f"{tensor} neither divides the {self.kv_heads} KV heads nor is a multiple of them",
            )
        return replace(
            self,
            query_heads=self.query_heads // tensor,
            kv_heads=max(1, self.kv_heads // tensor),
        )

    @property
    def cached_values(self) -> int:
        """Values that the cache keeps of one token."""
        return 2 * self.kv_heads * self.head_dim

    @property
    def activation_values(self) -> int:
        """Queries, their gates, keys, values and output of one token."""
        heads = (2 + self.output_gate) * self.query_heads + 2 * self.kv_heads
        return heads * self.head_dim

    @property
    def projected_queries(self) -> int:
        """Width that queries, and gates where there are any, are projected to."""
        return (1 + self.output_gate) * self.query_heads * self.head_dim

    def matrix_parameters(self, hidden_size: int) -> int:
        """Returns the weights of the projections."""
        output, kv = self.query_heads * self.head_dim, self.kv_heads * self.head_dim
        return hidden_size * (self.projected_queries + 2 * kv + output)

    def parameter_count(self, hidden_size: int) -> int:
        """Returns the number of weights and biases."""
        query, kv = self.projected_queries, self.kv_heads * self.head_dim
        biases = (query + 2 * kv) * self.qkv_bias + hidden_size * self.output_bias
        norms = 2 * self.head_dim * self.qk_norm
        return self.matrix_parameters(hidden_size) + biases + norms


@dataclass(frozen=True, slots=True, kw_only=True)
class Indexer:
    """What picks the keys that a query of sparse attention sees.

    A light attention scores every key and keeps the best (DeepSeek-V3.2, arXiv
    2512.02556, section 2.1). Keys are cached as DeepSeek's own code and the engines do:
    in fp8 with one fp32 scale each. Every tensor-parallel rank scores with all heads.

    Attributes:
        heads: heads that score.
        head_dim: width of a head and of the key that all heads share.
        top_k: keys that a query goes on to see.
    """

    heads: int
    head_dim: int
    top_k: int

    @property
    def cached_bytes(self) -> int:
        """Bytes that the cache keeps of one token."""
        return self.head_dim + 4

    def matrix_parameters(self, hidden_size: int, query_rank: int) -> int:
        """Returns the weights of the projections of queries and keys."""
        return (query_rank * self.heads + hidden_size) * self.head_dim

    def parameter_count(self, hidden_size: int, query_rank: int) -> int:
        """Returns the number of weights, the heads' weighting and the keys' norm included."""
        rest = hidden_size * self.heads + 2 * self.head_dim
        return self.matrix_parameters(hidden_size, query_rank) + rest


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentAttention:
    """Multi-head latent attention: one compressed latent a token stands for all keys and values.

    As in DeepSeek-V2 (arXiv 2405.04434, section 2.1).

    Attributes:
        query_heads: heads.
        kv_rank: width of the latent.
        query_rank: width that queries are compressed to; 0: they are projected directly.
        head_dim: width of a head's part without positions.
        rope_dim: width of its part with rotary positions; all heads share the key's.
        value_dim: width of a head's value.
        indexer: what picks the keys that a query sees; None: it sees all.
    """

    query_heads: int
    kv_rank: int
    query_rank: int
    head_dim: int
    rope_dim: int
    value_dim: int
    indexer: Indexer | None = None

    window = None

    def shard(self, tensor: int) -> LatentAttention:
        """Returns the heads of one tensor-parallel rank; the latent is every rank's.

        Raises:
            InvalidFieldError: ``tensor`` does not divide the heads.
        """
        _check_heads(self.query_heads, tensor)
        return replace(self, query_heads=self.query_heads // tensor)

    @property
    def query_dim(self) -> int:
        """Width of a head's query: both parts."""
        return self.head_dim + self.rope_dim

    @property
    def cached_values(self) -> int:
        """Values that the cache keeps of one token: the latent and the key's rotary part."""
        return self.kv_rank + self.rope_dim

    @property
    def activation_values(self) -> int:
        """Queries, expanded keys and values, and output of one token."""
        return 2 * self.query_heads * (self.query_dim + self.value_dim)

    def matrix_parameters(self, hidden_size: int) -> int:
        """Returns the weights of the projections."""
        queries = self.query_heads * self.query_dim
        query = self.query_rank * (hidden_size + queries) or hidden_size * queries
        compress = hidden_size * self.cached_values
        expand = self.kv_rank * self.query_heads * (self.head_dim + self.value_dim)
        output = hidden_size * self.query_heads * self.value_dim
        index = self.indexer
        picking = index.matrix_parameters(hidden_size, self.query_rank) if index else 0
        return query + compress + expand + output + picking

    def parameter_count(self, hidden_size: int) -> int:
        """Returns the number of weights, those of the norms of both latents included."""
        rest, index = self.query_rank + self.kv_rank, self.indexer
        if index is not None:
            rest += index.parameter_count(hidden_size, self.query_rank)
            rest -= index.matrix_parameters(hidden_size, self.query_rank)
        return self.matrix_parameters(hidden_size) + rest


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearAttention:
    """Linear attention by the gated delta rule: a state of fixed size in the place of a cache.

    Each value head keeps a matrix of ``key_dim`` x ``value_dim`` that every token decays,
    corrects and reads (Gated DeltaNet, arXiv 2412.06464, section 3.1). Queries, keys and
    values pass a short causal convolution of their own first; a gate and a norm follow.

    Attributes:
        key_heads: heads of queries and of keys; each serves as many value heads.
        value_heads: heads of values, and of the state.
        key_dim: width of a query or key head.
        value_dim: width of a value head.
        conv_width: tokens that the convolution sees.
    """

    key_heads: int
    value_heads: int
    key_dim: int
    value_dim: int
    conv_width: int

    window = None

    def shard(self, tensor: int) -> LinearAttention:
        """Returns the heads of one tensor-parallel rank.

        Raises:
            InvalidFieldError: ``tensor`` does not divide the key heads.
        """
        if self.key_heads % tensor:
            raise InvalidFieldError(
                "tensor",
                f"{tensor} does not divide the {self.key_heads} key heads of linear attention",
            )
        return replace(
            self,
            key_heads=self.key_heads // tensor,
            value_heads=self.value_heads // tensor,
        )

    @property
    def channels(self) -> int:
        """Width of queries, keys and values together, which the convolution runs over."""
        return 2 * self.key_heads * self.key_dim + self.value_size

    @property
    def value_size(self) -> int:
        """Width of all value heads: of values, gate and output."""
        return self.value_heads * self.value_dim

    @property
    def cached_values(self) -> int:
        """Values that the cache keeps of one token: none."""
        return 0

    @property
    def state_values(self) -> int:
        """Values of one sequence's state, which are kept in fp32."""
        return self.key_dim * self.value_size

    @property
    def conv_values(self) -> int:
        """Values of one sequence that the convolution looks back on."""
        return (self.conv_width - 1) * self.channels

    @property
    def activation_values(self) -> int:
        """Queries, keys, values, gates and output of one token."""
        return self.channels + 2 * self.value_size + 2 * self.value_heads

    def matrix_parameters(self, hidden_size: int) -> int:
        """Returns the weights of the projections; those of single values are not packed."""
        return hidden_size * (self.channels + 2 * self.value_size)

    def parameter_count(self, hidden_size: int) -> int:
        """Returns the number of weights.

        Besides the projections: two values a value head projected (step size and decay) with
        a bias and a rate of the decay, the convolution, and the norm of the heads' output.
        """
        single = 2 * self.value_heads * (hidden_size + 1)
        convolution = self.channels * self.conv_width
        return self.matrix_parameters(hidden_size) + single + convolution + self.value_dim


AnyAttention = Attention | LatentAttention | LinearAttention
"""What a layer mixes tokens by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedForward:
    """A dense feed-forward block, gated (SwiGLU-like) or plain."""

    intermediate_size: int
    gated: bool = True
    activation: Activation = Activation.SILU
    bias: bool = False

    def shard(self, tensor: int) -> FeedForward:
        """Returns the columns of one tensor-parallel rank (the fullest one)."""
        return replace(self, intermediate_size=-(-self.intermediate_size // tensor))

    @property
    def matrices(self) -> int:
        """Number of projections."""
        return 3 if self.gated else 2

    @property
    def activation_values(self) -> int:
        """Gate, up and product of one token."""
        return self.matrices * self.intermediate_size

    def matrix_parameters(self, hidden_size: int) -> int:
        """Returns the weights of the projections."""
        return self.matrices * hidden_size * self.intermediate_size

    def parameter_count(self, hidden_size: int) -> int:
        """Returns the number of weights and biases."""
        biases = (self.matrices - 1) * self.intermediate_size + hidden_size
        return self.matrix_parameters(hidden_size) + biases * self.bias

    def active_parameters(self, hidden_size: int) -> int:
        """Returns the parameters that one token meets: all."""
        return self.parameter_count(hidden_size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Experts:
    """A mixture of experts: a router sends each token to ``top_k`` of ``count`` experts.

    Attributes:
        expert: one routed expert.
        count: routed experts of the layer.
        top_k: experts that a token is sent to.
        shared: block that every token passes besides; None where there is none.
        router_bias: whether the router has a bias.
        local: routed experts on this rank; 0: all of them.
    """

    expert: FeedForward
    count: int
    top_k: int
    shared: FeedForward | None = None
    router_bias: bool = False
    local: int = 0

    def shard(self, tensor: int, expert: int = 1, expert_tensor: int = 1) -> Experts:
        """Returns what one rank holds.

        Args:
            tensor: tensor-parallel size, which the shared experts are cut by.
            expert: ranks that the routed experts are spread over.
            expert_tensor: ranks that each routed expert is cut over.

        Raises:
            InvalidFieldError: ``expert`` does not divide the experts.
        """
        if self.count % expert:
            raise InvalidFieldError("expert", f"{expert} does not divide the {self.count} experts")
        return replace(
            self,
            expert=self.expert.shard(expert_tensor),
            shared=self.shared and self.shared.shard(tensor),
            local=self.count // expert,
        )

    @property
    def held(self) -> int:
        """Routed experts on this rank."""
        return self.local or self.count

    @property
    def activation_values(self) -> int:
        """Inner values of one token in all experts that it is sent to."""
        shared = self.shared.activation_values if self.shared else 0
        return self.top_k * self.expert.activation_values + shared

    def matrix_parameters(self, hidden_size: int) -> int:
        """Returns the weights of the experts' projections; the router's are not packed."""
        shared = self.shared.matrix_parameters(hidden_size) if self.shared else 0
        return self.held * self.expert.matrix_parameters(hidden_size) + shared

    def parameter_count(self, hidden_size: int) -> int:
        """Returns the number of weights and biases, the router's included."""
        return self._parameters(hidden_size, self.held)

    def active_parameters(self, hidden_size: int) -> int:
        """Returns the parameters that one token meets."""
        return self._parameters(hidden_size, self.top_k)

    def touched(self, tokens: float) -> float:
        """Returns how many of this rank's experts so many tokens are expected to meet.

        Each expert is as likely as any other: held x (1 - (1 - top_k / count)^tokens).
        """
        return float(self.held * (1.0 - (1.0 - self.top_k / self.count) ** tokens))

    def _parameters(self, hidden_size: int, experts: int) -> int:
        shared = self.shared.parameter_count(hidden_size) if self.shared else 0
        router = self.count * (hidden_size + self.router_bias)
        return experts * self.expert.parameter_count(hidden_size) + shared + router


def _check_heads(query_heads: int, tensor: int) -> None:
    if query_heads % tensor:
        raise InvalidFieldError("tensor", f"{tensor} does not divide the {query_heads} query heads")
