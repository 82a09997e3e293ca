"""Days between dates, dates before and after, days of the week. What comes out is made up."""

from random import Random

from server.embedded import words
from server.embedded.arithmetic import SMALL
from server.embedded.phrasing import Phrasing, read_phrasings

PHRASINGS = read_phrasings("dates")
NEAR_DAYS = ("today", "tomorrow", "yesterday")


def span(rng: Random) -> tuple[str, int]:
    """A stretch of time in words, and its days."""
    if rng.random() < 0.2:
        weeks = rng.randint(1, 12)
        shown = SMALL[weeks] if rng.random() < 0.3 else str(weeks)
        return (rng.choice(("a week", "one week", "1 week")), 7) if weeks == 1 else (f"{shown} weeks", 7 * weeks)
    days = int(rng.choice((str(rng.randint(1, 30)), str(rng.randint(1, 400)), words.integer(rng)[:4])) or 1)
    if days == 1:
        return rng.choice(("1 day", "a day", "one day")), 1
    shown = SMALL[days] if days < len(SMALL) and rng.random() < 0.3 else str(days)
    return f"{shown} days", days


def iso_date(rng: Random) -> str:
    return f"{rng.randint(1950, 2060)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"


def between(rng: Random, phrasing: Phrasing) -> tuple[str, str, str, str]:
    start, end = words.date(rng), words.date(rng)
    draw = rng.random()
    if draw < 0.2:
        start = "today"
        question = phrasing.ask(PHRASINGS["until"], b=end)
    elif draw < 0.32:
        end = "today"
        question = phrasing.ask(PHRASINGS["since"], a=start)
    else:
        if draw < 0.4:
            start, end = rng.choice(((rng.choice(NEAR_DAYS), end), (start, rng.choice(NEAR_DAYS))))
        question = phrasing.ask(PHRASINGS["between"], a=start, b=end, n=rng.choice(words.NOUNS))
    days = rng.choice((rng.randint(1, 400), rng.randint(1, 30000), -rng.randint(1, 4000)))
    return question, start, end, str(days)


def later(rng: Random, phrasing: Phrasing) -> tuple[str, str, int, str]:
    (shown, days), start = span(rng), words.date(rng)
    draw = rng.random()
    if draw < 0.15:
        return phrasing.ask(PHRASINGS["in"], n=shown), "today", days, iso_date(rng)
    if draw < 0.25:
        return phrasing.ask(PHRASINGS["ago"], n=shown), "today", -days, iso_date(rng)
    if draw < 0.33:
        start = rng.choice(NEAR_DAYS)
    if rng.random() < 0.6:
        return phrasing.ask(PHRASINGS["after"], n=shown, d=start), start, days, iso_date(rng)
    return phrasing.ask(PHRASINGS["before"], n=shown, d=start), start, -days, iso_date(rng)


def weekday(rng: Random, phrasing: Phrasing) -> tuple[str, str, str]:
    day = rng.choice(NEAR_DAYS) if rng.random() < 0.1 else words.date(rng)
    return phrasing.ask(PHRASINGS["weekday"], d=day, n=rng.choice(words.NOUNS)), day, rng.choice(words.DAYS)
