"""Llama's forward pass for training: Transformers' LlamaModel in bfloat16, over texts without padding, and with fewer
passes over memory. On a CPU it takes a quarter of the time."""

from typing import Any

import torch
import torch.nn.functional as F
from transformers import LlamaForCausalLM

from server.embedded.batches import TEXT_GRAIN, Batch, Text, filled_up


class Weights:
    """The model's weights in bfloat16, those that are applied together joined; gradients go to the originals."""

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
    """The hidden states (tokens, width)."""
    config = weights.config
    rope: Any = config.rope_parameters
    heads, width, eps = config.num_attention_heads, config.hidden_size, config.rms_norm_eps
    part = width // heads
    frequencies = rope["rope_theta"] ** -(torch.arange(0, part, 2) / part)
    angles = batch.positions[:, None].float() * frequencies
    cosine, sine = (torch.cat([wave, wave], -1)[:, None].bfloat16() for wave in (angles.cos(), angles.sin()))
    x = F.embedding(batch.tokens, weights.embedding)
    for first_norm, queries_keys_values, out, second_norm, gate_up, down in weights.layers:
        joined = F.linear(F.rms_norm(x, (width,), first_norm, eps), queries_keys_values)
        joined = joined.unflatten(-1, (3 * heads, part))
        turning = joined[:, : 2 * heads]
        left, right = turning.chunk(2, dim=-1)
        turning = turning * cosine + torch.cat([-right, left], -1) * sine
        by_head = torch.cat([turning, joined[:, 2 * heads :]], dim=1).transpose(0, 1).contiguous()
        attended = Attention.apply(by_head, batch.texts)
        x = x + F.linear(attended.transpose(0, 1).flatten(1), out)
        gate, up = F.linear(F.rms_norm(x, (width,), second_norm, eps), gate_up).chunk(2, dim=-1)
        x = x + F.linear(F.silu(gate) * up, down)
    return F.rms_norm(x, (width,), weights.norm, eps)


class Attention(torch.autograd.Function):
    """Attention of each text to its prompt and, causally, to itself. Takes the heads' queries, keys and values
    (3 heads, tokens, width of a head) and `Batch.texts`; gives (heads, tokens, width of a head).

    The kernel behind `scaled_dot_product_attention` takes twice as long on a CPU, forward and back, and wants
    texts padded to one length.
    """

    @staticmethod
    def forward(context: Any, by_head: torch.Tensor, texts: list[Text]) -> torch.Tensor:
        queries, keys, values = by_head.chunk(3)
        queries = queries * queries.shape[-1] ** -0.5
        future = torch.full([max(own.stop - own.start for _, own in texts)] * 2, -torch.inf).triu(1).to(keys.dtype)
        gives, all_shares = torch.empty_like(queries), []
        for behind, own in texts:
            length = own.stop - own.start
            scores = queries[:, own] @ _seen(keys, behind, own).mT
            scores[:, :, -length:] += future[:length, :length]
            if behind is not None:
                # What fills the prompt up is no part of it.
                scores[:, :, behind.stop - behind.start : -length] = -torch.inf
            shares = scores.softmax(-1)
            gives[:, own] = shares @ _seen(values, behind, own)
            all_shares.append(shares)
        context.texts = texts
        context.save_for_backward(by_head, *all_shares)
        return gives

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> Any:
        (gradient,) = gradients
        by_head, *all_shares = context.saved_tensors
        queries, keys, values = by_head.chunk(3)
        scale = queries.shape[-1] ** -0.5
        result = torch.zeros_like(by_head)
        for_queries, for_keys, for_values = result.chunk(3)
        for (behind, own), shares in zip(context.texts, all_shares, strict=True):
            for_shares = gradient[:, own] @ _seen(values, behind, own).mT
            for_scores = torch._softmax_backward_data(for_shares, shares, -1, shares.dtype)
            for_scores *= scale
            for_queries[:, own] = for_scores @ _seen(keys, behind, own)
            _add(for_keys, behind, own, for_scores.mT @ queries[:, own])
            _add(for_values, behind, own, shares.mT @ gradient[:, own])
        return result, None


def _seen(rows: torch.Tensor, behind: slice | None, own: slice) -> torch.Tensor:
    """The rows of a text's prompt, with those that fill it up, and of the text."""
    return rows[:, own] if behind is None else torch.cat([rows[:, _whole(behind)], rows[:, own]], dim=1)


def _add(to: torch.Tensor, behind: slice | None, own: slice, rows: torch.Tensor) -> None:
    if behind is not None:
        to[:, behind] += rows[:, : behind.stop - behind.start]
    to[:, own] += rows[:, own.start - own.stop :]


def _whole(prompt: slice) -> slice:
    return slice(prompt.start, prompt.start + filled_up(prompt.stop - prompt.start, TEXT_GRAIN))
