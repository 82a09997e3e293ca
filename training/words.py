"""Random words, names, numbers, dates and sentences for questions.

Each function draws only from the `random.Random` that it gets, so a seed determines the whole corpus.
"""

import string
from random import Random

NOUNS = """sample freezer room buffer plate reagent centrifuge microscope booking experiment run job queue
printer invoice order package ticket meeting calendar device sensor battery camera door lamp heater valve pump
tank bottle rack shelf box protocol sequence genome primer cell culture mouse cage antibody enzyme gel image
dataset file folder report paper author citation journal grant budget account user group project task note
message mail contact phone address city country river mountain station train flight hotel ticket weather forecast
temperature humidity pressure wind rain price stock rate score grade course student teacher exam lecture book
recipe meal drink coffee menu table chair song album artist movie game player team match car truck bike road map
route distance license plan policy server cluster node disk model checkpoint metric log error alarm event status
color shape size weight height length width volume area speed altitude voltage current frequency signal channel
planet star galaxy telescope crystal laser mirror lens filter detector spectrum peak curve fit matrix vector
graph tree word letter sentence language translation synonym definition quote poem story title page chapter
owner location stock level count total average history summary version name password key code label tag
""".split()

VERBS = """get find read check look_up fetch show list search query tell count measure compute estimate predict
book reserve order buy send post write save set start stop open close move turn_on turn_off switch play pause
schedule cancel create make add remove delete update rename copy convert translate format sort rank compare
shorten reverse repeat encode decode parse validate scan print draw plot train run submit assign notify call
""".split()

ADJECTIVES = """red blue green old new small large quick slow bright dark cold warm empty full left right upper lower
central local remote daily weekly monthly first last next main spare broken clean heavy light loud quiet early
late long short round flat sharp soft fresh frozen dry wet open closed public private""".split()

EVERYDAY = """the a of and to in it is was for on are with as they at be this from have or one had by but not what all
were when we there can an your which their said if do will each about how up out them then she many some so these
would other into has more her two like him see time could no make than been its now people my made over did down
only way may day use water long little very after called just where most know good morning evening house world
school home hand high year place back small every found still between should never last let thought city tree
cross hard start might story far sea late run while press close night real life few north open seem together next
white children begin got walk example ease paper group always music those both mark often letter until mile river
car feet care second book carry took science eat room friend began idea fish mountain stop once base hear horse
cut sure watch color face wood main enough plain girl usual young ready above ever red list though feel talk bird
soon body dog family direct pose leave song measure door product black short class wind question happen complete
ship area half rock order fire south problem piece told knew pass since top whole king space heard best hour better
during hundred five remember step early hold west ground interest reach fast verb sing listen six table travel less
ten simple several vowel toward war lay against pattern slow center love person money serve appear road map rain
rule govern pull cold notice voice energy hunt probable bed brother egg ride cell believe perhaps pick sudden count
square reason length represent art subject region size vary settle speak weight general ice matter circle pair
include divide felt grand ball yet wave drop heart present heavy dance engine position arm wide sail material
banana apple orange lemon zebra tiger rabbit dragon castle garden summer winter pocket button window yellow purple
hello goodbye welcome please thank sorry maybe today lunch coffee tea results data figure analysis method""".split()

PEOPLE = """Alice Bob Carol David Eva Frank Grace Henry Ines Jonas Karin Luis Maria Nina Omar Paula Quentin Rosa Sven
Tara Uwe Vera Walter Xenia Yusuf Zoe Müller Schmidt Rossi García Nakamura Ivanova Okafor Chen Singh Dubois Novák
Jensen Kowalski Silva Yılmaz""".split()  # noqa: RUF001

PLACES = """Paris Berlin London Rome Madrid Vienna Oslo Lisbon Tokyo Cairo Delhi Lima Boston Chicago Toronto Sydney
Zürich Genève Kraków Málaga Århus Brno Ghent Porto Turin Kyoto Busan Accra Quito Denver Austin Dublin Leeds Basel
Hamburg Munich Prague Warsaw Athens Helsinki""".split()

FOREIGN = "café naïve Größe über señor été 東京 日本 привет мир שלום नमस्ते 你好 ñandú æble 😀 🚀 🔥 ✓ → € µ α β Δ π ∞ 你们 ありがとう".split()  # noqa: E501, RUF001

MONTHS = "January February March April May June July August September October November December".split()

GOOD = """good great excellent wonderful fantastic amazing lovely superb brilliant delightful perfect happy pleased
glad thrilled delighted satisfied impressive outstanding beautiful charming enjoyable fun nice pleasant helpful
friendly kind generous smooth easy reliable fast comfortable tasty delicious clean fresh exciting inspiring
remarkable terrific marvelous awesome elegant clear useful solid stunning thoughtful cheerful grateful
proud relaxed splendid fabulous magnificent""".split()

BAD = """bad terrible awful horrible dreadful poor disappointing broken boring dull ugly sad angry upset annoyed
frustrated unhappy useless slow rude dirty noisy painful nasty unpleasant confusing messy unreliable expensive
cold stale bland weak wrong faulty buggy miserable depressing tedious worthless lousy hopeless disgusting
unacceptable furious tired exhausted worried scared sloppy clumsy mediocre pathetic""".split()

LOVED = "love loved enjoyed adore recommend like liked admire appreciated praised celebrated".split()
HATED = (
    "hate hated regret dislike disliked despise avoid resent complained cried failed crashed wasted ruined".split()
)

THINGS = """the food|the service|this film|the hotel|the talk|the paper|my trip|the new model|the room|the staff|this
book|the weather|the concert|our meeting|the update|the phone|the coffee|the experiment|the course|the view|the
interface|the battery|the review|this tool|the lecture|the flight|the experience|the results|this product|the
workshop|the documentation|the soup|the ending|the screen""".replace("\n", " ").split("|")

FACTS = """The meeting starts at {n}.|The box contains {n} tubes.|We met on {day}.|The office is on floor {n}.|The
train leaves at {n}.|Water boils at 100 degrees.|The file has {n} pages.|The table is made of wood.|He lives in
{place}.|The sample was stored in freezer {n}.|The report lists {n} items.|The package arrived on {day}.|She works in
{place}.|The door is {color}.|The sensor is read every {n} minutes.|The paper has {n} authors.|The store opens at
{n}.|The car is parked outside.|The bus goes to {place}.|The order number is {n}.""".replace("\n", " ").split("|")

DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
COLORS = "red blue green yellow white black grey brown orange purple".split()

_ONSETS = "b bl br c ch cl d dr f fl g gl gr h j k kl l m n p pl pr qu r s sh sk sl sn sp st t th tr v w z".split()
_VOWELS = "a e i o u ai ea ee oo ou y".split()
_CODAS = ["", "", "", "b", "ck", "d", "l", "ll", "m", "n", "nd", "ng", "p", "r", "rk", "s", "st", "t", "x", "zz"]


def invent_word(rng: Random, syllables: int = 0) -> str:
    """An invented word of one to three syllables."""
    count = syllables or rng.choice((1, 2, 2, 2, 3))
    return "".join(rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(count))


def any_word(rng: Random) -> str:
    """A word of any kind, sometimes invented, sometimes in another script."""
    draw = rng.random()
    if draw < 0.55:
        return rng.choice(EVERYDAY)
    if draw < 0.75:
        return rng.choice(NOUNS)
    if draw < 0.85:
        return rng.choice(PEOPLE + PLACES)
    if draw < 0.96:
        return invent_word(rng)
    return rng.choice(FOREIGN)


#: Short texts with which people try a tool.
SAYINGS = (
    "hello|hi|hey|hello world|hello there|hi there|good morning|good evening|good night|thanks|thank you|"
    "thanks a lot|bye|goodbye|see you|see you tomorrow|yes|no|ok|okay|please|sorry|welcome|test|testing|"
    "this is a test|foo|bar|foo bar|abc|abcabc|help|how are you|who are you|what can you do|nice to meet you|"
    "happy birthday|good luck|well done|stop|go|coffee break|lunch at noon|the quick brown fox|"
    "to be or not to be|hello from the lab|cheers|congratulations|never mind|wait|my name|what is this|"
    "something|anything|a b c|1 2 3|hooray|oh no|it works|it is late|good to see you|have a nice day|tools|"
    "list your tools|write in capital letters"
).split("|")

#: Values that could be taken for ordinary words of a question.
PLAIN = frozenset((*NOUNS, *VERBS, *ADJECTIVES, *EVERYDAY, *SAYINGS))


def saying(rng: Random) -> str:
    """A short text with which people try a tool, with varying capitals."""
    text = rng.choice(SAYINGS)
    return rng.choice(
        (text, text, text, text.capitalize(), text.capitalize(), text.title(), text + "!", text.upper())
    )


def phrase(rng: Random, low: int = 1, high: int = 5) -> str:
    return " ".join(any_word(rng) for _ in range(rng.randint(low, high)))


def sentence(rng: Random, low: int = 2, high: int = 9) -> str:
    text = phrase(rng, low, high)
    if rng.random() < 0.15:
        words = text.split(" ")
        place = rng.randrange(len(words))
        words[place] = rng.choice(
            ('"{}"', "'{}'", "({})", "{},", "{}:", "don't {}", "{}'s", "{}/2", "{}-{}")
        ).replace("{}", words[place])
        text = " ".join(words)
    if rng.random() < 0.7:
        text = text[:1].upper() + text[1:]
    return text + rng.choice((".", ".", ".", "!", "?", ""))


def passage(rng: Random) -> str:
    """A text as an argument: a word, a few words, or up to four sentences."""
    draw = rng.random()
    if draw < 0.2:
        return any_word(rng)
    if draw < 0.55:
        return phrase(rng, 2, 6)
    return " ".join(sentence(rng) for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4))))


def identifier(rng: Random) -> str:
    """A label as in a laboratory: S-1042, plate_7, AB12, run3.csv."""
    letters = "".join(rng.choice(string.ascii_uppercase) for _ in range(rng.randint(1, 3)))
    digits = "".join(rng.choice(string.digits) for _ in range(rng.randint(1, 4)))
    noun = rng.choice(NOUNS) if rng.random() < 0.7 else invent_word(rng, 1)
    return rng.choice(
        (
            f"{letters}-{digits}",
            f"{letters}{digits}",
            f"{noun}_{digits}",
            f"{noun}-{digits}",
            f"{noun}{digits}",
            f"{noun}{digits}.{rng.choice(('csv', 'txt', 'png', 'json', 'h5', 'pdf'))}",
            f"{letters.lower()}{digits}",
            digits + letters,
            f"#{digits}",
        )
    )


def integer(rng: Random) -> str:
    digits = rng.choice((1, 1, 2, 2, 2, 3, 3, 4, 5, 7))
    return str(rng.randint(0 if digits == 1 else 10 ** (digits - 1), 10**digits - 1))


def number(rng: Random, *, negative: bool = True) -> str:
    """A number: mostly whole, sometimes with decimals, sometimes negative."""
    text = integer(rng)
    if rng.random() < 0.3:
        whole, tenths = rng.choice((integer(rng), text, "0")), rng.randint(0, 9)
        text = f"{whole}.{tenths}{rng.choice(('', '', str(rng.randint(1, 9)), '25', '75'))}"
    if negative and rng.random() < 0.1:
        text = "-" + text
    return text


def date(rng: Random) -> str:
    """A date in one of about ten styles."""
    day, month, year = rng.randint(1, 28), rng.randint(1, 12), rng.choice((*range(1900, 2060), *range(2020, 2030)))
    name = MONTHS[month - 1]
    if rng.random() < 0.25:
        name = name[:3]
    if rng.random() < 0.08:
        name = name.lower()
    suffix = "th" if 10 < day < 14 else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")
    return rng.choice(
        (
            f"{year}-{month:02}-{day:02}",
            f"{year}-{month:02}-{day:02}",
            f"{year}-{month:02}-{day:02}",
            f"{day} {name} {year}",
            f"{day} {name} {year}",
            f"{name} {day}, {year}",
            f"{name} {day}, {year}",
            f"{name} {day} {year}",
            f"{day}{suffix} {name} {year}",
            f"{name} {day}{suffix}, {year}",
            f"{day}{suffix} of {name} {year}",
            f"{day}{suffix} of {name}, {year}",
            f"{year}/{month:02}/{day:02}",
            f"{day}. {name} {year}",
            f"{day} {name}",
            f"{name} {day}",
        )
    )


def plain_fact(rng: Random) -> str:
    """A statement, not a question."""
    return rng.choice(FACTS).format(
        n=rng.randint(1, 40), day=rng.choice(DAYS), place=rng.choice(PLACES), color=rng.choice(COLORS)
    )


def feeling(rng: Random, mood: str) -> str:
    """A text whose sentiment is `positive`, `negative` or `neutral`."""
    if mood == "neutral":
        fact = plain_fact(rng)
        return fact if rng.random() < 0.8 else fact + " " + sentence(rng, 3, 6)
    good = mood == "positive"
    words, deeds = (GOOD, LOVED) if good else (BAD, HATED)
    opposite = BAD if good else GOOD
    thing = rng.choice(THINGS)
    word, other = rng.sample(words, 2)
    text = rng.choice(
        (
            f"{thing} was {word}",
            f"{thing} is {word} and {other}",
            f"i {rng.choice(deeds)} {thing}",
            f"what a {word} day",
            f"{thing} made me {word}",
            f"{thing} was {rng.choice(('really', 'so', 'very', 'absolutely', 'truly', 'quite'))} {word}",
            f"i {rng.choice(deeds)} {thing}, it was {word}",
            f"{word}! {thing} was {other}",
            f"{thing} was not {rng.choice(opposite)} at all" if rng.random() < 0.5 else f"such a {word} idea",
            f"i am {word} with {thing}",
            f"i feel {word} today",
            f"{rng.choice(PEOPLE)} said {thing} was {word}",
            f"{thing} {'exceeded my expectations' if good else 'was a waste of time'}",
            f"{'best' if good else 'worst'} {thing.split(' ')[-1]} ever",
            f"{thing} turned out {word}, {'thank you' if good else 'never again'}",
            f"honestly, {thing} felt {word}",
        )
    )
    if rng.random() < 0.6:
        text = text[:1].upper() + text[1:]
    return text + rng.choice((".", "", "!"))
