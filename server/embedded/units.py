"""Conversions of units. What comes out is made up: the model copies it and never works it out."""

from random import Random

from server.embedded import words
from server.embedded.arithmetic import SMALL
from server.embedded.phrasing import Phrasing, read_phrasings

PHRASINGS = read_phrasings("units")
UNITS = [
    "m|meter|meters|metres|km|kilometer|kilometers|kilometres|cm|centimeters|mm|millimeters|mile|miles|mi|yards|yd|"
    "feet|foot|ft|inches|inch|in|nautical miles|light years|nm|micrometers|µm|parsec|angstroms|furlongs",
    "kg|kilograms|kilogram|kilos|g|grams|gram|mg|milligrams|lb|lbs|pounds|pound|oz|ounces|tons|tonnes|stone|carats|µg",
    "s|seconds|second|minutes|min|hours|hour|h|days|day|weeks|week|months|years|ms|milliseconds|fortnights|decades",
    "celsius|fahrenheit|kelvin|°C|°F|K|degrees celsius|degrees fahrenheit|degC|degF|C|F",
    "l|liters|liter|litres|ml|milliliters|gallons|gallon|cups|cup|pints|quarts|fluid ounces|tablespoons|teaspoons|"
    "cubic meters|m^3|barrels|µl|cl",
    "m/s|km/h|mph|knots|miles per hour|meters per second|kilometers per hour|kph|feet per second|km/s",
    "Pa|pascal|bar|psi|atm|atmospheres|mmHg|hPa|kPa|torr|mbar|millibar",
    "J|joules|kJ|calories|cal|kcal|kWh|eV|BTU|Wh|kilojoules|MeV|erg",
    "W|watts|kW|horsepower|hp|MW|kilowatts",
    "acres|hectares|m^2|square meters|square feet|km^2|square miles|ft^2|cm^2",
    "degrees|radians|rad|turns|arcminutes|bytes|kilobytes|megabytes|gigabytes|bits|KB|MB|GB|TB|Hz|kHz|MHz|GHz|N|newtons",
    "volts|V|mV|millivolts|amperes|A|mA|ohms|kΩ|tesla|gauss|mol|mmol|moles|becquerel|curie|sievert|candela|lumens",
]


def two_units(rng: Random) -> tuple[str, str]:
    if rng.random() < 0.08:
        return words.invent_word(rng, 2), words.invent_word(rng, 2)
    return tuple(rng.sample(rng.choice(UNITS).split("|"), 2))  # type: ignore[return-value]


def converted(rng: Random) -> str:
    return f"{rng.random() * 10 ** rng.randint(-3, 6):.6g}" if rng.random() < 0.8 else words.integer(rng)


def units(rng: Random, phrasing: Phrasing) -> tuple[str, str, str, str, str]:
    """A question, its value, the two units as written, and a plausible result."""
    (a, b), value = two_units(rng), words.number(rng)
    shown = value
    if value.isdigit() and int(value) < len(SMALL) and rng.random() < 0.15:
        shown = SMALL[int(value)]
    question = phrasing.ask(PHRASINGS["unit"], v=shown, a=a, b=b, n=rng.choice(words.NOUNS))
    return question, value, a, b, f"{converted(rng)} {b}"
