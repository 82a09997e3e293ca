"""Citations: what the model quoted, found again on its page by code."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from server.sdk import DocumentPage

from . import prompts
from .agent import Citation
from .conversation import Quote, Statement
from .evidence import Pages, Shown
from .quotes import find_quote


@dataclass(frozen=True)
class Dropped:
    """A quote that is no citation, and why."""

    sentence: str
    passage: int
    quote: str
    reason: str


@dataclass
class Checked:
    """Sentences with their citations, of which each has at least one, and what was dropped."""

    sentences: list[tuple[str, list[Citation]]] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Number of citations."""
        return sum(len(citations) for _, citations in self.sentences)

    def answer(self, shown: Sequence[Shown]) -> tuple[str, list[Citation]]:
        """The text of the answer, where each sentence names document and printed page, and the citations with their
        places in it."""
        names = {one.document_id: one.document for one in shown}
        text, placed = "", []
        for sentence, citations in self.sentences:
            text += f"{' ' if text else ''}{sentence}"
            marks: dict[str, None] = {}
            for one in citations:
                mark = prompts.CITATION if one.page_label is None else prompts.CITATION_ON_PAGE
                marks[mark.format(document=names[one.document_id], page=one.page_label)] = None
                placed.append(replace(one, at=len(text)))
            text += "".join(marks)
        return text, placed


def check(statements: Sequence[Statement], shown: Sequence[Shown], pages: Pages) -> Checked:
    """Which quotes stand on the page of their passage, word for word. A sentence without one is dropped, and
    so is one that was there before."""
    passages = {one.number: one for one in shown}
    checked = Checked()
    for statement in statements:
        sentence = " ".join(statement.text.split())
        citations: list[Citation] = []
        for quote in statement.quotes:
            found, reason = _found(quote, passages, pages)
            citations += [one for one in found if one not in citations]
            if reason:
                checked.dropped.append(Dropped(sentence, quote.passage, quote.text, reason))
        if not statement.quotes:
            checked.dropped.append(Dropped(sentence, 0, "", "it has no quote"))
        if sentence and citations and sentence not in (one for one, _ in checked.sentences):
            checked.sentences.append((sentence, citations))
    return checked


def _found(quote: Quote, passages: Mapping[int, Shown], pages: Pages) -> tuple[list[Citation], str]:
    """The citations that a quote makes: one for each page that it stands on. Without any,
    why."""
    passage = passages.get(quote.passage)
    if passage is None:
        return [], "there is no passage with this number"
    around = pages.get(passage.document_id, max(passage.page - 1, 0), passage.page + 1)
    page = next((one for one in around if one.page == passage.page), None)
    if page is None or page.text[passage.start - page.start :][: len(passage.text)] != passage.text:
        return [], "the document was changed while the question was answered"
    # In the passage itself first: the same words may stand on the page twice.
    if (span := find_quote(passage.text, quote.text)) is not None:
        return [_citation(passage, page, passage.start + span[0], passage.start + span[1])], ""
    if (span := find_quote(page.text, quote.text)) is not None:
        return [_citation(passage, page, page.start + span[0], page.start + span[1])], ""
    for first, second in itertools.pairwise(around):
        joined = f"{first.text}\n{second.text}"
        if first.start + len(first.text) + 1 == second.start and (span := find_quote(joined, quote.text)):
            start, end = first.start + span[0], first.start + span[1]
            return [
                _citation(passage, first, start, first.start + len(first.text.rstrip())),
                _citation(passage, second, second.start + len(second.text) - len(second.text.lstrip()), end),
            ], ""
    return [], "the passage's page does not have these words"


def _citation(passage: Shown, page: DocumentPage, start: int, end: int) -> Citation:
    """`start`, `end`: in the document's text."""
    return Citation(
        document=passage.document,
        document_id=passage.document_id,
        page=page.page,
        page_label=page.page_label,
        quote=page.text[start - page.start : end - page.start],
        start=start,
        end=end,
        score=passage.score,
    )
