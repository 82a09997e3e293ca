"""Which tools fit a question: scored by words, with BM25 (https://doi.org/10.1561/1500000019), and by meaning, with
the server's embedding model. What ranks is a convex combination of both scores (https://doi.org/10.1145/3596512).

The ranking by words is code of our own: the libraries for BM25 (rank_bm25, bm25s) rank words as they are given, and
import numpy into a worker, whose start takes milliseconds. What matters here, they leave to their caller: the words
of names, endings, related words, parts of words. The words of a tool are those of its name, its description, its
arguments and their descriptions.
"""

import math
import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import TypeVar

from langchain_core.tools import BaseTool

from server.sdk import arguments_schema, shown_tools

T = TypeVar("T")

# BM25: how soon a repeated word counts no more, and how much less a word of a long text counts.
SATURATION, LENGTH_SHARE = 3.0, 0.5
# What a word counts.
NAME_WEIGHT, DESCRIPTION_WEIGHT, ARGUMENT_WEIGHT = 6, 3, 2
# What a related word counts, and a part of a word: both less than the word itself.
RELATED_WEIGHT, PART_WEIGHT = 0.5, 0.5
PART_LENGTH = 4
# A question's word counts at most so often: a text that was pasted repeats its own words.
MOST_COUNTED = 2
# What is read of a longer question, half of it from each end: its middle is a text that was pasted.
MOST_CHARACTERS = 4000
# What the score by words counts, of 1; the rest is the score by meaning.
WORDS_SHARE = 0.4
# A mean cosine below it says nothing.
LEAST_SIMILARITY = 0.1
# What the embedding model reads of a tool: its window is short.
MOST_OF_TOOL = 1000
# Above it, words alone: their texts travel with each question.
MOST_COMPARED = 2000
RELATED_WORDS = Path(__file__).with_name("related_words.txt")

WORD = re.compile(r"[^\W\d_]+")
QUOTED = re.compile(
    r"""(?<!\w)(?:(["'`]).*?\1|\u201c.*?\u201d|\u201e.*?\u201c|\u2018.*?\u2019|\u00ab.*?\u00bb)(?!\w)"""
)
# Numbers, dates and times; names of files, paths and addresses. Whole words, so that `2-butanol` and `p53` stay.
VALUE = re.compile(r"[^\w\s]*\d(?:[\d\W]|(?<=\d)e(?=[-+]?\d))*|\S*\w[./\\@]\w\S*")
CAMEL_CASE = re.compile(r"(?<=[a-z])(?=[A-Z])")
# Scripts without spaces between words: two characters in a row stand for a word.
UNSPACED = re.compile(r"[\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]+")
STOP_WORDS = frozenset(
    "a about an and any are as at be been but by can could did do does for from get give had has have he her "
    "him his i if in into is it its just know let ll make me my need no not of off on or our out please re s "
    "she show so some t tell than that the their them then there these they this those to too up us ve want "
    "was we were what which will with would you your".split()
)
ENDINGS = tuple(
    "ational ations ation ments ment nesses ness ingly edly ings ing ities ity ives ive ically ical ics ic ables "
    "able ibles ible ally al ies ied ers er ors or est ed es ly e s y".split()
)
SHORTEST_STEM = 3
# What a value in a question is, as people would call it: the words for it count like related words.
VALUES = tuple(
    (re.compile(pattern), words.split())
    for pattern, words in (
        (r"\d\s*[-+*/^\u00d7\u00f7]\s*\(?\d|\d \)", "arithmetic expression calculate"),
        (r"\d\s*%", "percent"),
        (r"[€$£¥]\s*\d|\d\s*[€$£¥]", "amount money currency"),
        (r"\b\d{4}-\d\d?-\d\d?\b|\b\d\d?[./]\d\d?[./]\d{2,4}\b", "date"),
        (r"\b\d\d?(:\d\d| ?[ap]m\b| o'clock)", "time"),
        (r"\b\w[\w.+-]*@\w[\w-]*\.\w", "mail person address"),
        (r"\bhttps?://|\bwww\.", "url page web link"),
        (r"\b10\.\d{4,9}/", "doi paper"),
        (r"\.(csv|tsv|xlsx?|ods|parquet)\b", "file table column row"),
        (r"\.(png|jpe?g|tiff?|bmp|gif|czi|nd2|lif)\b", "file image picture"),
        (r"\.(txt|md|docx?|odt|tex|rtf|log)\b", "file text document"),
        (r"\.pdf\b", "file pdf document"),
        (r"\.(wav|mp3|flac|ogg)\b", "file audio recording"),
        (r"\.(mp4|avi|mov|mkv)\b", "file video movie"),
        (r"\.(fasta|fa|fastq|fq|bam|vcf|gb)\b", "file sequence"),
        (r"\.(json|ya?ml|toml|xml|h5|hdf5|zip|iso|dat)\b", "file data"),
        (r"\.(py|r|sh|ipynb|jl|cpp?)\b", "file code script"),
        (r"(^|\s)/\w[\w/.-]*", "file folder path"),
        (r"\b[ACGTU]{6,}\b", "dna sequence"),
        (r"\b(?![ACGTU]+\b)[ACDEFGHIKLMNPQRSTVWY]{9,}\b", "protein sequence"),
        (r"\b([A-Z][a-z]?\d+){2,}\b", "chemical formula"),
        (r"\(-?[\d.]+, ?-?[\d.]+(, ?-?[\d.]+)*\)", "point coordinate"),
        (r"(?<![\d.])(-?\d+(\.\d+)?, ){2,}", "values numbers list"),
        (r"±|\+/?-\s*\d", "uncertainty"),
        (r"(^|\s)#[a-z]", "channel tag"),
    )
)


def rank(question: str, tools: Mapping[str, BaseTool]) -> list[str]:
    """The names of the tools that have to do with `question`, the best first; equally good ones in their own order.

    By words alone outside of a run, without an embedding model, and beyond `MOST_COMPARED` tools. A tool that has
    neither a word or a part of a word in common with the question, nor a like meaning, is left out.
    """
    if len(question) > MOST_CHARACTERS:
        question = f"{question[: MOST_CHARACTERS // 2]} {question[-MOST_CHARACTERS // 2 :]}"
    by_words = _index(tools).scores(question)
    if not tools or len(tools) > MOST_COMPARED or (by_meaning := _similarities(question, tools)) is None:
        return _best({name: score for name, score in by_words.items() if score > 0})
    words, meanings = _standardised(by_words), _standardised(by_meaning)
    return _best(
        {
            name: WORDS_SHARE * words[name] + (1 - WORDS_SHARE) * meanings[name]
            for name in tools
            if by_words[name] > 0 or by_meaning[name] > LEAST_SIMILARITY
        }
    )


def _similarities(question: str, tools: Mapping[str, BaseTool]) -> dict[str, float] | None:
    """How near each tool's name and text are in meaning to the question, and to the question without its values,
    which can hide what it asks for. None: see `shown_tools.similarities`."""
    plain = " ".join(word for word in QUOTED.sub(" ", question).split() if not VALUE.fullmatch(word))
    cosines = shown_tools.similarities([*dict.fromkeys((question, plain or question))], _compared_texts(tools))
    if cosines is None:
        return None
    return {name: (cosines[2 * at] + cosines[2 * at + 1]) / 2 for at, name in enumerate(tools)}


def _standardised(scores: Mapping[str, float]) -> dict[str, float]:
    """The scores in standard deviations from their mean, so that scores of two kinds can be added."""
    mean, deviation = statistics.fmean(scores.values()), statistics.pstdev(scores.values())
    return {name: (score - mean) / (deviation or 1.0) for name, score in scores.items()}


def _best(scores: Mapping[str, float]) -> list[str]:
    """The names, those with the highest score first; with equal scores in their own order."""
    return sorted(scores, key=lambda name: -scores[name])


def once_for_tools(make: Callable[[Mapping[str, BaseTool]], T]) -> Callable[[Mapping[str, BaseTool]], T]:
    """`make`, with its last result cached for the same tools: a worker has those of one generation."""
    cached: tuple[list[BaseTool], T] | None = None

    def made(tools: Mapping[str, BaseTool]) -> T:
        nonlocal cached
        given, last = list(tools.values()), cached
        if last is None or list(map(id, last[0])) != list(map(id, given)):
            last = cached = given, make(tools)
        return last[1]

    return made


class _Index:
    """The words of tools and the parts of these words, with what each of them counts for which tools."""

    def __init__(self, tools: Mapping[str, BaseTool]) -> None:
        self._names = list(tools)
        words: list[Counter[str]] = []
        parts: list[set[str]] = []
        for tool in tools.values():
            words.append(Counter())
            parts.append(set())
            for text, weight in _texts(tool):
                plain = _plain_words(text)
                parts[-1] |= _parts(plain)
                for word in _stems(plain):
                    words[-1][word] += weight
        self._words = _weighted(words)
        self._parts = defaultdict[str, list[tuple[int, float]]](list)
        rarity = _rarity(parts)
        for number, found in enumerate(parts):
            for part in found:
                self._parts[part].append((number, rarity[part] / math.sqrt(len(found))))

    def scores(self, question: str) -> dict[str, float]:
        """What each tool has in common with the question, by name, in their order."""
        scores = [0.0] * len(self._names)
        plain = _plain_words(question)
        related = _related()
        said = Counter([*_stems(plain), *_phrases(question)])
        for word, count in said.items():
            best = dict(self._words.get(word, ()))
            for other in related.get(word, ()):
                for number, value in self._words.get(other, ()):
                    best[number] = max(best.get(number, 0.0), RELATED_WEIGHT * value)
            for number, value in best.items():
                scores[number] += min(count, MOST_COUNTED) * value
        for word in {stem for stem in _value_stems(question) if stem not in said}:
            for number, value in self._words.get(word, ()):
                scores[number] += RELATED_WEIGHT * value
        for part in _parts(plain):
            for number, value in self._parts.get(part, ()):
                scores[number] += PART_WEIGHT * value
        return dict(zip(self._names, scores, strict=True))


@once_for_tools
def _index(tools: Mapping[str, BaseTool]) -> _Index:
    return _Index(tools)


@once_for_tools
def _compared_texts(tools: Mapping[str, BaseTool]) -> list[str]:
    """What the embedding model reads of each tool: its name, and its name with its description. Arguments added
    nothing to it, and take time."""
    texts = []
    for tool in tools.values():
        name = " ".join(WORD.findall(CAMEL_CASE.sub(" ", tool.name)))
        texts += [name[:MOST_OF_TOOL], f"{name}. {tool.description}"[:MOST_OF_TOOL]]
    return texts


def _texts(tool: BaseTool) -> list[tuple[str, int]]:
    """The texts of a tool and what their words count."""
    arguments = arguments_schema(tool).get("properties", {})
    described = (f"{name} {part.get('description', '')}" for name, part in arguments.items())
    return [
        (tool.name, NAME_WEIGHT),
        (tool.description, DESCRIPTION_WEIGHT),
        *((text, ARGUMENT_WEIGHT) for text in described),
    ]


def _weighted(texts: list[Counter[str]]) -> dict[str, list[tuple[int, float]]]:
    """For each word the numbers of the texts that have it, with the word's weight there by BM25. `texts`: the words
    of each text, with how often they are in it."""
    average = sum(map(Counter.total, texts)) / max(len(texts), 1)
    rarity = _rarity(texts)
    weighted = defaultdict[str, list[tuple[int, float]]](list)
    for number, text in enumerate(texts):
        length = 1 - LENGTH_SHARE + LENGTH_SHARE * text.total() / (average or 1)
        for word, count in text.items():
            weight = rarity[word] * count * (SATURATION + 1) / (count + SATURATION * length)
            weighted[word].append((number, weight))
    return dict(weighted)


def _rarity(texts: Sequence[Iterable[str]]) -> dict[str, float]:
    """For each word how much it tells about the text that has it. Each text has a word once."""
    having = Counter(word for text in texts for word in text)
    return {word: math.log(1 + (len(texts) - count + 0.5) / (count + 0.5)) for word, count in having.items()}


def _plain_words(text: str) -> list[str]:
    """The words of a text, in small letters, without those that say nothing about its subject."""
    words = map(str.casefold, WORD.findall(CAMEL_CASE.sub(" ", text)))
    return [word for word in words if word not in STOP_WORDS]


def _stems(words: Iterable[str]) -> list[str]:
    return [stem for word in words for stem in _stems_of(word)]


@lru_cache(maxsize=20_000)
def _stems_of(word: str) -> tuple[str, ...]:
    """A word without its ending, so that `weigh`, `weighs` and `weighing` are one. Many English words of one family
    become one, not all; words of other languages lose at most a letter or two, wherever they stand."""
    if UNSPACED.fullmatch(word):
        return tuple(word[at : at + 2] for at in range(max(len(word) - 1, 1)))
    for ending in ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= SHORTEST_STEM:
            word = word[: -len(ending)]
            break
    if len(word) > SHORTEST_STEM and word[-1] == word[-2] and word[-1] not in "aeiouls":
        word = word[:-1]
    return (word[:-1] if len(word) > SHORTEST_STEM and word[-1] in "ei" else word,)


def _parts(words: Iterable[str]) -> set[str]:
    """All sequences of `PART_LENGTH` characters in the words, with marks at the ends of each."""
    marked = [f"^{word}$" for word in words]
    return {word[at : at + PART_LENGTH] for word in marked for at in range(max(len(word) - PART_LENGTH + 1, 1))}


def _phrases(text: str) -> list[str]:
    """The phrases of the related words that are in a text."""
    said = f" {' '.join(WORD.findall(text.casefold()))} "
    return [phrase for phrase in _related() if "_" in phrase and f" {phrase.replace('_', ' ')} " in said]


def _value_stems(text: str) -> list[str]:
    """The stems of the words for the values that are in a text."""
    return [_stems_of(word)[0] for pattern, words in VALUES if pattern.search(text) for word in words]


@cache
def _related() -> dict[str, set[str]]:
    """The stems or phrases that stand for the same things as a stem or a phrase."""
    related = defaultdict[str, set[str]](set)
    for line in RELATED_WORDS.read_text("utf-8").splitlines():
        words = line.partition("#")[0].casefold().split()
        stems = [word if "_" in word else _stems_of(word)[0] for word in words]
        for stem in stems:
            related[stem].update(other for other in stems if other != stem)
    return dict(related)
