"""The agent that answers from documents, with citations that code has checked.

It reads all documents where they fit, and searches them otherwise. A question that no passage has to do with is
answered without the model. See docs/citations.md.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from server.sdk import PromptTooLongError, UnreadableReplyError, has_documents, list_documents, tell_step, usage

from . import prompts
from .agent import Agent, AgentResult, HistoryMessage, Step
from .citations import Checked, check
from .conversation import Conversation
from .evidence import Pages, Shown, fitting, found_passages, in_words, merged, whole_documents
from .subject import subject_words

TOOL = "search_documents"
"""The name in steps."""
EVIDENCE_SHARE, ANSWER_SHARE, ANSWER_TOKENS = 1 / 2, 1 / 4, 2048
"""The maximum of passages and answer: a share of the model's context length, and tokens."""
LEAST_EVIDENCE = 200
"""Tokens of passages that have to fit."""
MARKS_TOKENS = 64
MOST_SENTENCES = 8
WEAK_SHARE = 0.75
"""A search whose best passage has a smaller share of the question's words is followed by one in the model's words."""
QUERY_TOKENS, QUERY_CHARACTERS = 48, 200
SHORT_QUESTION = 2
"""A question with at most so many words about its subject is searched for together with the one before it."""
MOST_WRONG = 8
"""Maximum number of wrong quotes that the model is shown."""
QUERY_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"query": {"type": "string", "minLength": 1, "maxLength": QUERY_CHARACTERS}},
    "required": ["query"],
    "additionalProperties": False,
}


@dataclass
class _Searched:
    """What was found. `is_whole`: the passages are all that the documents have. `has_evidence`: one of them has to do
    with the question."""

    passages: list[Shown]
    queries: list[str]
    is_whole: bool
    has_evidence: bool
    steps: list[Step] = field(default_factory=list)


class Documents(Agent):
    """Answers from documents. `details` has `searched`; `dropped`, quotes that are in no document; and `declined`, if
    there is no answer: `no_documents`, `no_evidence` (the model was not asked), `model`, or `no_citation`."""

    name = "documents"

    def __call__(self, question: str, history: Sequence[HistoryMessage] = ()) -> AgentResult:
        """The answer to `question`. Raises `PromptTooLongError`, `UnreadableReplyError`, and what the model and the
        documents raise."""
        with usage.measured() as used:
            if not has_documents():
                return AgentResult(prompts.NO_DOCUMENTS, None, [], asdict(used), {"declined": "no_documents"})
            pages = Pages()
            searched = self._search(question, history, pages)
            details: dict[str, Any] = {
                "searched": {
                    "documents": len(list_documents()),
                    "queries": searched.queries,
                    "passages": len(searched.passages),
                    "whole": searched.is_whole,
                }
            }
            if not searched.has_evidence:
                declined, checked = "no_evidence", Checked()
            else:
                checked = self._answer(question, history, searched.passages)
                declined = "no_citation" if checked.dropped else "model"
            if checked.dropped:
                details["dropped"] = [asdict(one) for one in checked.dropped]
            answer, citations = checked.answer(searched.passages)
            if not citations:
                details["declined"] = declined
                answer = prompts.NOT_CITED if declined == "no_citation" else _not_found(details["searched"])
        return AgentResult(answer, TOOL, searched.steps, asdict(used), details, citations)

    def _search(self, question: str, history: Sequence[HistoryMessage], pages: Pages) -> _Searched:
        query = _query(question, history)
        conversation = self._open([], question, history)
        window = conversation.window
        room = min(int(window * EVIDENCE_SHARE), window - conversation.length - self._answer_tokens - MARKS_TOKENS)
        if room < LEAST_EVIDENCE:
            raise PromptTooLongError(
                f"The question and what was said before leave {max(room, 0)} tokens for passages of documents; "
                f"{LEAST_EVIDENCE} are needed. Ask a shorter question, or load a model with a larger context length.",
                tokens=conversation.length,
                limit=window - self._answer_tokens - MARKS_TOKENS - LEAST_EVIDENCE,
            )
        count = self.model.tokenizer.count if self.model.guided else self.model.count
        found, share, has_evidence = found_passages(query, room, pages)
        searched = _Searched(found, [query], False, has_evidence)
        if searched.has_evidence:
            if whole := whole_documents(room, count, pages):
                searched.passages, searched.is_whole = whole, True
            elif subject_words(query) and share < WEAK_SHARE and (other := self._other_query(question, history)):
                searched.passages = merged(found, found_passages(other, room, pages)[0])
                searched.queries.append(other)
            searched.passages = fitting(searched.passages, room, count)
        for number, one in enumerate(searched.queries):
            step = Step("", TOOL, {"query": one}, _listed(searched.passages) if number == 0 else "(with the first)")
            searched.steps.append(step)
            tell_step(step)
        return searched

    def _other_query(self, question: str, history: Sequence[HistoryMessage]) -> str | None:
        """A query in the model's words; None if it writes none."""
        conversation = self.open(prompts.conversation(prompts.QUERY, question, history))
        try:
            query = conversation.write_json(QUERY_SCHEMA, QUERY_TOKENS)["query"]
        except UnreadableReplyError:  # the passages of the first search are there
            return None
        return query if subject_words(query) and query.strip() != question.strip() else None

    def _answer(self, question: str, history: Sequence[HistoryMessage], passages: Sequence[Shown]) -> Checked:
        """What the model says, as far as its quotes are in the documents as they are afterwards. Wrong quotes are
        repaired once."""
        conversation = self._open(passages, question, history)
        texts = {one.number: one.line.text for one in passages}
        checked = check(conversation.write_statements(texts, MOST_SENTENCES, self._answer_tokens), passages, Pages())
        if not checked.dropped:
            return checked
        wrong = [
            prompts.WRONG_QUOTE.format(number=one.passage, quote=conversation.cut(one.quote, MARKS_TOKENS))
            for one in checked.dropped[:MOST_WRONG]
        ]
        conversation.add(prompts.WRONG_QUOTES.format(quotes="\n".join(wrong)))
        if conversation.length + self._answer_tokens > conversation.window:
            return checked
        again = check(conversation.write_statements(texts, MOST_SENTENCES, self._answer_tokens), passages, Pages())
        return again if again.count >= checked.count else checked

    def _open(self, passages: Sequence[Shown], question: str, history: Sequence[HistoryMessage]) -> Conversation:
        asked = prompts.CITED.format(passages=in_words(passages, question), question=question)
        return self.open(prompts.conversation(prompts.CITE, asked, history))

    @property
    def _answer_tokens(self) -> int:
        return min(ANSWER_TOKENS, int(self.model.context_length * ANSWER_SHARE))


def _query(question: str, history: Sequence[HistoryMessage]) -> str:
    """What to search for. A question such as "and at 60 °C?" is about what the one before it was about."""
    before = next((one["content"] for one in reversed(history) if one["role"] == "user"), None)
    if before in (None, question) or len(subject_words(question)) > SHORT_QUESTION:
        return question
    return f"{before}\n{question}"


def _listed(passages: Sequence[Shown]) -> str:
    """Where the passages are from, a line each."""
    return "\n".join(f"[{one.number}] {one.place}" for one in passages) or prompts.NO_PASSAGE


def _not_found(searched: dict[str, Any]) -> str:
    count = searched["documents"]
    return prompts.NOT_FOUND.format(
        what="one document" if count == 1 else f"{count} documents",
        queries="; ".join(f'"{" ".join(query.split())[:QUERY_CHARACTERS]}"' for query in searched["queries"]),
    )
