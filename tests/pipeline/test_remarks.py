"""What a model says to its user, in any wording, beside speech that only sounds like it.

The aligner of these tests hears the words that were said, and gives no time to the others.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from difflib import SequenceMatcher

import pytest

from asr.config import DecodeOptions
from asr.engines.omni.instruction import INSTRUCTION
from asr.engines.omni.prompt import hypothesis
from asr.pipeline.recognition import Recogniser
from asr.types import SAMPLE_RATE, Audio, Chunk, Word
from tests.support import makers

SPEECH = "We met at noon, and it rained. The shop was closed, so we went home by bus."
SECONDS = 6.0
EDGE = 0.3
CHUNK = Chunk(0, 0, round(SECONDS * SAMPLE_RATE), 0, round(5 * SAMPLE_RATE))
SAMPLES = makers.noise(SECONDS)


class Model:
    """Gives the same answer to everything."""

    name = model = "model"
    language = "en"
    slots = 2
    guarded = True
    retry_note = "again"
    question_id = "some instruction"

    def __init__(self, *answers):
        self.answers = list(answers)

    async def transcribe(self, chunk, audio, options):
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return hypothesis(chunk.index, answer)

    retry = transcribe


class Ears:
    """Hears `said`. An unsaid word gets no time, unless `room` seconds of noise hold the words."""

    name = "ears"
    language = None

    def __init__(self, said=SPEECH, confidence=0.9, room=0.0):
        self.said = _bare(said)
        self.confidence = confidence
        self.room = room

    async def align(self, audio, heard):
        texts = heard.text.split()
        match = SequenceMatcher(None, _bare(heard.text), self.said, autojunk=False)
        spans = match.get_matching_blocks()
        said = {at for a, _, size in spans for at in range(a, a + size)}
        length = audio.duration - 2 * (EDGE + self.room)
        step, at, words = length / max(1, len(said)), EDGE + self.room, []
        for number, text in enumerate(texts):
            if number in said:
                words.append(Word(text, at, at + step, self.confidence, "aligned"))
                at += step
            else:
                words.append(Word(text, at, at, 0.09, "interpolated"))
        names = ("avg_logprob", "is_cut", "word_confidences")
        fields = {name: getattr(heard, name) for name in names}
        return type(heard)(heard.chunk_index, heard.text, tuple(words), **fields)


def _bare(text):
    return ["".join(filter(str.isalnum, word)).casefold() for word in text.split()]


def transcribed(answer, aligner=None):
    answers = [answer] if isinstance(answer, str) else answer
    recogniser = Recogniser(Model(*answers), aligner)
    read = lambda start, end: Audio(SAMPLES[start:end])  # noqa: E731
    return asyncio.run(recogniser.recognise(CHUNK, read, DecodeOptions()))


HEADS = [
    "Sure thing, I'd be happy to help with that.", "Okay, here is what I heard:",
    "The audio contains the following speech:", "A man says:", "In the audio, the speaker says:",
    "The text reads:", "English:", "Language: English. Text:", "Thought: I must write it down.",
    "Analysis: The audio is a single speaker.", "Plan: listen and transcribe.",
    "The assistant needs to output the transcription only.", "Host:", "[English]", "<en>",
    "(male voice)", "[S1]", "Transcripci\u00f3n:", "Hier ist die Transkription:",
    "\u4ee5\u4e0b\u662f\u97f3\u9891\u7684\u8f6c\u5f55\uff1a",
    "I'd be happy to help! Here is the transcription:", "Sure!\n", "Begin transcript:",
    "The user said something. It is hard to hear. I will write:",
]  # fmt: skip
TAILS = [
    "The transcription ends here.", "That's the transcription.", "Would you like a summary?",
    "Translation: Wir trafen uns am Mittag.", "Explanation: They met. It rained.",
    "I think that's the correct transcription.", "Thank you for watching!", "(end)", "[END]",
    "Wait, I need to check the punctuation.", "I cannot transcribe the rest of the audio.",
    "The speaker sounds happy.", "\nDone.",
]  # fmt: skip


@pytest.mark.parametrize("head", HEADS)
def test_a_heading_in_any_wording_goes_if_it_was_not_said(head):
    for gap in (" ", "\n\n"):
        heard = transcribed(f"{head}{gap}{SPEECH}", Ears())
        assert heard.text == SPEECH
        assert [word.text for word in heard.words] == SPEECH.split()
        assert any("not heard" in note or "thoughts" in note for note in heard.warnings)
    assert transcribed(f'{head} "{SPEECH}"', Ears()).text == SPEECH


@pytest.mark.parametrize("tail", TAILS)
def test_a_remark_in_any_wording_goes_if_it_was_not_said(tail):
    for gap in (" ", "\n"):
        heard = transcribed(f"{SPEECH}{gap}{tail}", Ears())
        assert heard.text == SPEECH
        assert [word.text for word in heard.words] == SPEECH.split()


@pytest.mark.parametrize("remark", [*HEADS, *TAILS])
def test_the_same_words_stay_if_somebody_said_them(remark):
    for text in (f"{remark} {SPEECH}", f"{SPEECH} {remark}"):
        heard = transcribed(text, Ears(text))
        assert heard.text.split() == text.split()
        assert len(heard.words) == len(text.split())


@pytest.mark.parametrize(
    "remark", ["Can everyone hear the audio?", "Could the speaker come closer?"]
)
def test_a_voice_that_the_aligner_does_not_hear_loses_nothing(remark):
    head, tail = f"{remark} {SPEECH}", f"{SPEECH} {remark}"
    assert transcribed(head, Ears(room=1.5)).text == head, "there was time to say it"
    assert transcribed(tail, Ears(room=1.5)).text == tail
    assert transcribed(head, Ears(confidence=0.2)).text == head, "nothing was heard well"
    assert transcribed(tail, Ears(confidence=0.2)).text == tail


@pytest.mark.parametrize("short", ["Sure!", "Done.", "Okay."])
def test_a_short_word_at_an_edge_may_be_unclear_and_stays(short):
    for text in (f"{short} {SPEECH}", f"{SPEECH} {short}"):
        assert transcribed(text, Ears()).text == text


MEETING = [
    "Transcript: noun, a written copy of what was said.",
    "Transcription: the process by which a cell copies its genes.",
    "The transcript reads: where were you on the night of the fifth?",
    "Here is the transcript: it is on page three of the exhibit.",
    "The transcript of the audio is: incomplete, and the user wants a refund.",
    "User: I cannot log in. Agent: have you tried turning it off?",
    "Narrator: once upon a time there was a king.",
    "Speaker: order, order in the house.",
    "It was late.\nUser: I cannot log in.\nNarrator: nobody answered.",
    "So the tag is <think> and then you close it.",
    "The user wants me to transcribe the audio, but I told him no.",
    f"Our prompt is: {INSTRUCTION}",
    "I left the audio at home. Let me know if you need the transcript.",
]


@pytest.mark.parametrize("text", MEETING)
def test_a_meeting_about_users_and_transcripts_loses_nothing(text):
    heard = transcribed(text, Ears(text.replace("<think> ", "")))
    assert heard.text == text.replace("<think> ", "")
    assert len(heard.words) == len(heard.text.split())


@pytest.mark.parametrize("second", ["", "thank you " * 40, "So."])
def test_speech_that_reads_like_a_reply_is_not_replaced_by_less(second):
    speech = "Here is a summary of what the audio contains, and what they sent us on Monday."
    heard = transcribed([speech, second], Ears(speech))
    assert heard.text == speech
    assert any("in doubt" in note for note in heard.warnings)
    unsaid = transcribed([speech, SPEECH], Ears())
    assert unsaid.text == SPEECH, "what nobody said is replaced"


@pytest.mark.parametrize("head", ["Transcript:", "Here is the transcript:", "Narrator:", "<think>"])
def test_what_the_scrubber_removes_stays_away_if_it_was_not_said(head):
    assert transcribed(f"{head} {SPEECH}", Ears()).text == SPEECH


@pytest.mark.parametrize(
    "speech",
    [
        "The transcript is a mess: half of the words are missing.",
        "The transcript for Monday's meeting: who has it?",
        "Here's the transcription quote from the vendor: nine hundred dollars.",
        "The transcript of the trial: that is what we need.",
        "Transcription is the first step in gene expression: DNA is copied into RNA.",
        "This is the transcription of the ancient stone: in the beginning there was light.",
        "The following is the transcript of a phone call recorded in May: hello, John.",
        "We need to start the meeting. The recording is on. It was a long day.",
        "The job is audio engineering mostly, and it was a long day.",
        "Transcribing the audio is boring work, and it was a long day.",
        "The goal is to have the audio ready by noon.",
    ],
)
def test_without_an_aligner_a_meeting_loses_no_sentence(speech):
    heard = transcribed(speech)
    assert heard.text == speech


@pytest.mark.parametrize(
    "answer",
    [
        f"The user wants me to transcribe the audio. Here is the transcript: {SPEECH}",
        f"The user wants me to transcribe it.\n\nFinal answer: {SPEECH}\n\nI hope that helps.",
        f"The user wants me to transcribe the audio. {SPEECH} Would you like a summary?",
    ],
)
def test_thoughts_go_together_with_remarks_and_the_chunk_is_asked_again(answer):
    heard = transcribed(answer, Ears())
    assert heard.text == SPEECH
    assert [word.text for word in heard.words] == SPEECH.split()
    assert any("thoughts, which are removed" in note for note in heard.warnings)
    assert transcribed([answer, SPEECH], Ears()).text == SPEECH


def test_what_people_say_at_the_end_is_kept_if_there_is_time_for_it():
    for said in ("Thank you for listening!", "I hope this helps.", "Feel free to call me."):
        answer = f"{SPEECH} {said}"
        assert transcribed(answer, Ears()).text == SPEECH
        assert transcribed(answer, Ears(room=2.0)).text == answer, "a noise may hide it"
    answer = f"{SPEECH} Let me know if you need any changes to the transcript."
    assert transcribed(answer, Ears(room=2.5)).text == SPEECH


class Unsure(Ears):
    """Noise of `room` seconds at both edges: the words beside it are stretched or misplaced."""

    def __init__(self, *, is_stretched):
        super().__init__(room=2.0)
        self.is_stretched = is_stretched

    async def align(self, audio, heard):
        timed = await super().align(audio, heard)
        words = list(timed.words)
        said = [number for number, word in enumerate(words) if word.timing == "aligned"]
        first, last = words[said[0]], words[said[-1]]
        before, after = EDGE, audio.duration - EDGE
        end, start = (first.end, last.start) if self.is_stretched else (before + 0.1, after - 0.1)
        words[said[0]] = replace(first, start=before, end=end)
        words[said[-1]] = replace(last, start=start, end=after)
        return replace(timed, words=tuple(words))


@pytest.mark.parametrize("is_stretched", [True, False])
@pytest.mark.parametrize(
    "answer", ["{} I have the text here, he says.", "I have the text here. {}"]
)
def test_speech_in_noise_is_kept_although_a_word_takes_its_time(answer, is_stretched):
    answer = answer.format(SPEECH)
    assert transcribed(answer, Unsure(is_stretched=is_stretched)).text == answer
    assert transcribed(answer, Ears()).text == SPEECH, "without the noise there is no time"


def test_an_answer_that_says_everything_twice_loses_the_copy():
    for gap in (" ", "\n\n"):
        heard = transcribed(f"{SPEECH}{gap}{SPEECH}", Ears())
        assert heard.text == SPEECH
        assert [word.text for word in heard.words] == SPEECH.split()
    twice = f"{SPEECH} {SPEECH}"
    assert transcribed(twice, Ears(twice)).text == twice
    assert transcribed(twice, Ears(room=2.7)).text == twice, "a second voice may repeat it"
    assert transcribed("No way. No way.", Ears("No way.")).text == "No way. No way."


@pytest.mark.parametrize("gap", [" ", "\n"])
def test_an_aligner_that_does_not_know_the_language_costs_no_speech(gap):
    speech = "Wir trafen uns am Mittag, und es hat geregnet."
    thought = "Der Nutzer m\u00f6chte, dass wir das Treffen transkribieren."
    heard = transcribed(f"{thought}{gap}{speech}", Ears("nothing of it"))
    assert heard.text.endswith(speech)
    assert (thought in heard.text) == (gap == " ")
    used = "Der Nutzer kann das Transkript herunterladen, und es hat geregnet."
    assert transcribed(used, Ears("nothing of it")).text == used


def test_each_half_of_a_chunk_loses_its_own_remarks():
    doubtful = "thank you " * 40
    first, second = "We met at noon, and it rained.", "The shop was closed, so we went home by bus."
    halves = [f"{first} That is the transcription.", f"Okay, here is what I heard: {second}"]
    heard = transcribed([doubtful, doubtful, *halves], Ears())
    assert heard.text == f"{first} {second}"
    starts = [word.start for word in heard.words]
    assert starts == sorted(starts)
    assert starts[len(first.split())] > SECONDS / 3
    assert "each half" in heard.warnings[-1]
