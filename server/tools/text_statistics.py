"""Counts over a text."""

import re

from langchain_core.tools import tool

# The end of a sentence: a full stop of any script, with closing quotes or brackets. A full stop within a number or a
# name (3.5, example.org) has no space after it; East Asian ones need none.
SENTENCE_END = re.compile(r"[.!?…।؟]+[\"'”\u2019»)\]]*(?=\s|$)|[。\uff01\uff1f]+")


@tool
def text_statistics(text: str) -> str:
    """Count the characters, words and sentences of a text."""
    words = sum(map(_has_letters, text.split()))
    sentences = sum(map(_has_letters, SENTENCE_END.split(text)))
    return f"characters: {len(text)}, words: {words}, sentences: {sentences}"


def _has_letters(part: str) -> bool:
    return any(map(str.isalnum, part))
