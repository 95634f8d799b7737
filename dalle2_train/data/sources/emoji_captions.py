"""English for emoji: `:flag_…:` names become things ("the flag of Togo"), things in a style become captions."""

from __future__ import annotations

import re

from dalle2_train.data.sources.splits import draw

PHRASINGS = {
    "flat": (
        "a flat drawing of {}",
        "{}, drawn flat",
        "{} in a flat style",
        "a flat picture of {}",
    ),
    "outlined": (
        "an outlined drawing of {}",
        "{}, drawn with outlines",
        "{} in an outlined style",
        "an outlined picture of {}",
    ),
}
STYLES = tuple(PHRASINGS)

_TONES = re.compile(r"_((?:light|medium-light|medium|medium-dark|dark))_skin_tone")
_SIGNS = (
    "Aries",
    "Taurus",
    "Gemini",
    "Cancer",
    "Leo",
    "Virgo",
    "Libra",
    "Scorpio",
    "Sagittarius",
    "Capricorn",
    "Aquarius",
    "Pisces",
    "Ophiuchus",
)
_PEOPLE = re.compile(r"(family|couple with heart|kiss)((?: (?:man|woman|person|adult|child|boy|girl))+)")
_LOOKS = re.compile(r"(man|woman|person) (\w+ hair|beard)")
_WITH_THE = ("Bahamas", "Comoros", "Gambia", "Maldives", "Netherlands", "Philippines", "Seychelles")
_WITH_THE_ENDS = ("Islands", "Territories", "Territory", "Republic", "Union", "Lands", "Isle of Man")
# Things that are called by their bare name.
_BARE = frozenset(
    """
    Santa Claus; Mrs. Claus; Mx Claus; ZZZ; badminton; bacon; butter; broccoli; cooked rice; coral;
    curly hair; red hair; white hair; fire; fog; fondue; french fries; garlic; lacrosse; money with
    wings; popcorn; rolling on the floor laughing; sake; salt; shaved ice; sign of the horns; soap;
    spaghetti; sushi; tennis; thread; wood; yarn; ice; field hockey; ice hockey; ping pong; bowling;
    camping; cooking; construction; customs; baggage claim; left luggage; passport control; no entry; no
    littering; no smoking; nail polish; lipstick; thumbs up; thumbs down; oden; dango; custard; canned
    food; ginger root
    """.replace("\n   ", "")
    .strip()
    .split("; ")
)
_HEAD = re.compile(r" (?:with|of|in|on|at|facing|holding|hugging|wrestling|without|showing|and|over)\b")
_PLURAL = ("skis",)
_NO_PLURAL = ("ss", "us", "is", "'s", "lens")
_SILENT_VOWEL = re.compile(r"(?:one|uni|eu|U\.S|UP|ut)", re.ASCII)
_SPELT_VOWEL = re.compile(r"(?:ATM|SOS|NG|OK|ON|ID|x-ray|8|11)", re.ASCII)


def base_name(name: str) -> str:
    """The name without its skin tones: what variants of one thing share."""
    return _TONES.sub("", name)


def thing(name: str, is_flag: bool) -> str:
    """The thing that an emoji's name (":man_surfing_dark_skin_tone:") stands for, as it is said in a sentence."""
    tones = _TONES.findall(name)
    plain = base_name(name).strip(":").replace("_", " ").replace("’", "'").replace(" & ", " and ")
    said = _flag(plain) if is_flag else _said(plain)
    if not tones:
        return said
    return f"{said} with {' and '.join(tones)} skin tone{'s' if len(tones) > 1 else ''}"


def caption(thing: str, style: str) -> str:
    """A sentence for `thing` in `style`; which of the phrasings is fixed by a hash of both."""
    phrasings = PHRASINGS[style]
    return phrasings[int(draw("phrasing", thing, style) * len(phrasings))].format(thing)


def _flag(place: str) -> str:
    needs_the = place in _WITH_THE or place.startswith("United") or place.endswith(_WITH_THE_ENDS)
    return f"the flag of {'the ' if needs_the else ''}{place}"


def _said(plain: str) -> str:
    if plain in _SIGNS:
        return f"the zodiac sign {plain}"
    if plain.endswith("o'clock") or plain.endswith("-thirty"):
        return f"a clock showing {plain}"
    if plain.startswith("keycap") or plain == "Statue of Liberty":
        return f"the {plain}"
    if people := _PEOPLE.fullmatch(plain):
        members = [f"{_article(word)} {word}" for word in people[2].split()]
        return f"a {people[1]} of {', '.join(members[:-1])}{' and ' * (len(members) > 1)}{members[-1]}"
    if looks := _LOOKS.fullmatch(plain):
        return f"a {looks[1]} with {'a ' if looks[2] == 'beard' else ''}{looks[2]}"
    if plain.endswith(" bald"):
        return f"a bald {plain.removesuffix(' bald')}"
    return plain if plain in _BARE or _plural(plain) else f"{_article(plain)} {plain}"


def _plural(plain: str) -> bool:
    """Is the head noun, before any "with …" or "of …", a plural?"""
    if plain in _PLURAL:
        return True
    if plain.startswith(("man ", "woman ", "person ")):
        return False
    word = _HEAD.split(plain)[0].split()[-1]
    return word in ("men", "women", "people") or (word.endswith("s") and not word.endswith(_NO_PLURAL))


def _article(plain: str) -> str:
    vowel = plain[0].lower() in "aeiou" and not _SILENT_VOWEL.match(plain)
    return "an" if vowel or _SPELT_VOWEL.match(plain) else "a"
