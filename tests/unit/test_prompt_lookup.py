"""Prompt lookup: where drafts come from, and that they never change a text."""

from collections.abc import Callable

import guidance
import pytest
from guidance import gen, select

from server.engine import GuidedEngine
from server.engine.prompt_lookup import MAX_DRAFT_TOKENS, PAUSES, REMEMBERED, PromptLookup, RecentTexts
from server.engine.sequence import Sampling
from server.sdk import logprobs, usage


def draft_after(text: str, others: RecentTexts | None = None, most: int = MAX_DRAFT_TOKENS) -> str:
    """The draft after `text`, a token a letter."""
    return "".join(map(chr, PromptLookup([]).propose(list(map(ord, text)), most, others or RecentTexts())))


def remembering(*texts: str) -> RecentTexts:
    recent = RecentTexts()
    for text in texts:
        recent.remember(list(map(ord, text)), 0)
    return recent


@pytest.mark.parametrize(
    ("text", "follows"),
    [
        ("", ""),
        ("ab", ""),
        ("abc", ""),
        ("abcab", "cab"),
        ("ab1ab2ab", "2ab"),
        ("zab1yab2zab", "1yab2zab"),
        ("abcdefghijklmnoab", "cdefghij"),
    ],
)
def test_a_text_goes_on_as_it_did_before(text: str, follows: str) -> None:
    """The last time, or where most tokens agree."""
    assert draft_after(text) == follows


def test_a_text_goes_on_as_others_did() -> None:
    others = remembering("the sea is blue", "the sea is calm")
    assert draft_after("a sea is ", others) == "calm"
    assert draft_after("a sea is ", others, most=2) == "ca"
    assert draft_after("x is 1, x is ", others) == "1, x is ", "what stands in the text itself comes first"
    assert draft_after("the end", others) == ""


def test_only_what_was_written_is_remembered() -> None:
    recent = RecentTexts()
    recent.remember(list(map(ord, "a question? an answer")), start=12)
    assert draft_after("n answ", recent) == "er"
    assert draft_after("a que", recent) == ""


def test_what_is_remembered_is_bounded() -> None:
    recent = RecentTexts()
    for start in range(0, 3 * REMEMBERED, 100):
        recent.remember(list(range(start, start + 100)), 0)
    assert len(recent._recent) == REMEMBERED
    assert recent.after((3 * REMEMBERED - 3, 3 * REMEMBERED - 2), 1) == [3 * REMEMBERED - 1]
    assert not recent.after((1, 2), 1)


def test_after_rejected_drafts_there_are_none_for_a_while() -> None:
    text, draft = [1, 2, 3, 1, 2], PromptLookup([])
    for rest in (*PAUSES[1:], PAUSES[-1]):
        assert draft.propose(text, MAX_DRAFT_TOKENS, RecentTexts())
        draft.report(0)
        assert [len(draft.propose(text, MAX_DRAFT_TOKENS, RecentTexts())) for _ in range(rest)] == [0] * rest
    assert draft.propose(text, MAX_DRAFT_TOKENS, RecentTexts())
    draft.report(1)
    assert draft.propose(text, MAX_DRAFT_TOKENS, RecentTexts())


Write = Callable[[GuidedEngine], str]


def free(engine: GuidedEngine) -> str:
    return str(engine.program() + guidance.string("one two three one two three one two") + gen(max_tokens=60))


def bounded(engine: GuidedEngine) -> str:
    lm = engine.program() + guidance.string("The numbers 31415 and 27182 and 31415: ")
    lm += gen(regex=r"[0-9]{5}( and [0-9]{5}){3}") + ", " + select(["31415", "31416", "none"])
    schema = {"type": "object", "properties": {"number": {"type": "integer"}, "numbers": {"type": "string"}}}
    return str(lm + guidance.json(schema=schema, max_tokens=40))


def stopped(engine: GuidedEngine) -> str:
    lm = engine.program() + guidance.string("stop here. stop here. stop")
    return str(lm + gen(stop="er", max_tokens=40) + gen(stop_regex="[a-c] ?[a-z]", max_tokens=40) + gen(max_tokens=9))


def drawn(engine: GuidedEngine) -> str:
    sampling = Sampling(**{**engine.sampling, "repetition_penalty": 1.2}, temperature=1.5, seed=7)
    lm = engine.program().with_sampling_params(sampling)
    return str(lm + guidance.string("abcdefgh abcdefgh abc") + gen(regex="[a-h ]{60}"))


@pytest.mark.parametrize("write", [free, bounded, stopped, drawn])
def test_a_text_is_the_same_without_drafts(
    engine: GuidedEngine, monkeypatch: pytest.MonkeyPatch, write: Write
) -> None:
    def written() -> tuple[str, float, usage.Usage]:
        with usage.measured() as used, logprobs.measured() as likely:
            text = write(engine)
        return text, likely.log_probability, used

    first, again = written(), written()
    monkeypatch.setattr(engine._kv_cache, "spare_capacity", lambda slot: 0)
    text, log_probability, used = written()
    assert (first[0], again[0]) == (text, text)
    assert (first[1], again[1]) == pytest.approx((log_probability, log_probability), rel=1e-3)
    assert used.forward_passes >= used.completion_tokens
    assert again[2].completion_tokens == used.completion_tokens
    assert again[2].forward_passes < used.forward_passes / 2, "what it wrote a moment ago was in a draft"


def test_little_room_is_no_trouble(make_engine: Callable[..., GuidedEngine]) -> None:
    """Drafts end at the model's context length and at the end of a KV cache slot."""
    engine = make_engine()
    words = "one two three " * 400
    for length in (200, engine.context_length - 45):
        prompt = engine.tokenizer.decode(engine.tokenizer.encode(words.encode())[:length]).decode()
        text = str(engine.program() + guidance.string(prompt) + gen(regex="(one |two |three ){20}"))
        assert len(text.split()) >= 20
