"""The recipe of the model in the box, and what it may not do: score itself on what it was trained on."""

import itertools
import json
import re
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, LlamaForCausalLM

from server.agent import prompts
from server.embedded import corpus, shipped, train, written_tools
from server.embedded.batches import SITUATIONS_A_STEP, TEXT_GRAIN, Encoder, batches
from server.embedded.evaluate import SEED, WRITTEN
from server.embedded.examples import Example, Situation
from server.embedded.packed_llama import Weights, forward
from server.embedded.train import WEIGHTS

SHIPPED = {tool.name for tool in shipped.TOOLS}


def examples(seed: int, number: int, held_out: bool = False) -> list[tuple[Situation, Example]]:
    situations = itertools.islice(corpus.situations(seed, held_out=held_out), number)
    return [(situation, example) for situation in situations for example in situation.examples]


def test_a_seed_fixes_the_corpus() -> None:
    assert examples(1, 20) == examples(1, 20)
    assert examples(1, 20) != examples(2, 20)


def test_no_question_is_both_trained_on_and_scored() -> None:
    trained = {example.question for _, example in examples(7 + 1000, 2500)}
    scored = {example.question for _, example in examples(SEED, 500, held_out=True) if example.kind != "plain"}
    assert not trained & scored
    for file in WRITTEN.values():
        lines = (Path(train.__file__).parent / file).read_text(encoding="utf-8").splitlines()
        by_hand = {json.loads(line)["question"] for line in lines}
        assert len(by_hand) >= 150
        assert len((trained | scored) & by_hand) <= 6, "a greeting may be the same; nothing else is"


def test_half_of_the_tools_are_invented() -> None:
    names = [tool.name for situation, _ in examples(3, 500) for tool in situation.tools]
    assert sum(name not in SHIPPED for name in names) / len(names) >= 0.5


def test_the_written_tools_are_sound() -> None:
    tools = [tool for tools in written_tools.written_tools().values() for tool in tools]
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
    [(situation, example), *_] = [
        pair for pair in examples(5, 20) if pair[0].tools and pair[0].purpose == "act" and not pair[1].history
    ]
    system, user = corpus.conversation(situation, example)
    assert system["content"].startswith(prompts.SYSTEM.split("{tools}")[0])
    assert user["content"] == example.question
    for tool in situation.tools:
        assert prompts.describe_tool(tool.name, tool.description, tool.schema) in system["content"]


def test_a_system_message_of_one_s_own_stands_where_clients_and_sessions_put_it() -> None:
    pairs = [pair for pair in examples(6, 300) if pair[0].purpose == "act"]
    told = [pair for pair in pairs if pair[0].told]
    kept = [pair for pair in pairs if pair[1].history and _is_instruction(*pair[1].history[0])]
    assert told and kept
    for situation, example in told:
        assert corpus.conversation(situation, example)[0]["content"].endswith(f"the answer\n\n{situation.told}")
    for situation, example in kept:
        assert corpus.conversation(situation, example)[1]["content"].startswith(example.history[0][1] + "\n\n")


def _is_instruction(role: str, content: str) -> bool:
    return role == "system" and content.startswith(tuple(corpus.INSTRUCTIONS))


def test_the_packed_forward_pass_is_llamas() -> None:
    """Of each text what the model itself gives for it behind its prompt; and what the weights learn of it."""
    model = LlamaForCausalLM.from_pretrained(WEIGHTS, dtype=torch.float32).eval()
    encoder = Encoder(AutoTokenizer.from_pretrained(WEIGHTS))
    batch = next(batches(encoder, 11))
    hidden = forward(Weights(model), batch).float()
    real = batch.tokens != encoder.tokenizer.pad_token_id
    (
        torch.nn.functional.linear(hidden, model.get_input_embeddings().weight).log_softmax(-1)[real, ::100]
    ).sum().backward()
    ours = {name: weight.grad for name, weight in model.named_parameters()}
    model.zero_grad()
    prompt_lengths = {behind.start: behind.stop - behind.start for behind, _ in batch.texts if behind is not None}
    assert len(prompt_lengths) == SITUATIONS_A_STEP
    assert any(length % TEXT_GRAIN for length in prompt_lengths.values())
    for behind, own in batch.texts:
        seen = [batch.tokens[own]] if behind is None else [batch.tokens[behind], batch.tokens[own]]
        places = [batch.positions[own]] if behind is None else [batch.positions[behind], batch.positions[own]]
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
