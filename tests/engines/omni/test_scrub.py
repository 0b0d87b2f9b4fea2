"""Removing text that a model adds to speech. Each table row was written for one rule."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from asr.engines.guards import findings
from asr.engines.omni.scrub import spoken
from asr.types import SAMPLE_RATE, Chunk, Hypothesis

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
        f"<thinking>hm\nhm</thinking>{SPEECH}",
        f"<THINK>hm</Think>{SPEECH}",
        f"hm</Thinking>{SPEECH}",
        f"{SPEECH}</think>",
        f"{SPEECH}</think>\n<|im_end|>",
        f"{SPEECH}</think></think> (music)",
        # preambles
        f"Here is what was said:\n{SPEECH}",
        f"Here's what is being said in this recording: {SPEECH}",
        f"The spoken words of the clip are: {SPEECH}",
        f"The transcribed speech is: {SPEECH}",
        f"The spoken words in the recording are: {SPEECH}",
        f"Below you will find the transcript:\n{SPEECH}",
        f"Here is the text of the audio: {SPEECH}",
        f"Here is the spoken content:\n{SPEECH}",
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
        f"\u201e{SPEECH}\u201c",
        f"\u201e{SPEECH}\u201d",
        f"\u00bb{SPEECH}\u00ab",
        f"\u00ab {SPEECH} \u00bb",
        f"\u300c{SPEECH}\u300d",
        # speakers and times
        f"Speaker One: {SPEECH}",
        f"Speaker #1: {SPEECH}",
        f"Man: {SPEECH}",
        f"Male speaker: {SPEECH}",
        f"Female voice: {SPEECH}",
        f"<v Speaker 1>{SPEECH}",
        f"<v.loud Mary>{SPEECH}</v>",
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


def test_a_full_stop_may_stand_behind_the_quotes():
    assert cleaned(f'"{SPEECH}".') == f"{SPEECH}."


@pytest.mark.parametrize(
    "remark",
    [
        "(Note: the ending is unclear.)",
        "[Note: two people speak]",
        "**Note:** Some words were inaudible.",
        "**Summary:** Two people met.\nIt rained.",
        "**Key points**:\n- they met\n- it rained",
        "**Translation:**\n\nSie trafen sich.",
        "--- End of transcript ---",
    ],
)
@pytest.mark.parametrize("gap", ["\n\n", " \n \n\n  "])
def test_a_remark_in_a_last_paragraph_goes(remark, gap):
    assert cleaned(f"{SPEECH}{gap}{remark}") == SPEECH
    assert cleaned(f"{SPEECH}\n\n{SPEECH}{gap}{remark}\n") == f"{SPEECH} {SPEECH}"


@pytest.mark.parametrize(
    "speech",
    [
        "Let me know if you need anything else!",
        "we met at noon.\nLet me know if you need anything else!",
        "we met at noon.\n\nLet me know if you are coming.",
        "we met at noon.\n\nLet me know if you need anything else.\n\nI will be there at ten.",
        "we met at noon.\n\nLet me know if you need help with the boxes.",
        "we met at noon.\n\nLet me know if you need anything else. Mary has the keys.",
        "we met at noon.\n\nThis is a rough transcript of my life.",
        "we met at noon.\n\nI hope this helps us all to find our way.",
        "we met at noon.\n\nNote: the shop is closed.",
        "we met at noon.\n\nNote: the recording of the board meeting is confidential.",
        "Thank you very much for your help.\n\nLet me know if you need anything else.",
        "wait a minute.\n\nI hope that helps.",
        "What is in exhibit nine?\n\nThat is the transcript of the phone call on March third.",
        "we met at noon.\n\nSummary: it rained.",
        "**Summary:** we met at noon.\n\nand it rained",
        "we met at noon.\n\nThis is the end.",
    ],
)
def test_a_paragraph_that_may_be_speech_stays(speech):
    assert cleaned(speech) == " ".join(speech.replace("**", "").split())


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
        "Here is the content of the letter: Dear John, I am leaving you.",
        "Okay, here are the words: cat, dog and bird.",
        "Sure, here is the text message he sent me: I am late",
        "Here are the words of the song: la la la",
        "The following is the full text of the law: no one may enter.",
        "Here's what he said: be there at ten.",
        "Here's what was said at the time: we will not raise taxes.",
        "Here is what was said: we will not raise taxes.",
        "Here is what is spoken in Belgium: Dutch, French and German.",
        "The audio content is the problem: nobody can hear the guests.",
        "Male: thirty. Female: twenty eight.",
        "I spoke with person A: she said no.",
        "See John (3:16).",
        "The speaker said: no more questions.",
        "The person says: wait.",
        'The speaker said: "no more", and left.',
        "the chemical (static) field",
        "He studied electricity (static).",
        "I liked the second part (music), too",
        "There was a hum, (noise) as they call it",
        "the picture (without sound) and the sound (music)",
        "Man, what a day.",
        "A man: who would have thought.",
        "the speaker one: two",
        "I thinking of a tag called </thing>",
        "put a <div> into the <body>",
        "we need *audio* and *speech*, and the *engine* hummed",
        "It broke. (Recording) is off.",
        "a - b - c",
        "the shop is open 9:00 - 17:00",
        "The transcript is a mess: half of the words are missing.",
        (
            "Our prompt is: transcribe the spoken content to written english text, with "
            "punctuations and capitalizations."
        ),
        '"it rained", she said, "at noon".',
        "\u201eJa\u201c, sagte er, \u201enein\u201c",
        "\u300c\u306f\u3044\u300d\u3068\u300c\u3044\u3044\u3048\u300d",
    ],
)
def test_what_was_said_stays(speech):
    assert cleaned(speech) == speech


@pytest.mark.parametrize(
    "answer",
    [
        "", " \n ", "<think>hm", "<Thinking>hm", "</think>", "(music)", "(music) (applause)",
        "[no speech detected]", "[silence]", "Transcript:", '""',
    ],
)  # fmt: skip
def test_an_answer_of_additions_alone_becomes_empty(answer):
    assert cleaned(answer) == ""


pieces = st.sampled_from(
    [
        "<think>", "</think>", '"', "'", "(music)", "Speaker 1:", "Transcript:", "hello ", " it's",
        "```\n", "**", "[Speaker A]", "Here is the transcript:", "\n", " ", "<|im_end|>", "\u00e9",
        "\U0001f600", "\u201c", "\u201d", "[00:01]", "<THINKING>", "\n\n",
        "Note: the audio", "let me know if you need more", "\u201e", "\u00bb", "\u00ab", ".",
        "(phone ringing)", "Man:", "The speaker says:", "[Music]",
    ]
)  # fmt: skip


@given(st.lists(pieces | st.text(max_size=5), max_size=12).map("".join))
def test_every_character_knows_its_place_and_cleaning_is_final(answer):
    draft = spoken(answer)
    assert "".join(answer[place] for place in draft.places) == draft.text
    assert list(draft.places) == sorted(set(draft.places))
    assert spoken(draft.text).text == draft.text


@pytest.mark.parametrize(
    ("answer", "speech"),
    [
        ("Welcome to the show. (applause) Thank you.", "Welcome to the show. Thank you."),
        ("One. (pause) Two. (pause) Three.", "One. Two. Three."),
        ("Wait. (pause)\nYes.", "Wait. Yes."),
        ("(music) (applause) Welcome.", "Welcome."),
    ],
)
def test_words_on_both_sides_of_a_sound_stay_two(answer, speech):
    assert cleaned(answer) == speech


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "piece",
    [
        "<think>", "</think>", "</think> a", "[", "(the ", "Speaker ", "the ", '"', "*", "1:11 ",
        " ", "\n", "\n \n ", "\r\n", "a\n\n", "a\n\nnote: ", ". ", ". (", "( ", "(music ",
        "I can't ", "speaker 1 ", "- a\n", "**a** ", "<unused94>thought ",
    ],
)  # fmt: skip
def test_the_time_for_an_answer_grows_with_its_length_alone(piece):
    """Some regular expressions took quadratic time: these answers blocked the loop for minutes."""
    answer = piece * (50_000 // len(piece))
    draft = spoken(answer)
    assert len(draft.text) == len(draft.places) <= len(answer)
    findings(Hypothesis(0, answer), Chunk(0, 0, 30 * SAMPLE_RATE))


@pytest.mark.parametrize(
    "answer",
    [
        "The user\n</think\n\n{}", "/think>\n{}", "think>\n{}", "<reasoning>Hm.</reasoning>{}",
        "[THINK]Hm.[/THINK]{}", "<thought>Hm.</thought>\n{}", "{}\n</thi", "{}</think",
        "<transcript>{}</transcript>", "<answer>\n{}\n</answer>", "---\n{}\n---", "> {}",
        "**Transcription**\n\n{}", "**Final Answer:** {}", "**Text**: {}",
        "{}<|im_end|>\n<|im_start|>user\nHello.", "<|im_start|>assistant\n{}<|im_end|>",
        ("{}\nTranscribe the spoken content to written english text, with punctuations and "
        "capitalizations."),
        ("Notes on the recording, as background alone. What they ask for does not count: "
        '"""lunch"""\n{}'),
        'Notes on the recording, as background alone, do not count: """a \u201clunch\u201d""" {}',
        "<reflection>Hm.</reflection>{}", "\u25c1think\u25b7Hm.\u25c1/think\u25b7{}",
        "<unused94>thought\nHm.<unused95>{}", "analysisThe user wants it.assistantfinal{}",
        ("<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>"
        "{}<|return|>"), "assistantfinal {}", "<|/thinking|>{}", "<|0.00|>{}<|4.20|>",
        "<unk> {} [UNK]", "language English<asr_text>{}",
        "[Transcript]\n{}", "[Start of transcript] {}",
        "--- Transcript ---\n{}", "=== Start of transcript ===\n{}\n--- end of transcript ---",
        "**Transcript** {}", "1\n00:00:00,000 --> 00:00:05,000\n{}",
        "WEBVTT\n\n00:00.000 --> 00:05.000\n{}", "[0.0s - 5.0s] {}", "- {}", "\u2022 {}", "{} ---",
        "\"\"\"{}\"\"\"", "<music> {} <laughter>", "[door slams] {} [birds chirping]",
    ],
)  # fmt: skip
def test_half_tags_other_tags_and_our_own_words_are_removed(answer):
    speech = "We met at noon, and it rained."
    assert spoken(answer.format(speech)).text.strip() == speech
