"""Remove text that nobody said from an answer: thinking, labels, quotes, commentary.

Each rule removes one kind of text that language models add, and is as narrow as possible. Text that
may be speech stays: a guard can still find it suspicious, but nothing can restore it. Each
remaining character keeps its place in the answer, which links words to the log-probabilities of
tokens.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_PASSES: Final = 8
"""The rules run repeatedly: one may expose work for another, such as quotes after a preamble."""

# --- the rules ----------------------------------------------------------------------------------

_TAG: Final = r"(?:think(?:ing)?|thoughts?|reasoning|reflection|analysis|scratchpad)"
_CLOSE: Final = (
    rf"(?:</{_TAG}\s*>|</think(?:ing)?(?=\s)|^/?think(?:ing)?>|\[/THINK\]|\u25c1/think\u25b7)"
)
"""A closing tag. Half of one counts too: its first or its last sign may be missing."""
_OPEN: Final = rf"(?:<{_TAG}\s*>|<think(?:ing)?(?=\s)|\[THINK\]|\u25c1think\u25b7)"
_FLAGS: Final = re.DOTALL | re.IGNORECASE | re.MULTILINE
_THOUGHT: Final = re.compile(
    # Without a closing tag the match takes all the rest, so that no later tag searches it again.
    rf"{_OPEN}.*?(?:{_CLOSE}|(?P<unclosed>\Z))"
    # gpt-oss, with and without its control tokens
    r"|\A(?:<\|start\|>assistant)?<\|channel\|>(?:analysis|commentary)\b.*?<\|channel\|>final<\|message\|>"
    r"|\A(?:analysis.*?)?assistantfinal",
    _FLAGS,
)
_GEMMA: Final = re.compile(r"<unused94>thought\b.*?(?:<unused95>|(?P<unclosed>\Z))", _FLAGS)
"""Likewise, for the tokens of Gemma."""
_UNPAIRED: Final = (
    # The chat template opened the thinking in the prompt, so the answer has only the closing tag.
    # A closing tag with no text after it is a stray one: only the tag is removed.
    re.compile(rf"\A(?>.*{_CLOSE})(?!\W*\Z)", _FLAGS),
    re.compile(_CLOSE, _FLAGS),
    # The token limit came inside the closing tag.
    re.compile(r"</?(?:t|th|thi|thin|think|thinki|thinkin|thinking)?\Z", re.IGNORECASE),
)
_UNCLOSED: Final = re.compile(rf"{_OPEN}.*\Z", _FLAGS)
"""The token limit came before the closing tag."""
_CONTROL: Final = re.compile(
    # After the end of its turn a model only invents.
    r"<\|(?:im_end|endoftext|eot_id|end)\|>.*\Z|<\|im_start\|>(?:\s*(?:assistant|user|system)\s*\n)?"
    r"|<\|/?[a-z_]{1,30}\|>|<\|\d{1,5}(?:\.\d\d?)?\|>|<unk>|\[UNK\]|\Alanguage \w{1,20}<asr_text>"
    r"|</?s>|<so_\w{1,20}>|</?v(?:[ .][^<>\n]{0,40})?>"  # WebVTT's <v Speaker 1>
    r"|</?(?:final[ _-]?)?(?:answer|transcript(?:ion)?|text|output|response|result|speech|audio)>",
    re.DOTALL,
)
_RULE: Final = r"[-=*_~]{2,10}"
_MARKDOWN: Final = re.compile(
    r"```(?:[a-z]+(?=\s*\n))?|^[ \t]*(?:-{3,}|_{3,}|\*{3,})[ \t]*$|^>[ \t]+"
    # A label in bold is no speech.
    r"|^[ \t]*\*\*(?:final\s+)?(?:answer|output|response|text|transcript(?:ion)?)"
    r"(?:\s*:\s*\*\*|\*\*\s*:|\*\*[ \t]*$)"
    r"|\A\s*\*\*(?:final\s+)?(?:answer|transcript(?:ion)?)\s*\*\*"
    rf"|^[ \t]*{_RULE}[ \t]*(?:(?:start|beginning|end)\s+of\s+)?(?:the\s+)?"
    rf"transcript(?:ion)?(?:\s+(?:begins|starts|ends))?[ \t]*{_RULE}"
    # A list, and a rule in a line with text.
    r"|^[ \t]*[-*\u2022\u2013\u2014][ \t]+(?=\S)|(?<=\s)-{3,}\s*\Z"
    r"|\*\*|^#{1,6}\s+(?:transcript(?:ion)?\s*$)?|[♪♫]",
    re.IGNORECASE | re.MULTILINE,
)

_ADJECTIVES: Final = (
    r"(?:(?:full|verbatim|exact|audio|complete|english|clean|final|speech|word[- ]for[- ]word|"
    r"raw|requested|spoken|transcribed)\s+){0,3}"
)
_REST: Final = r"(?:(?!\n[ \t]*\n).)*\Z"
_REMARK: Final = re.compile(
    # The last of several paragraphs, if it is marked as not spoken. Without a mark it stays: people
    # do say "let me know if you need anything else", and each turn may be a paragraph.
    r"(?<=\S)[ \t]*\n[ \t]*\n\s*+(?:"
    r"\*\*(?:note|summary|translation|explanation|analysis|key\s+(?:points|takeaways))"
    rf"(?::\s*\*\*|\*\*\s*:)\s*{_REST}"
    rf"|[(\[]\W*note\s*:{_REST}"
    r"|\W*end\s+of\s+(?:the\s+)?transcript(?:ion)?\W*\Z"
    r")",
    re.IGNORECASE | re.DOTALL,
)

_SOUND: Final = (
    r"music|applause|clapping|laughter|laughs|laughing|chuckles|silence|noises?|inaudible|"
    r"unintelligible|indistinct|crosstalk|coughs?|coughing|sighs|sighing|static|beeps?|beeping|"
    r"cheering|cheers|clears throat|sniffles|sobbing|gasps|screams|footsteps|ringing|barking|"
    r"blank[_ ]audio|foreign language|no (?:speech|audio|sound)|pause|chatter|humming|whispering|"
    r"end of (?:the )?(?:transcript(?:ion)?|recording|audio|speech)"
)
_NOTED: Final = (
    r"(?:(?:start|beginning) of (?:the )?)?(?:transcript(?:ion)?|recording|audio|speech)"
    r"(?: (?:begins|starts|ends))?|birds? (?:chirping|singing)|door (?:opens|closes|slams)|"
    r"wind(?: blowing)?|typing|thunder|sirens?|engine|birdsong|laugh"
)
"""Only in square brackets: asterisks may stand around a word that was said with emphasis."""
_MANNER: Final = (
    r"soft|loud|upbeat|dramatic|background|gentle|instrumental|classical|electronic|piano|guitar|"
    r"audience|crowd|phone|telephone|dog|heavy|light|faint|distant|long|short|brief|ambient|tense|"
    r"theme|rock|intro|outro|speaking|speaks|in|a|the|of|sounds?|and|man|woman|speaker"
)
_AFTER: Final = r"playing|plays|fades?|fading|out|in|continues|stops|starts|sounds?|only|detected"
_NAMED: Final = rf"\s*(?:(?:{_MANNER})\s+){{0,3}}(?:{_SOUND})(?:\s+(?:{_AFTER})){{0,2}}\s*[.!]?\s*"
_HAPPENS: Final = r"(?=[^()\n]*\s[^()\n]*)(?=[^()\n]*(?:ing|plays|fades|laughs)\b)"
_ASIDE: Final = re.compile(
    # Round brackets may hold spoken words, as in "a (static) field". They are removed where a
    # sentence begins.
    rf"\[(?:{_NAMED}|\s*(?:{_NOTED})\s*)\]|\*(?!\*){_NAMED}\*|<(?:music|noise|laughter|laugh|silence|applause|cough|breath)>"
    rf"|(?:\A\s*|(?<=[\n.!?>\u2026\"\u201d])[ \t]*)\({_NAMED}\)(?:\s*\({_NAMED}\))*"
    # If they describe an event, also after a comma or semicolon and at the end of a line.
    rf"|(?<=[,;])\s*\({_HAPPENS}{_NAMED}\)|\({_HAPPENS}{_NAMED}\)(?=\s*$)",
    re.IGNORECASE | re.MULTILINE,
)
_TIME: Final = r"\d{1,2}:\d\d(?::\d\d)?(?:[.,]\d+)?"
_CLOCK: Final = re.compile(
    # "(3:16)" may be a verse. No line begins with one, so at the start of a line it is a time.
    rf"\[{_TIME}(?:\s*-+>?\s*{_TIME})?\]|\({_TIME}\s*-+>?\s*{_TIME}\)|^[ \t]*\({_TIME}\)"
    r"|\(\d{1,2}:\d\d(?::\d\d(?:[.,]\d+)?|[.,]\d+)\)"
    # The cues of SubRip and WebVTT, and the seconds of other tools.
    rf"|(?:^[ \t]*\d{{1,5}}[ \t]*\r?\n)?^[ \t]*{_TIME}[ \t]*-->[ \t]*{_TIME}"
    r"|\AWEBVTT[ \t]*(?:\n|\Z)|\[\d{1,5}\.\d{1,3}s?(?: ?-+>? ?\d{1,5}\.\d{1,3}s?)?\]",
    re.MULTILINE,
)
_WHO: Final = r"(?:speaker|spk|voice|person|participant)(?:[ _-]?#?\d{1,2}|[ _-][a-z])\b"
_ALIAS: Final = r"(?:\s*\([^()\n]{1,20}\))?"
_LABEL: Final = re.compile(
    rf"(?<!\w)(?:\[{_WHO}\]\s*:?|\({_WHO}\)\s*:?|(?=sp){_WHO}{_ALIAS}\s*:)"
    # Elsewhere in a sentence it may be speech: "I spoke with person A: she agreed".
    rf"|(?:^|(?<=[.!?\u2026\"\u201d]))[ \t]*{_WHO}{_ALIAS}\s*:",
    re.IGNORECASE | re.MULTILINE,
)
_ROLE: Final = re.compile(
    r"^[^\S\n]*(?:\[(?:speaker|narrator)\]:?|(?:"
    r"speaker(?:\s+(?:one|two|three|four|five|six))?|(?:fe)?male\s+(?:speaker|voice)|man|woman|"
    r"narrator|interviewer|interviewee|user|assistant)\s*:)",
    re.IGNORECASE | re.MULTILINE,
)

_HEARD: Final = r"(?:spoken|transcribed|audio)\s+(?:text|words|content|speech)\b"
_IN_IT: Final = r"(?:of|from|in)\s+(?:the|this|your)\s+(?:audio|recording|clip|file|segment)\b"
_TEXT: Final = (
    rf"{_ADJECTIVES}(?:transcript(?:ion)?s?\b|{_HEARD}"
    r"|(?:text|words|content)\b[^:\n]{0,60}?\b(?:audio|recording|clip|transcri\w+))"
)
"""Phrases for a transcript. They are narrow, because speakers also talk of the text of a letter or
the words of a song."""
_SUCH: Final = (
    r"(?:[\s,]+(?:of|from|for|in|as|with|the|this|your|that|you|i|was|is|are|reads?|provided|requested|"
    r"asked|wanted|sent|shared|uploaded|gave|need(?:ed)?|attached|audio|recording|clip|file|segment|"
    r"speech|spoken|words|content|punctuations?|capitali[sz]ations?|and|proper|correct|follows|below|"
    r"english|written|text)\b){0,14}\s*"
)
"""What a heading says about a transcript. Any other word is probably about a subject of the speech:
"Here is the transcript I lost:"."""
_PREAMBLE: Final = re.compile(
    r"\A\W*(?:(?:sure|certainly|of course|okay|ok|absolutely)\b\W{0,3})?(?:"
    r"(?:here(?:['\u2019]s| is| are)|(?:this|below|the following|following) is"
    r"|below you(?: will|['\u2019]ll| can) find)\s+"
    rf"(?:(?:the|a|an|your|my)\s+)?{_TEXT}{_SUCH}(?::|\n)"
    r"|here(?:['\u2019]s| is)\s+what\s+(?:was|is|is being)\s+(?:said|spoken)"
    rf"(?:\s+{_IN_IT}\s*:|\s*:(?=\s*\n))"
    rf"|(?:the\s+)?{_ADJECTIVES}transcript(?:ion)?"
    rf"{_SUCH}:"
    rf"|the\s+{_HEARD}(?:\s+{_IN_IT})?(?:\s+(?:is|are|reads?)(?:\s+as\s+follows)?)?\s*:"
    # Without quotes around the rest, this may be speech that reports other speech.
    r"|the\s+(?:speaker|audio|recording|voice|person|clip|speech)\s+"
    r"(?:says|said|states|is saying|reads)\s*:"
    r"(?=\s*(?:\"[^\"]*\"|\u201c[^\u201d]*\u201d|'[^\n]*'|\u00ab[^\u00bb]*\u00bb)\W*\Z)"
    r")",
    re.IGNORECASE,
)
_ECHO: Final = re.compile(
    # Our own instruction. With it may come the full stop that follows the audio.
    r"\A\W*transcribe the spoken content to written [a-z ]{1,60}text,? with punctuations? and "
    r"capitali[sz]ations?(?:\W+|\Z)"
    r"|^[^\w\n]*transcribe the spoken content to written [a-z ]{1,60}text,? with punctuations? and "
    r"capitali[sz]ations?\W*\Z"
    # The user's context, which stands before the instruction.
    r"|\A\W*(?:notes on the recording, as background alone|spelling of terms, for where they are "
    r"said)\b[^\n]{0,200}?not count: *(?:\"{3}[^\n]*?\"{3}|[^\n]*$)\s*",
    re.IGNORECASE | re.MULTILINE,
)
_CERTAIN: Final = (
    *(_THOUGHT, _GEMMA, _CONTROL, _REMARK, _MARKDOWN, _ASIDE, _CLOCK),
    *_UNPAIRED,
    _LABEL,
)
_FENCE: Final = re.compile(r"\"{3}")
"""The quotes around the user's context. `_ECHO` needs them, so they are removed after it."""
_REMOVED: Final = (*_CERTAIN, _UNCLOSED, _ROLE, _PREAMBLE, _ECHO, _FENCE)
_SAYABLE: Final = (*_CERTAIN, re.compile(_OPEN, _FLAGS), _FENCE)
"""Leaves what somebody may have said: a heading, a role, and the text after a tag that nothing
closes. An aligner can tell whether it was said."""
_QUOTES: Final = {
    "\u201c": "\u201d",
    "\u201d": "\u201d",
    "\u201e": "\u201c\u201d",
    "\u2018": "\u2019",
    "\u00ab": "\u00bb",
    "\u00bb": "\u00ab",
    "\u300c": "\u300d",
    "\u300e": "\u300f",
} | {sign: sign for sign in "\"'`"}
"""Closing quotes for each opening quote."""
_CLOSING: Final = frozenset("".join(_QUOTES.values()))


# --- applying them ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Draft:
    """An answer from which some text may have been removed.

    Attributes:
        text: the remaining text.
        places: for each character of `text`, its position in the answer.
    """

    text: str
    places: tuple[int, ...]

    def without(self, spans: Iterable[tuple[int, int]]) -> Draft:
        """Return the draft without the given spans, which are ordered and disjoint."""
        kept, end = [], 0
        for start, stop in spans:
            kept.append(slice(end, start))
            end = stop
        if not kept:
            return self
        kept.append(slice(end, None))
        text = "".join(self.text[part] for part in kept)
        places = chain.from_iterable(self.places[part] for part in kept)
        return Draft(text, tuple(places))


def spoken(answer: str) -> Draft:
    """Return the spoken part of an answer, with its white space."""
    return _scrubbed(answer, _REMOVED)


def sayable(answer: str) -> Draft:
    """Return the spoken part, and the removed words that somebody may have said after all."""
    return _scrubbed(answer, _SAYABLE)


def _scrubbed(answer: str, rules: Iterable[re.Pattern[str]]) -> Draft:
    draft = Draft(answer, tuple(range(len(answer))))
    for _ in range(MAX_PASSES):
        before = draft
        for pattern in rules:
            found = pattern.finditer(draft.text)
            draft = draft.without(it.span() for it in found if it.lastgroup != "unclosed")
        draft = _unquoted(draft)
        if draft == before:
            break
    return draft


def _unquoted(draft: Draft) -> Draft:
    """Remove quotes around the whole text, unless one of the two signs also occurs inside it."""
    text = draft.text.rstrip()
    start, end = len(text) - len(text.lstrip()), len(text)
    end -= text.endswith((".", "!", "?")) and text[-2:-1] in _CLOSING  # "it rained".
    if end - start < 2:
        return draft
    opening, closing = text[start], text[end - 1]
    if closing not in _QUOTES.get(opening, ()):
        return draft
    inside = text[start + 1 : end - 1]
    loose = re.sub(r"(?<=\w)['\u2019](?=\w)", "", inside)  # the apostrophe of "don't" is no quote
    if opening in loose or closing in loose:
        return draft
    return draft.without([(start, start + 1), (end - 1, end)])
