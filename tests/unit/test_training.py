"""Training of the embedded model: the corpus, the split between training and evaluation, the forward pass."""

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoTokenizer, LlamaForCausalLM

from server.agent import prompts
from server.embedded import WEIGHTS
from training import corpus, handwritten_tools, shipped_tools, train
from training.batches import SEQUENCE_MULTIPLE, Batch, batches
from training.evaluate import HANDWRITTEN, SEED, TEST_SETS
from training.packed_forward import Weights, forward
from training.samples import Sample, SampleGroup, conversation
from training.tokenizer import Encoder

SHIPPED = {tool.name for tool in shipped_tools.TOOLS}


def samples(seed: int, number: int, held_out: bool = False) -> list[tuple[SampleGroup, Sample]]:
    groups = itertools.islice(corpus.sample_groups(seed, held_out=held_out), number)
    return [(group, sample) for group in groups for sample in group.samples]


def test_a_seed_fixes_the_corpus() -> None:
    assert samples(1, 20) == samples(1, 20)
    assert samples(1, 20) != samples(2, 20)


def test_no_question_is_both_trained_on_and_scored() -> None:
    trained = {sample.question for _, sample in samples(7 + 1000, 2500)}
    scored = {sample.question for _, sample in samples(SEED, 500, held_out=True) if sample.kind != "mood"}
    assert not trained & scored
    for file in HANDWRITTEN.values():
        lines = (TEST_SETS / file).read_text(encoding="utf-8").splitlines()
        by_hand = {json.loads(line)["question"] for line in lines}
        assert len(by_hand) >= 150
        assert len((trained | scored) & by_hand) <= 6, "a greeting may be the same; nothing else is"


def test_half_of_the_tools_are_not_shipped() -> None:
    names = [tool.name for group, _ in samples(3, 500) for tool in group.tools]
    assert sum(name not in SHIPPED for name in names) / len(names) >= 0.5


def test_the_handwritten_tools_are_sound() -> None:
    tools = [tool for tools in handwritten_tools.handwritten_tools().values() for tool in tools]
    assert len({tool.own.name for tool in tools} | SHIPPED) == len(tools) + len(SHIPPED)
    for tool in tools:
        arguments = {name.rstrip("?"): kind for name, kind in tool.own.arguments.items()}
        required = {name for name in tool.own.arguments if not name.endswith("?")}
        assert all(
            kind == "boolean" or isinstance(kind, tuple) or name in tool.values for name, kind in arguments.items()
        )
        assert len(tool.questions) >= 10
        for text, settled in tool.questions.items():
            slots = re.findall(r"{(\w+)}", text)
            assert required <= {*slots, *settled} <= arguments.keys(), text
            assert len(slots) == len(set(slots)) and not settled.keys() & set(slots), text
            assert not any(arguments[slot] == "boolean" for slot in slots), text
            for name, value in settled.items():
                kind = arguments[name]
                assert value in kind if isinstance(kind, tuple) else isinstance(value, (str, bool, int, float)), text


def test_the_prompt_is_the_agents_own() -> None:
    [(group, sample), *_] = [
        pair for pair in samples(5, 20) if pair[0].tools and pair[0].purpose == "act" and not pair[1].history
    ]
    system, user = conversation(group, sample)
    assert system["content"].startswith(prompts.SYSTEM.split("{tools}")[0])
    assert user["content"] == sample.question
    for tool in group.tools:
        assert prompts.describe_tool(tool.name, tool.description, tool.schema) in system["content"]


def test_a_client_s_system_message_is_where_clients_and_sessions_put_it() -> None:
    pairs = [pair for pair in samples(6, 300) if pair[0].purpose == "act"]
    of_clients = [pair for pair in pairs if pair[0].client_system]
    of_sessions = [pair for pair in pairs if pair[1].history and _is_instruction(*pair[1].history[0])]
    assert of_clients and of_sessions
    for group, sample in of_clients:
        assert conversation(group, sample)[0]["content"].endswith(f"the answer\n\n{group.client_system}")
    for group, sample in of_sessions:
        assert conversation(group, sample)[1]["content"].startswith(sample.history[0][1] + "\n\n")


def _is_instruction(role: str, content: str) -> bool:
    return role == "system" and content.startswith(tuple(corpus.INSTRUCTIONS))


def test_the_packed_forward_pass_is_llamas() -> None:
    """Log-probabilities and gradients are those of LlamaForCausalLM, which reads each sequence after its prefix."""
    model = LlamaForCausalLM.from_pretrained(WEIGHTS, dtype=torch.float32).eval()
    encoder = Encoder(AutoTokenizer.from_pretrained(WEIGHTS))
    batch = next(batches(encoder, 11, groups_per_step=2))
    hidden = forward(Weights(model), batch).float()
    real = batch.tokens != encoder.tokenizer.pad_token_id
    (
        torch.nn.functional.linear(hidden, model.get_input_embeddings().weight).log_softmax(-1)[real, ::100]
    ).sum().backward()
    ours = {name: weight.grad for name, weight in model.named_parameters()}
    model.zero_grad()
    lengths = {prefix.start: prefix.stop - prefix.start for prefix, _ in batch.sequences if prefix is not None}
    assert len(lengths) == 2
    assert any(length % SEQUENCE_MULTIPLE for length in lengths.values())
    for prefix, own in batch.sequences:
        seen = [batch.tokens[own]] if prefix is None else [batch.tokens[prefix], batch.tokens[own]]
        places = [batch.positions[own]] if prefix is None else [batch.positions[prefix], batch.positions[own]]
        logits = model(torch.cat(seen)[None], position_ids=torch.cat(places)[None]).logits[0, -len(seen[-1]) :]
        wanted = logits.log_softmax(-1)
        wanted[real[own], ::100].sum().backward()
        got = torch.nn.functional.linear(hidden[own], model.get_input_embeddings().weight).log_softmax(-1).detach()
        # bfloat16 against float32
        assert (got - wanted).abs().mean() < 0.2
        assert (got.argmax(-1) == wanted.argmax(-1)).float().mean() > 0.9
    for name, weight in model.named_parameters():
        theirs, mine = weight.grad, ours[name]
        assert theirs is not None and mine is not None
        assert torch.nn.functional.cosine_similarity(theirs.flatten(), mine.flatten(), dim=0) > 0.98, name


def small_model() -> tuple[LlamaForCausalLM, Batch]:
    """A model of two layers with random weights, and a batch of one group."""
    encoder = Encoder(AutoTokenizer.from_pretrained(WEIGHTS))
    torch.manual_seed(7)
    model = train.make_model(encoder.tokenizer, layers=2, width=128)
    return model, next(batches(encoder, 11, groups_per_step=1))


def test_steps_in_mixed_precision_learn() -> None:
    """Activations are bfloat16; parameters, gradients and optimizer state are float32. A GPU takes the same path."""
    model, batch = small_model()
    optimizers = train.make_optimizers(model)
    assert forward(Weights(model), batch).dtype == torch.bfloat16
    losses = []
    for _ in range(6):
        loss, _ = train.loss_of(model, batch)
        loss.backward()
        losses.append(loss.item())
        assert loss.dtype == torch.float32
        assert {weight.dtype for weight in model.parameters()} == {torch.float32}
        assert {weight.grad.dtype for weight in model.parameters() if weight.grad is not None} == {torch.float32}
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    states = [state for optimizer in optimizers for state in optimizer.state.values()]
    assert states and {value.dtype for state in states for value in state.values()} == {torch.float32}
    assert losses[-1] < losses[0] - 1


class OneDevice(TorchDispatchMode):
    """Refuses operations on tensors of several devices. Meta tensors alone don't: in-place operations and matrix
    products take CPU tensors with them."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        devices = {leaf.device.type for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)}
        assert len(devices) <= 1, f"{func} mixes {devices}"
        return func(*args, **(kwargs or {}))


def test_forward_and_backward_stay_on_the_model_s_device() -> None:
    """On meta tensors, which stand for those of a GPU."""
    _, batch = small_model()
    device = torch.device("meta")
    batch = batch.to(device)
    with device:
        model = train.make_model(AutoTokenizer.from_pretrained(WEIGHTS), layers=2, width=128)
    with OneDevice():
        hidden = forward(Weights(model), batch)
        hidden.sum().backward()
    assert hidden.device == batch.loss_weights.device == device
    assert all(weight.grad is not None and weight.grad.device == device for weight in model.parameters())


@pytest.mark.parametrize(
    "flags",
    [
        ["--batch", "12"],
        ["--width", "100"],
        ["--layers", "0"],
        ["--steps", "0"],
        ["--continue-from", ".", "--layers", "9"],
    ],
)
def test_flags_that_do_not_work_are_refused(flags: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["train", *flags])
    with pytest.raises(SystemExit, match="2"):
        train.main()


def test_training_continues_from_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    train.train(1, 7, folder, groups_per_step=1, continue_from=WEIGHTS)
    made, before = (LlamaForCausalLM.from_pretrained(one, dtype=torch.float32) for one in (folder, WEIGHTS))
    assert made.config.num_hidden_layers == before.config.num_hidden_layers
    changed = [not torch.equal(one, other) for one, other in zip(made.parameters(), before.parameters(), strict=True)]
    assert any(changed)
    assert (folder / "tokenizer.json").read_bytes() == (WEIGHTS / "tokenizer.json").read_bytes()


def test_the_weights_are_small_enough_for_git() -> None:
    assert sum(file.stat().st_size for file in WEIGHTS.iterdir()) < 16_000_000


@pytest.mark.slow
def test_training_starts_and_learns(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    train.train(24, 7, folder)
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"} <= {
        file.name for file in folder.iterdir()
    }
    encoder = Encoder(AutoTokenizer.from_pretrained(folder))
    [batch] = itertools.islice(batches(encoder, 99), 1)
    torch.manual_seed(7)
    before = train.make_model(encoder.tokenizer)
    after = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        assert train.loss_of(after, batch)[0] < train.loss_of(before, batch)[0] - 1
