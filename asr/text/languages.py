"""Languages as clients write them -> ISO-639-1 codes.

Clients send ``en``, ``EN``, ``en-US``, ``en_US.UTF-8``, ``eng``, ``English`` or ``auto``. Codes and
names are those of Whisper, because OpenAI's API takes and returns them.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

_TABLE: Final = """
af afrikaans afr|am amharic amh|ar arabic ara|as assamese asm|az azerbaijani aze
ba bashkir bak|be belarusian bel|bg bulgarian bul|bn bengali ben|bo tibetan bod tib
br breton bre|bs bosnian bos|ca catalan cat|cs czech ces cze|cy welsh cym wel|da danish dan
de german deu ger|el greek ell gre|en english eng|es spanish spa|et estonian est
eu basque eus baq|fa persian fas per|fi finnish fin|fo faroese fao|fr french fra fre
ga irish gle|gl galician glg|gu gujarati guj|ha hausa hau|haw hawaiian|he hebrew heb iw
hi hindi hin|hr croatian hrv|ht haitian-creole hat|hu hungarian hun|hy armenian hye arm
id indonesian ind in|is icelandic isl ice|it italian ita|ja japanese jpn
jv javanese jav jw|ka georgian kat geo|kk kazakh kaz|km khmer khm|kn kannada kan
ko korean kor|la latin lat|lb luxembourgish ltz|ln lingala lin|lo lao|lt lithuanian lit
lv latvian lav|mg malagasy mlg|mi maori mri mao|mk macedonian mkd mac|ml malayalam mal
mn mongolian mon|mr marathi mar|ms malay msa may|mt maltese mlt|my myanmar mya bur
ne nepali nep|nl dutch nld dut|nn nynorsk nno|no norwegian nor nb nob|oc occitan oci
pa punjabi pan|pl polish pol|ps pashto pus|pt portuguese por|ro romanian ron rum mo
ru russian rus|sa sanskrit san|sd sindhi snd|si sinhala sin|sk slovak slk slo
sl slovenian slv|sn shona sna|so somali som|sq albanian sqi alb|sr serbian srp
su sundanese sun|sv swedish swe|sw swahili swa|ta tamil tam|te telugu tel|tg tajik tgk
th thai tha|tk turkmen tuk|tl tagalog tgl fil filipino|tr turkish tur|tt tatar tat
uk ukrainian ukr|ur urdu urd|uz uzbek uzb|vi vietnamese vie|yi yiddish yid ji
yo yoruba yor|yue cantonese|zh chinese zho chi cmn mandarin
es castilian|nl flemish|my burmese|ca valencian|ht haitian|lb letzeburgesch|ps pushto
pa panjabi|ro moldavian|ro moldovan|si sinhalese
"""
"""Each entry: ISO-639-1 code, Whisper's name, ISO-639-2 codes and other spellings. The last entries
are further names."""
_ENTRIES: Final = [entry.split() for entry in _TABLE.replace("\n", "|").split("|") if entry]
LANGUAGE_NAMES: Final[dict[str, str]] = {
    code: name.replace("-", " ") for code, name, *_ in reversed(_ENTRIES)
}
"""Whisper's name of each code; ``verbose_json`` returns these names."""
_CODES: Final = {word.replace("-", " "): entry[0] for entry in _ENTRIES for word in entry}
_AUTOMATIC: Final = frozenset({
    "auto", "automatic", "autodetect", "auto-detect", "detect", "multi", "multilingual", "mul",
    "und", "unknown", "any", "all", "none", "null", "undefined", "default",
})  # fmt: skip
_TAG: Final = re.compile(r"([a-z]{2,3})((?:[-_][a-z0-9]{1,8})*)")


class Language(NamedTuple):
    """A language that a client asked for.

    Attributes:
        code: ISO-639-1 code, or ISO-639-3 for a language without one; None leaves it to the engine.
        rest: the region or script after the code, such as ``US`` or ``Hans``, which no engine uses.
    """

    code: str | None
    rest: str = ""


def is_automatic(text: str) -> bool:
    """Whether a client leaves the language to the engine."""
    return text.strip().lower() in {"", *_AUTOMATIC}


def read_language(text: str) -> Language:
    """Read a language in any of its spellings.

    A well-formed code that is in no list is returned as it is: the engine decides about it.

    Raises:
        ValueError: the text is no language.
    """
    clean = re.sub(r"[.@].*|\(.*", "", text.strip()).strip()  # en_US.UTF-8, English (US)
    lower = clean.lower()
    if is_automatic(text):
        return Language(None)
    if lower in _CODES:
        return Language(_CODES[lower])
    found = _TAG.fullmatch(lower)
    if found is None:
        raise ValueError("is no language: send an ISO-639-1 code such as en, or auto")
    code, rest = found.groups()
    return Language(_CODES.get(code, code), clean[len(code) + 1 :] if rest else "")
