"""Pronunciations of spoken words: the dictionary, derived forms, and letter-to-sound rules.

Every word gets at least one pronunciation. If several are plausible, the search takes the one that
fits the audio best. Phones are those of the CMU dictionary, without stress.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

Pronunciation = tuple[str, ...]

MAX_PRONUNCIATIONS: Final = 6
MAX_SPELLED: Final = 30
"""Maximum letters of a word whose pronunciation is guessed; later letters are ignored."""

_VOICELESS: Final = frozenset(("P", "T", "K", "F", "TH"))
_HISSING: Final = frozenset(("S", "Z", "SH", "ZH", "CH", "JH"))
_SUFFIXES: Final[dict[str, str]] = {
    "ing": "IH NG", "ly": "L IY", "er": "ER", "ers": "ER Z", "ness": "N AH S", "less": "L AH S",
    "like": "L AY K", "able": "AH B AH L", "ism": "IH Z AH M", "ist": "IH S T", "ful": "F AH L",
}  # fmt: skip
_PREFIXES: Final[dict[str, str]] = {
    "un": "AH N", "re": "R IY", "pre": "P R IY", "de": "D IY", "non": "N AA N", "mis": "M IH S",
    "anti": "AE N T IY", "multi": "M AH L T IY", "co": "K OW", "micro": "M AY K R OW",
    "neuro": "N UH R OW", "bio": "B AY OW", "crypto": "K R IH P T OW", "cyber": "S AY B ER",
    "hyper": "HH AY P ER", "pseudo": "S UW D OW", "semi": "S EH M IY", "sub": "S AH B",
}  # fmt: skip

# English spelling. At each letter the first rule that matches applies; "-" is silence.
_ENGLISH: Final = """
t?ch(?![rl]) CH|sch SH|ation EY SH AH N|tion SH AH N|ssion SH AH N
(?<=[aeiou])sion ZH AH N|sion SH AH N
cian SH AH N|[ct]ious SH AH S|ture$ CH ER|ous$ AH S|ough AO|augh AO|eigh EY|igh AY|dge JH
\\Apn N|\\Aps S|\\Akn N|\\Agn N|\\Awr R|\\Ax Z|\\Arh R|mb$ M|ph F|sh SH|ch K|th TH|wh W|ck K
cqu? K W|qu K W|que$ K|gh G|gu(?=[ei]) G|ng$ NG|ng(?=[^aeiouyr]) NG|ng NG G|nk NG K|sc(?=[eiy]) S
cc(?=[eiy]) K S|c(?=[eiy]) S|cz CH|sz SH|zh ZH|kh K|gg G|g(?=[eiy]) JH|x K S
bb B|cc K|dd D|ff F|ll L|mm M|nn N|pp P|rr R|ss S|tt T|zz Z|vv V|kk K
ee IY|ea IY|oo UW|oa OW|ow$ OW|ou AW|ow AW|ai EY|ay EY|eu Y UW|ew UW|ei EY|ie$ IY|ie IY|ey$ IY
ey EY|au AO|aw AO|oi OY|oy OY|ue$ UW|ae EY|oe OW|(?<=[^aeiouy])le$ AH L|(?<=[^aeiouy])les$ AH L Z
arr AE R|are$ EH R|ar AA R|err EH R|er ER|ire$ AY R|irr IH R|ir ER|ore$ AO R|or AO R|ure$ Y UH R
ur ER|(?<=[td])ed$ IH D|(?<=[pkfshc])ed$ T|ed$ D|(?<=[szxc])es$ AH Z|es$ Z|(?<=[aeiouy].)e$ -
(?<=..)e$ -|a(?=[^aeiouy]es?$) EY|i(?=[^aeiouy]es?$) AY|o(?=[^aeiouy]es?$) OW
u(?=[^aeiouy]es?$) UW|a$ AH|i$ IY|o$ OW|u$ UW|y$ IY|\\Ay Y|y(?=[aeiou]) Y|o(?=[^aeiouy][aeiouy]) OW
u(?=[^aeiouy][aeiouy]) UW|a AE|e EH|i IH|o AA|u AH|y IH|b B|c K|d D|f F|g G|h HH|j JH|k K|l L|m M
n N|p P|q K|r R|s S|t T|v V|w W|z Z
"""
# Vowels as in most other European languages, for names.
_CONTINENTAL: Final = """
sch SH|ch K|sh SH|th T|ph F|cz CH|sz SH|zh ZH|kh K|ng$ NG|ng(?=[^aeiouy]) NG|ng NG G|nk NG K|ck K
qu K W|gh G|c(?=[eiy]) S|x K S|bb B|cc K|dd D|ff F|ll L|mm M|nn N|pp P|rr R|ss S|tt T|zz T S|kk K
ee EY|ea EY AH|oo OW|ou UW|au AW|ai AY|ay AY|ei AY|ey EY|eu OY|ie IY|oe ER|ue UW|ae EH|ia IY AH
io IY OW|ui W IY|ua W AA|er$ ER|a AA|e$ EY|e EH|i IY|o OW|u UW|y$ IY|y(?=[aeiou]) Y|y IY|b B|c K
d D|f F|g G|h HH|j(?=[aeiou]) Y|j IY|k K|l L|m M|n N|p P|q K|r R|s S|t T|v V|w(?=[aeiou]) W|w V|z Z
"""


def _compile(table: str) -> list[tuple[re.Pattern[str], Pronunciation]]:
    rules = (rule.split() for line in table.split("\n") for rule in line.split("|") if rule)
    return [
        (re.compile(pattern), tuple(phone for phone in phones if phone != "-"))
        for pattern, *phones in rules
    ]


_RULES = (_compile(_ENGLISH), _compile(_CONTINENTAL))


class Lexicon:
    """The dictionary of the acoustic model, with guesses for words that it lacks.

    Args:
        file: one word and its phones per line; ``word(2)`` is a second pronunciation of a word.
    """

    def __init__(self, file: Path) -> None:
        self._entries: dict[str, list[str]] = {}
        for line in file.read_text(encoding="utf-8").splitlines():
            word, _, phones = line.partition(" ")
            self._entries.setdefault(word.partition("(")[0], []).append(phones)

    def __contains__(self, word: object) -> bool:
        return word in self._entries

    def pronounce(self, word: str) -> tuple[Pronunciation, ...]:
        """List pronunciations of a word, the likeliest first.

        Args:
            word: lower-case ASCII letters and apostrophes. A letter with a full stop, such as "b.",
                is the name of the letter, and "b.s" its plural.
        """
        found = self._known(word) or self._derived(word)
        if not found:
            found = self._guessed(re.sub("[^a-z]", "", word)[:MAX_SPELLED])
        return tuple(dict.fromkeys(found))[:MAX_PRONUNCIATIONS]

    def _known(self, word: str) -> list[Pronunciation]:
        return [tuple(phones.split()) for phones in self._entries.get(word, ())]

    def _derived(self, word: str) -> list[Pronunciation]:
        """Derive a regular form, such as a plural, from a word in the dictionary."""
        if word.endswith("in'") and word[:-1] + "g" in self:
            return [(*phones[:-1], "N") for phones in self._known(word[:-1] + "g")]
        bare = word.strip("'")
        if bare != word:
            return self._known(bare) or self._derived(bare)
        for ending in ("'s", "s", "'d", "ed", "d"):  # "s" also after a letter: "b.s"
            base = word.removesuffix(ending)
            if base != word and base in self:
                end = _plural if ending.endswith("s") else _past
                return [phones + end(phones[-1]) for phones in self._known(base)]
        for suffix, said in _SUFFIXES.items():
            base = word.removesuffix(suffix)
            for whole in (base, base + "e") if base != word and len(base) > 2 else ():
                if whole in self:
                    return [(*phones, *said.split()) for phones in self._known(whole)]
        return []

    def _guessed(self, word: str) -> list[Pronunciation]:
        if not re.search("[aeiouy]", word):
            return [self._spelled(word)]
        return [*self._compounds(word), *(_apply(rules, word) for rules in _RULES)]

    def _spelled(self, word: str) -> Pronunciation:
        said = (phone for letter in word for phone in self._known(letter + ".")[0])
        return tuple(said) or ("AH",)

    def _compounds(self, word: str) -> list[Pronunciation]:
        """Split into two known words, of lengths as equal as possible; else a prefix and a word."""
        cuts = sorted(range(3, len(word) - 2), key=lambda cut: -min(cut, len(word) - cut))
        for cut in cuts:
            if word[:cut] in self and word[cut:] in self:
                return [self._known(word[:cut])[0] + self._known(word[cut:])[0]]
        for prefix, said in _PREFIXES.items():
            rest = word.removeprefix(prefix)
            if rest != word and len(rest) > 2 and rest in self:
                return [(*said.split(), *self._known(rest)[0])]
        return []


def _plural(last: str) -> Pronunciation:
    if last in _HISSING:
        return ("IH", "Z")
    return ("S",) if last in _VOICELESS else ("Z",)


def _past(last: str) -> Pronunciation:
    if last in ("T", "D"):
        return ("IH", "D")
    return ("T",) if last in _VOICELESS | {"S", "SH", "CH"} else ("D",)


def _apply(rules: list[tuple[re.Pattern[str], Pronunciation]], word: str) -> Pronunciation:
    phones: list[str] = []
    place = 0
    while place < len(word):
        for pattern, said in rules:
            found = pattern.match(word, place)
            if found is not None:
                phones += said
                place = found.end()
                break
        else:
            place += 1
    return tuple(phones) or ("AH",)
