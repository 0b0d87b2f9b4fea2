"""What was said, out of an answer that says more: thinking, labels, quotes, commentary.

Each rule takes away one kind of text that a language model adds, and is as narrow as it can be:
what may be speech stays, since a guard can still doubt it but nothing can bring it back. Every
character that stays remembers its place in the answer, so that the log-probabilities of the tokens
find the words again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_PASSES: Final = 8
"""A rule can lay bare what another one takes away, such as quotes behind a preamble."""

# --- the rules ----------------------------------------------------------------------------------

_THINKING: Final = (
    re.compile(r"<think>.*?</think>", re.DOTALL),
    re.compile(r"\A.*</think>", re.DOTALL),  # the template opened it in the prompt
    re.compile(r"<think>.*\Z", re.DOTALL),  # the token limit came before its end
)
_CONTROL: Final = re.compile(r"<\|[a-z_]{1,30}\|>|</?s>|<so_\w{1,20}>")
_MARKDOWN: Final = re.compile(
    r"```(?:[a-z]+(?=\s*\n))?|\*\*|^#{1,6}\s+(?:transcript(?:ion)?\s*$)?|[♪♫]",
    re.IGNORECASE | re.MULTILINE,
)

_SOUND: Final = (
    r"music|applause|clapping|laughter|laughs|laughing|chuckles|silence|noises?|inaudible|"
    r"unintelligible|indistinct|crosstalk|coughs?|coughing|sighs|sighing|static|beeps?|beeping|"
    r"cheering|cheers|clears throat|sniffles|sobbing|gasps|screams|footsteps|ringing|barking|"
    r"blank[_ ]audio|foreign language|no (?:speech|audio|sound)|pause|chatter|humming|whispering|"
    r"end of (?:the )?(?:transcript(?:ion)?|recording|audio|speech)"
)
_MANNER: Final = (
    r"soft|loud|upbeat|dramatic|background|gentle|instrumental|classical|electronic|piano|guitar|"
    r"audience|crowd|phone|telephone|dog|heavy|light|faint|distant|long|short|brief|ambient|tense|"
    r"theme|rock|intro|outro|speaking|speaks|in|a|the|of|sounds?|and|man|woman|speaker"
)
_AFTER: Final = r"playing|plays|fades?|fading|out|in|continues|stops|starts|sounds?|only|detected"
_ASIDE: Final = re.compile(
    rf"(?P<open>[\[(]|\*(?!\*))\s*(?:(?:{_MANNER})\s+){{0,3}}(?:{_SOUND})"
    rf"(?:\s+(?:{_AFTER})){{0,2}}\s*[.!]?\s*(?(open)[\])*])",
    re.IGNORECASE,
)
_CLOCK: Final = re.compile(
    r"[\[(]\d{1,2}:\d\d(?::\d\d)?(?:[.,]\d+)?(?:\s*-+>?\s*\d{1,2}:\d\d(?::\d\d)?(?:[.,]\d+)?)?[\])]"
)
_WHO: Final = r"(?:speaker|spk|voice|person|participant)(?:[ _-]?\d{1,2}|[ _-][a-z])\b"
_LABEL: Final = re.compile(
    rf"(?<!\w)(?:\[{_WHO}\]\s*:?|\({_WHO}\)\s*:?|{_WHO}(?:\s*\([^()\n]{{1,20}}\))?\s*:)",
    re.IGNORECASE,
)
_ROLE: Final = re.compile(
    r"^\s*(?:\[(?:speaker|narrator)\]:?|"
    r"(?:speaker|narrator|interviewer|interviewee|user|assistant)\s*:)",
    re.IGNORECASE | re.MULTILINE,
)

_ADJECTIVES: Final = (
    r"(?:(?:full|verbatim|exact|audio|complete|english|clean|final|speech|word[- ]for[- ]word|"
    r"raw|requested|spoken|transcribed)\s+){0,3}"
)
_TRANSCRIPT: Final = r"(?:transcript(?:ion)?s?|text|words|content)\b"
_PREAMBLE: Final = re.compile(
    r"\A\W*(?:(?:sure|certainly|of course|okay|ok|absolutely)\b\W{0,3})?(?:"
    r"(?:here(?:['\u2019]s| is| are)|(?:this|below|the following|following) is)\s+"
    rf"(?:(?:the|a|an|your|my)\s+)?{_ADJECTIVES}{_TRANSCRIPT}[^:\n]{{0,80}}(?::|\n)"
    rf"|(?:the\s+)?{_ADJECTIVES}transcript(?:ion)?"
    r"(?:\s+(?:of|from|for|is|reads|as)\b[^:\n]{0,80})?\s*:"
    r"|the\s+(?:speaker|audio|recording|voice|person|clip|speech)\s+"
    r"(?:says|said|states|is saying|reads)\s*:"
    r")",
    re.IGNORECASE,
)
_REMOVED: Final = (*_THINKING, _CONTROL, _MARKDOWN, _ASIDE, _CLOCK, _LABEL, _ROLE, _PREAMBLE)
_QUOTES: Final = dict(zip("\"'`\u201c\u2018\u00ab", "\"'`\u201d\u2019\u00bb", strict=True))


# --- applying them ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Draft:
    """Text on its way from an answer to a transcript.

    Attributes:
        text: what is left of the answer.
        places: where in the answer each character of `text` stood.
    """

    text: str
    places: tuple[int, ...]

    def without(self, spans: Iterable[tuple[int, int]]) -> Draft:
        """The draft without the characters in ordered, disjoint spans."""
        text, places, end = "", self.places[:0], 0
        for start, stop in spans:
            text += self.text[end:start]
            places += self.places[end:start]
            end = stop
        return Draft(text + self.text[end:], places + self.places[end:])


def spoken(answer: str) -> Draft:
    """The part of an answer that was said, with its white space as it came."""
    draft = Draft(answer, tuple(range(len(answer))))
    for _ in range(MAX_PASSES):
        before = draft
        for pattern in _REMOVED:
            draft = draft.without(match.span() for match in pattern.finditer(draft.text))
        draft = _unquoted(draft)
        if draft == before:
            break
    return draft


def _unquoted(draft: Draft) -> Draft:
    """Without quotes around the whole: quotes that open or close inside are someone's speech."""
    start = len(draft.text) - len(draft.text.lstrip())
    end = len(draft.text.rstrip())
    if end - start < 2:
        return draft
    opening, closing = draft.text[start], draft.text[end - 1]
    if _QUOTES.get(opening) != closing:
        return draft
    inside = draft.text[start + 1 : end - 1]
    loose = re.sub(r"(?<=\w)['\u2019](?=\w)", "", inside)  # the apostrophe of "don't" is no quote
    if opening in loose or closing in loose:
        return draft
    return draft.without([(start, start + 1), (end - 1, end)])
