"""Thoughts of a model about its task, before a transcript or instead of one."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from asr.engines import reasoning
from asr.engines.guards import REASONING, REMARK, findings
from asr.engines.omni.prompt import hypothesis
from asr.engines.reasoning import split_heading, split_reasoning, split_tail
from asr.types import SAMPLE_RATE, Chunk, Hypothesis

SPEECH = "We met at noon, and it rained."
CHUNK = Chunk(0, 0, 20 * SAMPLE_RATE, 0, 15 * SAMPLE_RATE)

THOUGHTS = [
    "The user wants me to transcribe the spoken content to written English text.",
    "The user wants me to transcribe the audio.",
    "Okay, the user is asking for a transcription of the audio clip.",
    "Okay, so the user has provided an audio recording and wants it in written form.",
    "I need to transcribe the spoken content with punctuation and capitalization.",
    "We need to output the transcription only.",
    "We are asked to transcribe the audio. We must output only the text.",
    "I'll transcribe the audio for you.",
    "Let me listen to the audio carefully.",
    "Let's transcribe the speech. The speaker is a man.",
    "Alright, let me start by listening to the recording.",
    "First, I need to listen to the audio. It is in English.",
    "The task is to transcribe the audio word for word.",
    "The instruction says to transcribe the audio. I should add punctuation.",
    "Hmm, the user wants me to write down the spoken words. There is only one speaker.",
    "Got it. The user wants me to transcribe the clip. Let me think. The audio is short.",
]

OTHER_WORDINGS = [
    "User wants me to transcribe the audio.",
    "They want me to transcribe the audio.",
    "Okay, let's see. The user wants me to transcribe the audio.",
    "I've been asked to transcribe this audio clip.",
    "I should transcribe what is said.",
    "Okay, let me transcribe this for you.",
    "To transcribe this audio, I need to listen carefully.",
    "This is a transcription task.",
    "This audio needs to be transcribed.",
    "Listening carefully to the audio...",
    "Transcribing now.",
    "Transcribe the audio.",
    "1. Listen to the audio.\n2. Write it down.",
    "Thinking Process:\n1. Analyze the Request: The user wants a transcription.",
    "Alright. So the user has given an audio file. They want me to transcribe it.",
    "Based on the audio provided, here is the transcript:",
    "From the audio, I can hear:",
    "El usuario quiere que transcriba el audio.",
    "L'utilisateur veut une transcription.",
    "Der Benutzer m\u00f6chte, dass ich das Audio transkribiere.",
    "The user's query asks for transcription.",
    "So I need to figure out what the audio says.",
    "Okay, so I have this audio to transcribe.",
    "Alright, I've got an audio clip here that I need to transcribe.",
    "The assistant should transcribe the audio.",
    "I must not add any commentary. Only output the transcription.",
    "Just the transcription, no commentary.",
    "Thought: I need to transcribe the audio.",
    "Plan: listen and transcribe.",
    "Task: transcribe the audio.",
    "Let me carefully listen.",
]  # fmt: skip


@pytest.mark.parametrize("thoughts", OTHER_WORDINGS)
def test_thoughts_in_other_words_are_told_apart(thoughts):
    text = f"{thoughts}\n{SPEECH}"
    found = split_reasoning(text)
    assert found is not None
    assert (found.n_words, found.rest, found.is_apart) == (len(thoughts.split()), SPEECH, True)


@pytest.mark.parametrize(
    "heading",
    [
        "Final answer:", "Answer:", "Output:", "Written English text:", "Spoken content:",
        "Here you go:", "Sure thing! Here you go:", "Transcript -", "Below is the text:",
        "Here is the written English text with punctuation and capitalization:",
        "Okay, here is what I heard:", "Here is what the speaker says:", "What I hear is:",
        "I'd be happy to help! Here is the transcription:", "As requested, here is the transcript:",
        "I can help with that. Here is the transcript:", "The text reads:", "A man says:",
        "In the audio, the speaker says:", "The audio contains the following speech:", "English:",
        "Language: English. Text:", "I have transcribed the audio below.", "Begin transcript:",
        "Please find the transcription below:", "Hier ist die Transkription:",
        "Transcripci\u00f3n:",
        "Voici la transcription :", "Ecco la trascrizione:", "\u8f6c\u5f55\uff1a",
        "\u4ee5\u4e0b\u662f\u97f3\u9891\u7684\u8f6c\u5f55\uff1a",
        "The speech says:", "The speaker says,",
    ],
)  # fmt: skip
def test_headings_are_told_apart_but_are_no_thoughts(heading):
    text = f'{heading} "{SPEECH}"'
    found = split_heading(text)
    assert found is not None
    assert (found.n_words, found.rest) == (len(heading.split()), SPEECH)
    assert split_reasoning(text) is None
    assert split_heading(heading) is None, "without a rest it is all that was said"


@pytest.mark.parametrize(
    ("tail", "is_certain"),
    [
        ("Let me know if you need anything else!", False),
        ("I hope this helps! Let me know if you need any changes to the transcript.", True),
        ("Is there anything else you would like me to transcribe?", True),
        ("Please note that the audio quality is poor.", False),
        ("That's the transcription.", False),
        ("Would you like me to translate this?", False),
        ("Translation: Wir trafen uns am Mittag.", False),
        ("The speaker sounds happy.", False),
        ("I cannot transcribe the rest of the audio.", False),
        ("Wait, I need to check the punctuation.", False),
        ("Thank you for watching!", False),
        ("End of transcription.", False),
        ("The transcription is complete.", True),
        ("Transcribed by AI", True),
        ("Wait, the user wants me to transcribe the audio. I should add punctuation.", True),
    ],
)
def test_remarks_at_the_end_are_told_apart(tail, is_certain):
    for gap in (" ", "\n"):
        found = split_tail(f"{SPEECH}{gap}{tail}")
        assert found is not None
        assert (found.n_words, found.before) == (len(SPEECH.split()), SPEECH)
        assert found.is_certain == (is_certain and gap == "\n")
    assert split_tail(tail) is None
    assert split_tail(f"{tail} {SPEECH}") is None


@pytest.mark.parametrize("thoughts", THOUGHTS)
def test_thoughts_alone_are_found(thoughts):
    found = split_reasoning(thoughts)
    assert found is not None
    assert (found.n_words, found.rest) == (len(thoughts.split()), "")
    (finding,) = [it for it in findings(Hypothesis(0, thoughts), CHUNK) if it.guard == "reasoning"]
    assert finding.weight == REASONING


@pytest.mark.parametrize("thoughts", THOUGHTS)
@pytest.mark.parametrize("gap", [" ", "\n", "\n\n"])
def test_what_follows_thoughts_is_told_apart(thoughts, gap):
    text = f"{thoughts}{gap}{SPEECH}"
    found = split_reasoning(text)
    assert found is not None
    assert (found.rest, found.is_apart) == (SPEECH, gap != " ")
    assert text.split()[found.n_words :] == SPEECH.split()
    (finding,) = [it for it in findings(Hypothesis(0, text), CHUNK) if it.guard == "reasoning"]
    assert finding.weight == REMARK


@pytest.mark.parametrize(
    "label",
    [
        "The audio says: ", "So the transcription is: ", "So the final output should be: ",
        "The speaker says: ", "It says: ", "I will write: ",
    ],
)  # fmt: skip
@pytest.mark.parametrize("text", [SPEECH, f'"{SPEECH}"', f"\u201c{SPEECH}\u201d"])
def test_the_transcript_may_be_announced(label, text):
    found = split_reasoning(f"{THOUGHTS[0]} {label}{text}")
    assert found is not None
    assert found.rest == SPEECH


def test_the_last_announcement_counts():
    text = f'{THOUGHTS[0]} The audio says: "We met." So the output should be: {SPEECH}'
    assert split_reasoning(text).rest == SPEECH


@pytest.mark.parametrize(
    "speech",
    [
        SPEECH,
        "The user wants me to call him back before noon.",
        "The user asked for a refund, and we gave it to him.",
        "Okay, the user interface is done.",
        "I need to listen to my mother more often.",
        "Let me start with the budget.",
        "Let's listen to music.",
        "We need to talk.",
        "The task is easy.",
        "We met at noon. The user wants me to transcribe the audio.",
        "So I said: let me transcribe it.",
        "The audio says: we met at noon.",
        "We need to start the meeting. The recording is on.",
        "The job is audio engineering mostly.",
        "The goal is to have the audio ready by noon.",
        "Transcribing the audio is boring work.",
        "Transcribe the audio, then send it to me.",
        "From the recording, I can hear that the engine is broken.",
        "Thinking process: how do we decide?",
        "Der Nutzer kann das Transkript herunterladen.",
        "We have audio problems in the main room.",
        "The assistant should call me back.",
        "Let me listen to you first.",
        "The task: paint the wall.",
        "We need to transcribe this by Friday.",
        "The user wants me to transcribe the audio, but I told him no.",
        "The user asked for a transcript, and we sent him one.",
    ],
)
def test_speech_about_something_else_is_no_thought(speech):
    assert split_reasoning(speech) is None


@pytest.mark.parametrize("thoughts", THOUGHTS)
def test_the_scrubber_removes_no_words_that_may_have_been_said(thoughts):
    assert hypothesis(0, f"{thoughts} {SPEECH}").text == f"{thoughts} {SPEECH}"


ECHO = "Transcribe the spoken content to written english text, with punctuations and "


@pytest.mark.parametrize("echo", [f"{ECHO}capitalizations.", f". \n{ECHO}capitalization:"])
def test_an_echo_of_the_instruction_goes(echo):
    assert hypothesis(0, f"{echo}\n{SPEECH}").text == SPEECH
    assert hypothesis(0, echo).text == ""


pieces = st.sampled_from(
    [*THOUGHTS, SPEECH, "It says: ", "\n", " ", '"', "Okay. ", "the audio", "."]
)


@given(st.lists(pieces | st.text(max_size=6), max_size=8).map("".join))
def test_the_rest_is_the_end_of_the_text(text):
    found = split_reasoning(text)
    if found is not None:
        assert found.n_words > 0
        assert found.rest in text
        assert len(text.split()[: found.n_words]) == found.n_words


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "piece", ["okay, ", "the user wants ", "we need to write ", "it is ", "I'll ", ": ", "so\n"]
)
def test_the_time_for_a_text_grows_with_its_length_alone(piece):
    text = "The user wants me to transcribe the audio. " + piece * (50_000 // len(piece))
    assert split_reasoning(text) is not None
    assert split_reasoning(piece * (50_000 // len(piece))) is None
    assert split_heading(piece * (50_000 // len(piece))) is None
    assert split_tail(SPEECH + piece * (50_000 // len(piece))) is None


def test_long_thoughts_are_cut_into_sentences_a_fixed_number_of_times(monkeypatch):
    """Each label did it again, which took seconds for an answer of 100 kB."""
    cut, calls = reasoning._sentences, []
    monkeypatch.setattr(reasoning, "_sentences", lambda text: calls.append(text) or cut(text))
    answer = "The user wants me to transcribe the audio. It says: hello. " * 100
    assert split_reasoning(answer).n_words > 10
    assert len(calls) == 2
