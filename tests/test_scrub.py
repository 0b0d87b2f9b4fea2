"""What a model adds goes, what was said stays. Each table row was made up for its rule."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from asr.engines.scrub import spoken

SPEECH = "we met at noon, and it rained"


def cleaned(answer: str) -> str:
    return " ".join(spoken(answer).text.split())


@pytest.mark.parametrize(
    "answer",
    [
        # thinking
        f"<think>hm\nhm</think>{SPEECH}",
        f"<think></think>\n{SPEECH}",
        f"they want <b>words</b></think>\n\n{SPEECH}",
        f"{SPEECH}<think>was that all? I",
        f"<think>a</think><think>b</think>{SPEECH}<|im_end|>",
        f"</s>{SPEECH}<|endoftext|>",
        # preambles
        f"Here is the transcript: {SPEECH}",
        f"Here's the transcription of the audio:\n\n{SPEECH}",
        f"Here\u2019s the verbatim transcription:\n{SPEECH}",
        f"Sure! Here is the transcribed text: {SPEECH}",
        f"Certainly, here are the exact words spoken in the clip: {SPEECH}",
        f"Okay. Below is a word-for-word transcript of the recording you sent:\n{SPEECH}",
        f"The following is the transcript\n{SPEECH}",
        f"Transcript: {SPEECH}",
        f"**Transcription:**\n\n{SPEECH}",
        f"Transcription of the audio: {SPEECH}",
        f"The transcript of the audio is: {SPEECH}",
        f"The transcription reads: {SPEECH}",
        f'The speaker says: "{SPEECH}"',
        f"The audio says: \u201c{SPEECH}\u201d",
        f"# Transcript\nTranscript:\n{SPEECH}",
        # wrapping
        f'"{SPEECH}"',
        f"'{SPEECH}'",
        f" \u201c{SPEECH}\u201d ",
        f"\u00ab{SPEECH}\u00bb",
        f"`{SPEECH}`",
        f"```\n{SPEECH}\n```",
        f"```text\n{SPEECH}\n```",
        f"```{SPEECH}```",
        f"**{SPEECH}**",
        f'Here is the transcript:\n```\n"{SPEECH}"\n```',
        # speakers and times
        f"Speaker 1: {SPEECH}",
        f"SPEAKER_00: {SPEECH}",
        f"**Speaker A:** {SPEECH}",
        f"[Speaker A] {SPEECH}",
        f"[Speaker 2]: {SPEECH}",
        f"(Speaker B): {SPEECH}",
        f"Speaker 1 (male): {SPEECH}",
        f"Speaker: {SPEECH}",
        f"Narrator: {SPEECH}",
        f"assistant: {SPEECH}",
        "Speaker 1: we met at noon,\nSpeaker 2: and it rained",
        "Speaker 1: we met at noon, Speaker 2: and it rained",
        f"[00:00] {SPEECH}",
        f"[00:00.000 --> 00:04.500] {SPEECH}",
        f"(0:01) {SPEECH} (1:00:02.5)",
        # commentary in brackets
        f"(music) {SPEECH}",
        f"[Music] {SPEECH} [Applause]",
        f"[upbeat music playing] {SPEECH}",
        f"{SPEECH} (audience laughing)",
        f"{SPEECH} [end of transcript]",
        "we met at noon, *laughs* and it rained",
        "we met at noon, (phone ringing) and it rained",
        f"[BLANK_AUDIO] {SPEECH}",
        f"[inaudible] {SPEECH} (sound of footsteps fading)",
        f"(speaking foreign language) {SPEECH}",
        f"\u266a {SPEECH} \u266a",
    ],
)
def test_what_a_model_adds_goes(answer):
    assert cleaned(answer) == SPEECH


@pytest.mark.parametrize(
    "speech",
    [
        SPEECH,
        "Here is the plan: we start on Monday.",
        "Here is the thing, the transcript was lost.",
        "The transcript was lost, so we wrote the words down again.",
        "Read the text: it is short.",
        "Sure, here we go.",
        "Okay, so the following is what I saw.",
        "The speaker said nothing about it.",
        "The speakers: are they plugged in?",
        "Note: the shop is closed.",
        "Doctor: what seems to be the trouble?",
        "Question: who was speaker of the house?",
        "He is speaker 1 on the list.",
        "The speaker: a man of few words.",
        "My person A and person B example is old.",
        'She said "no" and he said "yes"',
        '"No," she said, "not today."',
        "'tis the season, don't you think",
        "rock 'n' roll",
        "call (555) 123-4567 now",
        "the music (I love music) was loud",
        "he laughs and music plays",
        "it was (as they say) a pause for thought",
        "two * three * four is twenty-four",
        "a < b and b > c",
        "meet me at 10:30, or at 11:15",
        "the score was 3:2 (0:1 at half-time)",
        "think about it, I think so",
        "array [0] and array [1]",
        "no speech was given",
        "see the end of the recording",
    ],
)
def test_what_was_said_stays(speech):
    assert cleaned(speech) == speech


@pytest.mark.parametrize(
    "answer",
    ["", " \n ", "<think>hm", "(music)", "[no speech detected]", "[silence]", "Transcript:", '""'],
)
def test_of_nothing_but_additions_nothing_is_left(answer):
    assert cleaned(answer) == ""


pieces = st.sampled_from(
    [
        "<think>", "</think>", '"', "'", "(music)", "Speaker 1:", "Transcript:", "hello ", " it's",
        "```\n", "**", "[Speaker A]", "Here is the transcript:", "\n", " ", "<|im_end|>", "\u00e9",
        "\U0001f600", "\u201c", "\u201d", "[00:01]",
    ]
)  # fmt: skip


@given(st.lists(pieces | st.text(max_size=5), max_size=12).map("".join))
def test_every_character_knows_its_place_and_cleaning_is_final(answer):
    draft = spoken(answer)
    assert "".join(answer[place] for place in draft.places) == draft.text
    assert list(draft.places) == sorted(set(draft.places))
    assert spoken(draft.text).text == draft.text


@pytest.mark.timeout(10)
@pytest.mark.parametrize("piece", ["<think>", "[", "(the ", "Speaker ", "the ", '"', "*", "1:11 "])
def test_long_answers_take_no_long_time(piece):
    spoken(piece * 3000)
