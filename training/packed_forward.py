"""Llama's forward pass over packed sequences, for training: what Transformers' LlamaModel computes, in bfloat16.

On a CPU it takes a quarter of LlamaModel's time, because there is almost no padding and fewer passes over memory.
It runs on the device of the weights, which the batch must be on too.
"""

from typing import Any

import torch
import torch.nn.functional as F
from transformers import LlamaForCausalLM

from training.batches import SEQUENCE_MULTIPLE, Batch, Sequence, padded


class Weights:
    """The model's weights in bfloat16, with those that are applied together concatenated. Gradients reach the model's
    own parameters, in their own dtype."""

    def __init__(self, model: LlamaForCausalLM) -> None:
        def half(*parts: torch.Tensor) -> torch.Tensor:
            return torch.cat(parts).bfloat16() if len(parts) > 1 else parts[0].bfloat16()

        self.config = model.config
        self.embedding = half(model.model.embed_tokens.weight)
        self.norm = half(model.model.norm.weight)
        self.layers = [
            (
                half(layer.input_layernorm.weight),
                half(layer.self_attn.q_proj.weight, layer.self_attn.k_proj.weight, layer.self_attn.v_proj.weight),
                half(layer.self_attn.o_proj.weight),
                half(layer.post_attention_layernorm.weight),
                half(layer.mlp.gate_proj.weight, layer.mlp.up_proj.weight),
                half(layer.mlp.down_proj.weight),
            )
            for layer in model.model.layers
        ]


def forward(weights: Weights, batch: Batch) -> torch.Tensor:
    """The hidden states after the last norm (tokens, hidden size), in bfloat16."""
    config = weights.config
    rope: Any = config.rope_parameters
    heads, width, eps = config.num_attention_heads, config.hidden_size, config.rms_norm_eps
    head_width = width // heads
    exponents = torch.arange(0, head_width, 2, device=batch.positions.device) / head_width
    angles = batch.positions[:, None].float() * rope["rope_theta"] ** -exponents
    cosine, sine = (torch.cat([wave, wave], -1)[:, None].bfloat16() for wave in (angles.cos(), angles.sin()))
    x = F.embedding(batch.tokens, weights.embedding)
    for attention_norm, queries_keys_values, out, mlp_norm, gate_up, down in weights.layers:
        joined = F.linear(F.rms_norm(x, (width,), attention_norm, eps), queries_keys_values)
        joined = joined.unflatten(-1, (3 * heads, head_width))
        rotated = joined[:, : 2 * heads]
        left, right = rotated.chunk(2, dim=-1)
        rotated = rotated * cosine + torch.cat([-right, left], -1) * sine
        by_head = torch.cat([rotated, joined[:, 2 * heads :]], dim=1).transpose(0, 1).contiguous()
        attended = PackedAttention.apply(by_head, batch.sequences)
        x = x + F.linear(attended.transpose(0, 1).flatten(1), out)
        gate, up = F.linear(F.rms_norm(x, (width,), mlp_norm, eps), gate_up).chunk(2, dim=-1)
        x = x + F.linear(F.silu(gate) * up, down)
    return F.rms_norm(x, (width,), weights.norm, eps)


class PackedAttention(torch.autograd.Function):
    """Attention of each sequence to its prefix and, causally, to itself. Takes queries, keys and values of all heads
    (3 heads, tokens, head width) and `Batch.sequences`; returns (heads, tokens, head width).

    `scaled_dot_product_attention` takes twice as long on a CPU, forward and backward, and needs sequences that are
    padded to one length.
    """

    @staticmethod
    def forward(context: Any, by_head: torch.Tensor, sequences: list[Sequence]) -> torch.Tensor:
        queries, keys, values = by_head.chunk(3)
        queries = queries * queries.shape[-1] ** -0.5
        longest = max(own.stop - own.start for _, own in sequences)
        causal_mask = torch.full((longest, longest), -torch.inf, device=keys.device, dtype=keys.dtype).triu(1)
        result, all_probabilities = torch.empty_like(queries), []
        for prefix, own in sequences:
            length = own.stop - own.start
            scores = queries[:, own] @ _visible(keys, prefix, own).mT
            scores[:, :, -length:] += causal_mask[:length, :length]
            if prefix is not None:
                # No attention to the prefix's padding.
                scores[:, :, prefix.stop - prefix.start : -length] = -torch.inf
            probabilities = scores.softmax(-1)
            result[:, own] = probabilities @ _visible(values, prefix, own)
            all_probabilities.append(probabilities)
        context.sequences = sequences
        context.save_for_backward(by_head, *all_probabilities)
        return result

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> Any:
        (gradient,) = gradients
        by_head, *all_probabilities = context.saved_tensors
        queries, keys, values = by_head.chunk(3)
        scale = queries.shape[-1] ** -0.5
        result = torch.zeros_like(by_head)
        for_queries, for_keys, for_values = result.chunk(3)
        for (prefix, own), probabilities in zip(context.sequences, all_probabilities, strict=True):
            for_probabilities = gradient[:, own] @ _visible(values, prefix, own).mT
            for_scores = torch._softmax_backward_data(for_probabilities, probabilities, -1, probabilities.dtype)
            for_scores *= scale
            for_queries[:, own] = for_scores @ _visible(keys, prefix, own)
            _add(for_keys, prefix, own, for_scores.mT @ queries[:, own])
            _add(for_values, prefix, own, probabilities.mT @ gradient[:, own])
        return result, None


def _visible(rows: torch.Tensor, prefix: slice | None, own: slice) -> torch.Tensor:
    """The rows of a sequence's prefix, with its padding, and of the sequence."""
    if prefix is None:
        return rows[:, own]
    length = padded(prefix.stop - prefix.start, SEQUENCE_MULTIPLE)
    return torch.cat([rows[:, prefix.start : prefix.start + length], rows[:, own]], dim=1)


def _add(to: torch.Tensor, prefix: slice | None, own: slice, rows: torch.Tensor) -> None:
    """Adds the gradients of `_visible` rows to those of all tokens."""
    if prefix is not None:
        to[:, prefix] += rows[:, : prefix.stop - prefix.start]
    to[:, own] += rows[:, own.start - own.stop :]
