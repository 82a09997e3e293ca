"""What the embedded model can write of passages: sentences whose quotes stand in the passage that they name."""

import random

import pytest

from server.agent import prompts
from server.agent.citations import check
from server.agent.conversation import Choice
from server.agent.evidence import Pages, Shown, fitting, in_words, numbered
from server.agent.guided import GuidedConversation
from server.agent.quotes import find_quote, one_line
from server.engine import GuidedEngine
from server.sdk import DocumentPage

WORDS = (
    "the warpage of parts grows with mould-\ntemperature ﬁlled polymers shrink less “thus” 80 °C [3] (see 4.2) "
    "c(1, 2) 0.4 mm; a\\b is\tread \u2013 Größe, naïve state-of-\nthe-art x_y <b> 温度 "
    "of laser triangulation. It was measured; "
).split(" ")


class Given(Pages):
    """Pages that a test has."""

    def __init__(self, pages: list[DocumentPage]) -> None:
        super().__init__()
        self._known = {("d", page.page): page for page in pages}

    def get(self, document_id: str, first: int, last: int) -> list[DocumentPage]:
        """See `Pages.get`. Nobody is asked for pages beyond these: there are none."""
        return super().get(document_id, first, min(last, len(self._known) - 1))


def made(seed: int, count: int) -> tuple[list[Shown], Given]:
    """Passages of pages of random words, two on each page."""
    chance = random.Random(seed)
    pages: list[DocumentPage] = []
    shown: list[Shown] = []
    start = 0
    for index in range(count):
        text = "".join(chance.choice(WORDS) + chance.choice("     \n") for _ in range(chance.randrange(12, 90)))
        page = DocumentPage(page=index, page_label=str(index + 3), start=start, text=text.strip())
        pages.append(page)
        half = page.text.index(" ", len(page.text) // 3)
        for first, last in ((0, half), (half, len(page.text))):
            part = page.text[first:last]
            shown.append(Shown(0, "a.pdf", "d", index, page.page_label, start + first, part, one_line(part), 1.0))
        start += len(page.text) + 1
    return numbered(shown), Given(pages)


def quotes_checked(engine: GuidedEngine, seed: int, most: int) -> int:
    """Lets the model state something about random passages. Returns how many quotes it has made, all right ones."""
    shown, pages = made(seed, 4)
    shown = fitting(shown, engine.context_length // 2, engine.tokenizer.count)
    asked = prompts.CITED.format(passages=in_words(shown, "How?"), question="How does the warpage grow?")
    conversation = GuidedConversation(engine, prompts.conversation(prompts.CITE, asked))
    conversation.choose = lambda options: Choice(prompts.STATED, None)  # type: ignore[method-assign]
    texts = {one.number: one.line.text for one in shown}
    statements = conversation.write_statements(texts, most, 1024)
    checked = check(statements, shown, pages)
    assert checked.dropped == [] and statements
    for statement in statements:
        assert statement.text and statement.quotes and "\n" not in statement.text
        for quote in statement.quotes:
            assert quote.text in texts[quote.passage]
    answer, citations = checked.answer(shown)
    assert answer and citations
    for one in citations:
        [page] = pages.get("d", one.page, one.page)
        assert page.text[one.start - page.start : one.end - page.start] == one.quote
        assert find_quote(page.text, one.quote) is not None and one.page_label == page.page_label
    return sum(len(statement.quotes) for statement in statements)


def test_each_quote_stands_on_its_page(engine: GuidedEngine) -> None:
    assert sum(quotes_checked(engine, seed, most=1) for seed in range(5)) >= 5


@pytest.mark.slow
def test_each_of_many_quotes_stands_on_its_page(engine: GuidedEngine) -> None:
    assert sum(quotes_checked(engine, seed, most=3) for seed in range(100, 150)) >= 100


def test_a_model_may_decline(engine: GuidedEngine) -> None:
    shown, _ = made(1, 1)
    conversation = GuidedConversation(engine, prompts.conversation(prompts.CITE, "?"))
    conversation.choose = lambda options: Choice(options[0], None)  # type: ignore[method-assign]
    assert conversation.write_statements({one.number: one.line.text for one in shown}, 4, 512) == []
    # Nothing can be quoted of passages without words.
    assert conversation.write_statements({1: "", 2: "a"}, 4, 512) == []


def test_passages_fit_their_room(engine: GuidedEngine) -> None:
    shown, _ = made(7, 12)
    count = engine.tokenizer.count
    for room in (2000, 400, 150):
        fit = fitting(shown, room, count)
        assert fit and count(in_words(fit, "")) <= room
        assert [one.number for one in fit] == list(range(1, len(fit) + 1))
