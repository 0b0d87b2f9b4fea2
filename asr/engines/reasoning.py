"""Find where a language model thinks aloud before a transcript, or instead of one. Pure functions.

"The user wants me to transcribe the audio. It says: ..." is how such an answer begins. But a person
may say the same words. The text alone cannot tell, so nothing is removed here: a guard reports the
finding, and `asr.pipeline.recognition` asks the aligner whether the words were said. The same holds
for headings ("Final answer:") and for remarks at the end ("Let me know if you need more").
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_SENTENCES: Final = 40
"""At most this many sentences are examined; the thoughts of a model can be long."""

_OPENER: Final = (
    r"\W{0,9}(?:(?:okay|ok|alright|all\s+right|hmm+|well|right|so|now|first|sure|wait|got\s+it|"
    r"we\s+have|thinking|therefore|thus|"
    r"let(?:\s+me|'s|\u2019s|\s+us)\s+(?:see|think(?:\s+about\s+(?:it|this))?|break\s+(?:it|this)\s+down)"
    r")\b[\s,.:;!\u2026-]{1,5}){0,3}"
)
_TASK: Final = (
    r"(?:transcri\w+|audio|recording|clip|speech|spoken|speaker|punctuat\w+|capitali[sz]\w+|"
    r"written\s+(?:\w+\s+)?text|instructions?|verbatim|word\s+for\s+word)\b"
)
_TRANSCRIPT: Final = r"(?:transcri\w+|written\s+(?:\w+\s+)?text|verbatim|word\s+for\s+word)\b"
_ASKED: Final = (
    r"(?:wants?|wanted|asks?|asked|is\s+asking|has\s+asked|needs?|would\s+like|requests?|requested|"
    r"is\s+requesting|gave|has\s+given|provided|has\s+provided|sent|uploaded|expects?)"
)
_SAME: Final = r"[^.!?\u2026\n]{0,200}?"
"""Skips words of the same sentence."""
_FOREIGN: Final = (
    r"(?:(?:el\s+usuario|o\s+usu[\u00e1a]rio|l['\u2019]utilisateur|l['\u2019]utente|"
    r"der\s+(?:be)?nutzer)\s+(?:m[eih]\s+|mich\s+)?(?:ha\s+|a\s+|hat\s+)?"
    r"(?:qui[ie]re|pide|solicit\w+|desea|necesita|pedido|quer|ped[ei]\w*|deseja|precisa|veut|demand\w+|"
    r"souhait\w+|voudrait|vuole|chie(?:de|sto)|desidera|richie\w+|m\u00f6chte|will|bittet|w\u00fcnscht|"
    r"verlangt|fordert|gebeten)\b|\u7528\u6237|\u4f7f\u7528\u8005|\u30e6\u30fc\u30b6\u30fc)"
    rf"(?={_SAME}(?:trans[ck]ri|trascri|\u8f6c\u5f55|\u8f49\u9304|\u6587\u5b57|\u5b57\u8d77))"
)
"""The user, in other languages that the model may think in: Spanish, Portuguese, French, Italian,
German, Chinese and Japanese."""
_IS_FOREIGN: Final = re.compile(rf"\W*{_FOREIGN}", re.IGNORECASE)
_MUST: Final = (
    r"(?:need|have|should|must|will|am|are|was|were|can|could|'?ll|'?m|'?re|'?ve|"
    r"\u2019ll|\u2019m|\u2019re|\u2019ve)"
    r"(?:\s+(?:to|going|asked|supposed|being|been|just|now|only|simply|be|required))*"
)
_DO: Final = (
    r"(?:transcribe|transcribing|listen|write|writing|output|produce|provide|process|analy[sz]e|"
    r"convert|give|start|think|parse|ensure|make\s+sure|follow|add|focus|capture)"
)
_TRANSCRIBE: Final = (
    r"transcrib(?:e|ing)\b(?=\s+(?:(?:it|this)\b(?!\s+(?:by|before|after|on|until)\b)|"
    r"what\b|everything\b|exactly\b|now\b)|\W*\Z)"
)
_NARRATED: Final = (
    rf"{_SAME},\s+(?:and|but|so)\s+(?:i|we|he|she|they|it)\s+"
    r"(?:told|sent|said|gave|did|had|was|were|called|asked|got|made|went|refused|took|found)\b"
)
"""A person tells what happened then."""
_STRONG: Final = re.compile(
    rf"""{_OPENER}(?:
      the\s+user(?:'s|\u2019s)?\s+(?:request|message|prompt|instructions?|query|input|command)\b(?={_SAME}{_TASK}|\W*\Z)
      |(?:the\s+)?user\s+{_ASKED}\b(?!{_NARRATED})(?={_SAME}{_TASK}|\W*\Z|\s+(?:me|us)\W*(?:to)?\W*\Z)
      |they\s+{_ASKED}\s+(?:me|us)\s+to\s+{_DO}\b(?={_SAME}{_TASK})
      |{_FOREIGN}
      |(?:i|we)(?:\s+|(?='|\u2019)){_MUST}\s+(?:{_TRANSCRIBE}|{_DO}\b(?={_SAME}{_TASK}))
      |let(?:\s+me|'s|\u2019s|\s+us)\s+(?:\w+\s+)?(?:{_TRANSCRIBE}|{_DO}\b(?={_SAME}{_TASK}))
      |(?:i|we)\s+{_MUST}\s+figure\s+out\s+what\s+(?:the|this)\s+(?:audio|recording|clip|speaker)\b
      |(?:i|we)(?:\s+have|'ve|\u2019ve)\s+(?:got\s+)?(?:(?:an?|the|this)\s+)?audio\b
        (?=[^!?\n]{{0,80}}?\btranscribe\b)
      |the\s+assistant\s+(?:should|must|will|needs\s+to|has\s+to)\b(?={_SAME}{_TRANSCRIPT})
      |(?:i|we)\s+must\s+not\s+add\s+(?:any\s+)?(?:commentary|explanations?|notes?)\b
      |(?:just|only)\s+(?:output\s+)?the\s+transcri\w+,?\s+(?:no|without)\b
      |(?:thoughts?|plan|task|instructions?)\s*:\s*(?={_SAME}\btranscribe\b)
      |let\s+me\s+(?:\w+ly\s+)?listen(?:\s+\w+ly)?\s*(?:[.!:\u2026\n]|\Z)
      |to\s+transcribe\s+(?:this|the)\s+(?:audio|recording|clip|speech)\W+(?:i|we)\b
      |(?:this|it)\s+is\s+an?\s+(?:\w+\s+)?transcription\s+(?:task|request)\b
      |(?:this|the)\s+(?:audio|recording|clip|speech)\s+(?:needs|has|is)\s+to\s+be\s+transcribed\b
      |(?:listening\s+(?:\w+\s+)?to|transcrib(?:e|ing))\s+(?:the|this)\s+(?:audio|recording|clip|speech)\b
        (?=\s*(?:[.!:\u2026\n]|\Z)|\s+(?:now|carefully|word)\b)
      |transcribing\s+(?:it\s+)?now\b
      |(?:based\s+on|from|in)\s+(?:the|this)\s+(?:audio|recording|clip)(?:\s+\w+)?,?\s+
        (?:(?:i|we)\s+(?:can\s+)?hear(?=\s*:|\s+the\s+following|\W*\Z)|(?:here\s+is|here.s)?\s*the\s+transcri\w+)\b
      |(?:(?:step\s+)?[1I][.):]|\*|-)\s*(?:\*\*)?(?:listen\s+to|analy[sz]e|transcribe|identify)\s+
        (?:the|this)\s+(?:request|audio|task|recording|clip|speech|input)\b
      |(?:thinking\s+process|my\s+thought\s+process|reasoning)\s*:(?=\s*\n|.{{0,200}}?{_TASK})
      |(?:the|my|our)\s+(?:task|instruction|request|prompt|goal|job)s?\s+(?:here\s+)?
        (?:is|says?|asks?|requires?|states?|are)\b(?={_SAME}{_TRANSCRIPT})
      |[^.!?\u2026\n]{{0,60}}?transcribe\s+the\s+spoken\s+content\s+to\s+written\b
    )""",
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)
"""How thoughts about the task begin."""
_FURTHER: Final = re.compile(
    rf"""{_OPENER}(?:
      (?:i|we)(?:\s+|(?='|\u2019))(?:{_MUST}|hear|heard|think|see|cannot|do\s+not|don.t)\b
        (?=.{{0,200}}?(?:{_TASK}|only\s+the\s+(?:text|words)\b))
      |let(?:\s+me|'s|\u2019s)\s+(?:\w+\s+)?(?:{_DO}|see|check)\b
      |(?:the\s+user|they)\s+{_ASKED}\s+(?:me|us)\b
      |the\s+user\s+{_ASKED}\b
      |(?:step\s+)?\d{{1,2}}\W*\Z
      |(?:(?:step\s+)?\d[.):]|\*|-)?\s*(?:listen\s+to|analy[sz]e|identify|transcribe|write|output|format|add)\s+
        (?:the|this|it|down|punct\w+)\b
      |the\s+(?:audio|recording|clip|speaker|speech)\s+
        (?:is|was|says?|said|seems?|sounds?|appears?|contains?|starts?|begins?|mentions?)\b
      |(?:my|our|the)\s+(?:final\s+)?(?:answer|output|response|transcript\w*|instructions?)\s+
        (?:is|are|should|will|would|must|says?)\b
      |(?:it|this|that|there)(?:\s+|'|\u2019)(?:is|s|was|seems|sounds|appears|should)\b
        (?:\s+in\s+\w+\W*\Z|(?=.{{0,200}}?{_TASK}))
      |(?:no|only|just|including|make\s+sure|ensure|output|with)\b(?=.{{0,80}}?{_TASK})
      |(?:okay|ok|alright|hmm+|wait|got\s+it|sure)\W*\Z
    )""",
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)
"""How such thoughts go on. These alone are no finding. They are narrow, because speech follows."""
_ANNOUNCES: Final = re.compile(
    rf"""{_OPENER}(?:
      (?:i|we)(?:\s+|(?='|\u2019)){_MUST}\s+{_DO}\b
      |(?:it|he|she|they)\s+(?:says?|said|is|goes)\b
      |(?:the|my|our)\s+(?:text|content|words?|final\s+\w+)\b
    )""",
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)
"""Begins a sentence that announces the transcript with a colon."""
_PLEASED: Final = (
    r"(?:(?:of\s+course|certainly|sure\s+thing|absolutely|understood|as\s+requested)\W+|"
    r"(?:i['\u2019]d\s+be|i\s+am|i['\u2019]m)\s+(?:happy|glad)\s+to\s+[^.!:\n]{1,60}[.!:]\s*|"
    r"i\s+can\s+help(?:\s+you)?(?:\s+with\s+(?:that|this))?[.!]\s*|"
    r"thank(?:s|\s+you)\s+for\s+(?:providing|sharing|sending|uploading)\s+[^.!\n]{1,60}[.!]\s*|"
    r"i(?:['\u2019]ve|\s+have)\s+listened\s+to\s+[^.!\n]{1,60}[.!]\s*)?"
)
_SPEAKER: Final = (
    r"(?:(?:the|a|one)\s+(?:speaker|man|woman|person|voice|narrator|audio|recording|clip|speech)"
    r"(?:\s+in\s+(?:the|this)\s+(?:audio|recording|clip))?)"
)
_ABROAD: Final = (
    r"(?:(?:voici|aqu[\u00edi]\s+est[\u00e1a]|aqui\s+est[\u00e1a]|hier\s+ist|ecco|esta\s+es|"
    r"dies\s+ist)\s+(?:(?:la|die|das|a|o|el|il|una)\s+)?)?"
    r"(?:transcripci[\u00f3o]n|transcri\u00e7\u00e3o|trascrizione|transkript(?:ion)?|"
    r"transcription\s+en|(?<=\bla\s)transcription)\b[^:\n]{0,40}:"
    r"|(?:\u4ee5\u4e0b\S{0,12})?(?:\u8f6c\u5f55|\u8f49\u9304|\u8f6c\u5199|"
    r"\u9010\u5b57\u7a3f|\u6587\u5b57\u8d77\u3053\u3057|\u66f8\u304d\u8d77\u3053\u3057)"
    r"\S{0,6}[:\uff1a]"
)
"""Headings in French, Spanish, Portuguese, Italian, German, Chinese and Japanese."""
_HEADING: Final = re.compile(
    rf"""{_OPENER}{_PLEASED}(?:
      (?:here(?:'s|\u2019s|\s+is)|this\s+is)\s+what\s+(?:i|was|is|the\s+\w+)\s+(?:can\s+|being\s+)?
        (?:hear|heard|said|says|spoken)\b[^:.\n]{{0,40}}:
      |(?:what\s+)?i\s+(?:can\s+)?hear[d]?(?:\s+(?:is|the\s+following))?\s*:
      |(?:in\s+(?:the|this)\s+(?:audio|recording|clip),?\s+)?{_SPEAKER}\s+
        (?:says|said|is\s+saying|states|reads|contains(?:\s+the\s+following)?(?:\s+\w+)?)\s*:
      |(?:the\s+)?text\s*(?:reads|says|is)?\s*:
      |language\s*:\s*\w+[.,;\s]\s*(?:text\s*:)?
      |(?:english|german|french|spanish)\s*:
      |(?:begin(?:ning)?|start)(?:\s+of)?(?:\s+the)?\s+transcri(?:pt|ption)\s*:
      |(?:the\s+)?transcribed\s+text\s+of\s+[^:.\n]{{1,40}}:
      |i(?:['\u2019]ve|\s+have)\s+transcribed\s+[^:.\n]{{1,40}}[:.]
      |please\s+find\s+(?:the|your)\s+transcri[^:.\n]{{1,40}}:
      |here(?:'s|\u2019s|\s+is)\s+the\s+(?:written|spoken|english)\s+(?:version|form)\s*:
      |{_ABROAD}
      |(?:the\s+|my\s+)?(?:final\s+)?(?:answer|output|response|result|transcript|transcription)\s*
        (?::|[-\u2013\u2014](?=\s))
      |(?:the\s+)?(?:(?:spoken|written|english|transcribed|clean|verbatim)\s+){{1,3}}(?:text|content|words)\s*:
      |here\s+you\s+(?:go|are)\s*:?(?=.*\S)
      |(?:here(?:'s|\u2019s|\s+is)|below\s+is|this\s+is)\s+(?:the|your|a)\s+(?:\w+\s+){{0,4}}?
        (?:text|transcri\w+|content|words)\b[^:.\n]{{0,80}}(?:[:.]|\n)
      |the\s+(?:speech|speaker|audio|recording|person)\s+(?:says|said|reads)\s*:
      |the\s+speaker\s+(?:says|said)\s*,?\s*(?=["\u201c])
    )\s*""",
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)
"""Announces a transcript. People say such things too."""
_TAIL: Final = re.compile(
    rf"""\W{{0,9}}(?:
      (?:please\s+)?(?:let\s+me\s+know|feel\s+free|do\s+not\s+hesitate|don.t\s+hesitate)\b
      |(?:i\s+)?hope\s+(?:this|that|it)\s+(?:helps|is\s+(?:helpful|useful|what\s+you))\b
      |is\s+there\s+anything\s+else\b
      |if\s+you\s+(?:need|have|want|would\s+like|want)\b(?=.{{0,120}}?(?:{_TASK}|let\s+me|help|ask|further|question))
      |(?:please\s+)?note\s*(?:that\b|:)(?=.{{0,200}}?{_TASK})
      |(?:this|that|the)\s+(?:is|was|concludes|completes)?\s*(?:the\s+)?(?:end\s+of\s+)?(?:the\s+)?(?:\w+\s+)?
        transcri(?:pt|ption)\b(?=\s+(?:is|was|of|has)\b|\W*\Z)
      |transcribed\s+(?:by|with|using)\b
      |transcribe\s+the\s+spoken\s+content\s+to\s+written\b
    )""",
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)
"""How a remark to the user begins, after the transcript."""
_MORE_TAIL: Final = re.compile(
    rf"""\W{{0,9}}(?:
      (?:would\s+you\s+like|do\s+you\s+want)\s+(?:me\s+to|a)\b(?={_SAME}(?:translat|transcri|summar))
      |(?:the\s+)?end\s+of\s+(?:the\s+)?(?:transcri\w+|audio|recording|clip)\W*\Z
      |the\s+transcri(?:pt|ption)\s+(?:ends|stops)\b
      |(?:i\s+think\s+)?(?:that|this)(?:'s|\u2019s|\s+is)\s+(?:the|my)\s+(?:\w+\s+)?transcri(?:pt|ption)\b
      |(?:translation|summary|explanation|analysis|note)\s*:
      |(?:transcribed|translated)\s+from\b|subtitles\s+by\b|thank(?:s|\s+you)\s+for\s+(?:watching|listening)\b
      |the\s+(?:audio|recording|clip)\s+(?:ends|stops|cuts|contains)\b
      |the\s+speaker\s+(?:sounds|seems|appears)\b
      |there\s+is\s+(?:background|some)\s+(?:music|noise)\b
      |please\s+provide\s+the\s+audio\b|the\s+rest\s+is\s+(?:unintelligible|inaudible|unclear)\b
      |(?:sorry\W+)?(?:but\s+)?i\s*(?:can['\u2019]?t|cannot|could\s+not)\s+transcribe\b
      |(?:wait\W+)?(?:let\s+me|i\s+(?:need|should|have)\s+to|i\s+should)\s+(?:double[-\s])?check\b
        (?={_SAME}(?:punctuat|capitali|spelling|transcri))
      |double[-\s]check\s*:
    )""",
    re.IGNORECASE | re.VERBOSE,
)
"""Other remarks at the end. People say such things in rooms, too, so they are never certain."""
_OURS: Final = re.compile(r"\btranscri(?:pt|ption|b)", re.IGNORECASE)
_LABEL: Final = re.compile(
    r"\b(?:says?|said|transcri(?:pt|ption|be)|audio|output|answer|response|text|heard|hear|write|content)"
    r"(?:\s+(?:is|are|should\s+be|would\s+be|will\s+be|must\s+be|as\s+follows|follows))?\s*:\s*",
    re.IGNORECASE,
)
"""Announces the transcript inside a thought."""
_END: Final = re.compile(r"(?<=[.!?\u2026])[\"'\u201d\u2019)\]]*\s+|\n+")
_QUOTES: Final = {'"': '"', "\u201c": "\u201d", "'": "'", "\u2018": "\u2019"}


class Split(NamedTuple):
    """An answer that begins with thoughts.

    Attributes:
        n_words: words of the thoughts.
        rest: the text after them; empty if there is nothing else.
        is_apart: whether the rest is on a line of its own.
        is_foreign: whether the thoughts are not English. An aligner for English cannot hear them.
    """

    n_words: int
    rest: str
    is_apart: bool
    is_foreign: bool = False


class Tail(NamedTuple):
    """A remark to the user at the end of an answer.

    Attributes:
        n_words: words before the remark.
        before: the text before it.
        is_certain: whether it is about the transcript and in a paragraph of its own. Nobody says
            that in a recording.
        is_ours: whether it is about a transcript, which few people speak of.
    """

    n_words: int
    before: str
    is_certain: bool
    is_ours: bool = False


def split_tail(text: str) -> Tail | None:
    """Find the remarks and thoughts at the end of an answer; None if there are none."""
    starts = [0, *(match.end() for match in _END.finditer(text))]
    start = end = len(text)
    for begin in reversed(starts[-MAX_SENTENCES:]):
        sentence = text[begin:end].strip()
        if any(kind.match(sentence) for kind in (_TAIL, _STRONG, _MORE_TAIL)):
            start = begin
        elif sentence and not _FURTHER.match(sentence):
            break
        end = begin
    before = text[:start].strip()
    if not before or start == len(text):
        return None
    is_apart = "\n" in text[len(text[:start].rstrip()) : start]
    is_ours = bool(_OURS.search(text[start:]))
    is_certain = is_apart and is_ours and not _MORE_TAIL.match(text[start:].strip())
    return Tail(len(before.split()), before, is_certain, is_ours)


def split_heading(text: str) -> Split | None:
    """Separate a heading such as "Final answer:" from the rest; None if there is none."""
    heading = _HEADING.match(text)
    found = _split(text, heading.end()) if heading else None
    return found if found and any(map(str.isalnum, found.rest)) else None


def split_reasoning(text: str) -> Split | None:
    """Separate the thoughts at the start of a text from the rest; None if there are none."""
    if not _STRONG.match(text):
        return None
    end = _end_of_thoughts(text)
    sentences = _sentences(text)
    labels = [
        match.end() for match in _LABEL.finditer(text) if _is_thought_before(text, match, sentences)
    ]
    if labels:
        end = labels[-1]
    found = _split(text, end)
    return found._replace(is_foreign=bool(_IS_FOREIGN.match(text))) if found.n_words else None


def unquoted(text: str) -> str:
    """Return the text without white space and quotes around it."""
    text = text.strip()
    is_quoted = _QUOTES.get(text[:1]) == text[-1:] and len(text) > 1
    return text[1:-1].strip() if is_quoted else text


def _split(text: str, end: int) -> Split:
    rest = unquoted(text[end:])
    is_apart = "\n" in text[len(text[:end].rstrip()) : end]
    return Split(len(text[:end].split()), rest, is_apart)


def _sentences(text: str) -> list[tuple[int, int]]:
    ends = [match.end() for match in _END.finditer(text)][:MAX_SENTENCES]
    return list(zip([0, *ends], [*ends, len(text)], strict=True))


def _end_of_thoughts(text: str) -> int:
    end = 0
    for start, stop in _sentences(text):
        sentence = text[start:stop]
        if sentence.strip() and not (_STRONG.match(sentence) or _FURTHER.match(sentence)):
            break
        end = stop
    return end


def _is_thought_before(
    text: str, label: re.Match[str], sentences: Sequence[tuple[int, int]]
) -> bool:
    """Whether the sentence with the label is a thought, and not speech that has a colon."""
    for start, stop in sentences:
        if start <= label.start() < stop:
            sentence = text[start : label.end()]
            kinds = (_STRONG, _FURTHER, _ANNOUNCES)
            return any(kind.match(sentence) for kind in kinds)
    return False
