"""The sequence of attempts for one chunk; a fake engine gives prepared answers."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from asr.config import DecodeOptions
from asr.engines.guards import GUARDS
from asr.engines.omni.prompt import RETRY_NOTE, RETRY_TEMPERATURE, warmer
from asr.errors import EngineFailed, EngineUnavailable
from asr.pipeline import recognition
from asr.pipeline.recognition import Recogniser
from asr.pipeline.scheduler import NOBODY
from asr.types import SAMPLE_RATE, Audio, Chunk, Hypothesis, Word
from tests.support import makers

SECONDS = 9.0
START = 5 * SAMPLE_RATE
CHUNK = Chunk(7, START, START + round(SECONDS * SAMPLE_RATE), 0, round(8 * SAMPLE_RATE))
GOOD = "this is what was really said in the nine seconds of it"
LOOP = "thank you " * 40
QUIET = round(5.2 * SAMPLE_RATE)
SAMPLES = makers.noise(SECONDS)
SAMPLES[QUIET - 800 : QUIET + 800] *= 0.001


def read(start, end):
    return Audio(SAMPLES[start - START : end - START].copy())


class Scripted:
    """Answers from a list: a text, a hypothesis without its chunk, or an error."""

    name = model = "scripted"
    language = "en"
    slots = 2
    retry_note = RETRY_NOTE
    question_id = "some instruction"

    def __init__(self, *answers, guarded=True):
        self.answers = list(answers)
        self.guarded = guarded
        self.asked = []
        self.running = 0

    async def transcribe(self, chunk, audio, options):
        self.asked.append((chunk, len(audio.samples), options.temperature))
        self.running += 1
        try:
            await asyncio.sleep(0)
        finally:
            self.running -= 1
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, str):
            answer = Hypothesis(chunk.index, answer.strip())
        return answer

    async def retry(self, chunk, audio, options):
        return await self.transcribe(chunk, audio, warmer(options))


class NotedAligner:
    name = "noted"
    language = None

    def __init__(self, engine, confidence=0.5):
        self.engine = engine
        self.confidence = confidence
        self.texts = []

    async def align(self, audio, hypothesis):
        assert self.engine.running == 0, "a slot is held while words are aligned"
        self.texts.append(hypothesis.text)
        step = audio.duration / max(1, len(hypothesis.text.split()))
        words = tuple(
            Word(text, i * step, (i + 1) * step, self.confidence, "aligned")
            for i, text in enumerate(hypothesis.text.split())
        )
        return Hypothesis(hypothesis.chunk_index, hypothesis.text, words, hypothesis.avg_logprob)


@pytest.fixture
def counts(monkeypatch):
    fresh = Counter()
    monkeypatch.setattr(recognition, "COUNTS", fresh)
    return fresh


def recognise(engine, *parts, chunk=CHUNK, options=DecodeOptions(), reader=read):  # noqa: B008
    return asyncio.run(Recogniser(engine, *parts).recognise(chunk, reader, options))


def test_a_good_answer_is_asked_for_once(counts):
    engine = Scripted(GOOD)
    heard = recognise(engine)
    assert (heard.text, heard.warnings) == (GOOD, ())
    assert [word.timing for word in heard.words] == ["interpolated"] * len(GOOD.split())
    assert engine.asked == [(CHUNK, len(SAMPLES), None)]
    assert counts == {"chunks": 1}


THOUGHT = "The user wants me to transcribe the audio."


class PartlyHeard(NotedAligner):
    """Hears all words but those of `THOUGHT`."""

    async def align(self, audio, hypothesis):
        heard = await super().align(audio, hypothesis)
        unheard = set(THOUGHT.split())
        words = [
            replace(word, confidence=0.05 if word.text in unheard else 0.9) for word in heard.words
        ]
        return replace(hypothesis, words=tuple(words))


def test_thoughts_are_asked_again():
    engine = Scripted(THOUGHT, GOOD)
    heard = recognise(engine, PartlyHeard(engine))
    assert heard.text == GOOD
    assert "thinks aloud" in heard.warnings[0]


@pytest.mark.parametrize("is_aligned", [True, False])
def test_thoughts_alone_never_become_text(is_aligned):
    engine = Scripted(*[THOUGHT] * 4)
    parts = [PartlyHeard(engine)] if is_aligned else []
    with pytest.raises(EngineFailed, match="thought aloud") as failed:
        recognise(engine, *parts)
    assert failed.value.chunk_index == CHUNK.index
    assert len(engine.asked) == 4, "it was asked again, and for each half"


def test_thoughts_that_someone_said_are_speech():
    engine = Scripted(f"{THOUGHT} {GOOD}")
    heard = recognise(engine, NotedAligner(engine, 0.9))
    assert heard.text == f"{THOUGHT} {GOOD}"
    assert len(heard.words) == len(heard.text.split())
    assert heard.warnings == ()
    assert recognise(Scripted(THOUGHT), NotedAligner(Scripted(), 0.9)).text == THOUGHT


def test_thoughts_before_speech_are_removed_if_they_were_not_said():
    engine = Scripted(*[f"{THOUGHT} {GOOD}"] * 4)
    heard = recognise(engine, PartlyHeard(engine))
    assert heard.text == GOOD
    assert [word.text for word in heard.words] == GOOD.split()
    assert "thoughts, which are removed" in heard.warnings[-1]


@pytest.mark.parametrize(("gap", "text"), [("\n\n", GOOD), (" ", f"{THOUGHT} {GOOD}")])
def test_without_an_aligner_only_thoughts_on_their_own_line_are_removed(gap, text):
    engine = Scripted(*[f"{THOUGHT}{gap}{GOOD}"] * 4)
    heard = recognise(engine)
    assert " ".join(heard.text.split()) == text
    assert any("in doubt" in warning for warning in heard.warnings)


class Skipping(NotedAligner):
    """Skips the words of the model, as the aligner does with words that it cannot find."""

    unsaid = "Final answer: I hope this helps! Let me know if you need more."

    async def align(self, audio, hypothesis):
        heard = await super().align(audio, hypothesis)
        is_said = [word.text not in self.unsaid.split() for word in heard.words]
        step, end, words = audio.duration / max(1, sum(is_said)), 0.0, []
        for word, is_heard in zip(heard.words, is_said, strict=True):
            start, end = end, end + step * is_heard
            timed = replace(word, start=start, end=end)
            missed = replace(timed, confidence=0.09, timing="interpolated")
            words.append(timed if is_heard else missed)
        return replace(hypothesis, words=tuple(words))


REMARKS = [
    f"Final answer: {GOOD}",
    f"{GOOD}. I hope this helps!",
    f"{GOOD}.\nLet me know if you need more.",
    f'Final answer: "{GOOD}."\n\nI hope this helps! Let me know if you need more.',
]


@pytest.mark.parametrize("text", REMARKS)
def test_what_the_model_says_to_the_user_is_removed_if_it_is_not_heard(text):
    engine = Scripted(text)
    heard = recognise(engine, Skipping(engine, 0.9))
    assert heard.text.strip('".') == GOOD
    assert [word.text.strip('".') for word in heard.words] == GOOD.split()
    assert "were not heard" in heard.warnings[0]
    assert len(engine.asked) == 1


@pytest.mark.parametrize("text", REMARKS)
def test_what_the_aligner_hears_is_speech(text):
    engine = Scripted(text)
    heard = recognise(engine, NotedAligner(engine, 0.9))
    assert (heard.text, heard.warnings) == (text, ())


def test_without_an_aligner_only_remarks_about_the_transcript_are_removed():
    certain = f"{GOOD}.\n\nLet me know if you need any changes to the transcript."
    heard = recognise(Scripted(certain))
    assert heard.text == f"{GOOD}."
    assert len(heard.words) == len(GOOD.split())
    for text in REMARKS:
        assert recognise(Scripted(text)).text == text


def test_a_recogniser_that_gets_no_text_has_no_thoughts():
    engine = Scripted(THOUGHT)
    engine.question_id = ""
    heard = recognise(engine)
    assert (heard.text, heard.warnings) == (THOUGHT, ())


def test_thoughts_that_were_cut_off_never_become_text():
    cut = Hypothesis(7, f"{THOUGHT} And a very long story about it", is_cut=True)
    with pytest.raises(EngineFailed, match="thought aloud"):
        recognise(Scripted(*[cut] * 4))


def test_a_loop_is_asked_again_at_a_higher_temperature(counts):
    engine = Scripted(LOOP, GOOD)
    heard = recognise(engine)
    assert heard.text == GOOD
    assert len(heard.words) == len(GOOD.split())
    assert [temperature for _, _, temperature in engine.asked] == [None, RETRY_TEMPERATURE]
    (warning,) = heard.warnings
    assert "higher temperature" in warning
    assert "repeats itself" in warning
    assert "thank" not in warning
    assert counts == {"chunks": 1, "guard_loop": 1, "guard_too_many_words": 1, "attempts_retry": 1}


@pytest.mark.parametrize(("asked", "again"), [(0.0, 0.7), (0.6, 0.8), (0.95, 1.0), (1.0, 1.0)])
def test_a_retry_is_warmer_than_what_the_user_chose(asked, again):
    engine = Scripted(LOOP, GOOD)
    recognise(engine, options=DecodeOptions(temperature=asked))
    assert [temperature for _, _, temperature in engine.asked] == pytest.approx([asked, again])


def test_then_each_half_is_asked_for(counts):
    engine = Scripted(LOOP, LOOP, "this is what was really", "said in the nine seconds of it")
    heard = recognise(engine)
    assert heard.text == GOOD
    assert [word.text for word in heard.words] == GOOD.split()
    (whole, _, _), _, (left, n_left, t_left), (right, n_right, t_right) = engine.asked
    assert (left.start_sample, right.end_sample) == (whole.start_sample, whole.end_sample)
    assert left.end_sample == right.start_sample == pytest.approx(START + QUIET, abs=320)
    assert (n_left + n_right, t_left, t_right) == (len(SAMPLES), None, None)
    assert left.index == right.index == CHUNK.index
    assert "each half" in heard.warnings[0]
    assert counts["attempts_split"] == 1
    assert counts["chunks_doubtful"] == 0


def test_halves_keep_what_the_engine_knew_of_them():
    def half(*words, **rest):
        timed = tuple(Word(text, i * 0.1, i * 0.1 + 0.05) for i, text in enumerate(words))
        text = " ".join(words)
        sure = (0.5,) * len(words)
        return Hypothesis(CHUNK.index, text, timed, -0.5, ("odd",), sure, **rest)

    heard = recognise(Scripted(LOOP, LOOP, half("this", "is"), half("said", "in", "it")))
    offset = QUIET / SAMPLE_RATE
    starts = [word.start for word in heard.words]
    assert starts == pytest.approx([0, 0.1, offset, offset + 0.1, offset + 0.2], abs=0.02)
    assert heard.word_confidences == (0.5,) * 5
    assert heard.avg_logprob == -0.5
    assert heard.warnings[0] == "odd"
    assert heard.warnings.count("odd") == 1


def test_when_nothing_helps_the_best_is_kept_and_said_to_be_in_doubt(counts):
    few = "just these"
    engine = Scripted(LOOP, few, LOOP, LOOP)
    heard = recognise(engine)
    assert heard.text == few
    assert len(heard.words) == 2
    replaced, doubt = heard.warnings
    assert "higher temperature" in replaced
    assert "in doubt (3 tried): it has 2 words for 8.0 s of speech" in doubt
    assert counts["chunks_doubtful"] == 1


def test_between_equal_answers_the_more_confident_one_is_kept():
    def unsure(logprob):
        return Hypothesis(CHUNK.index, LOOP.strip(), avg_logprob=logprob, is_cut=True)

    heard = recognise(Scripted(unsure(-2.0), unsure(-1.0), LOOP, unsure(-3.0)))
    assert heard.avg_logprob == -1.0


ELEVEN = "so these are the eleven words that were heard before it"
CUT = Hypothesis(CHUNK.index, ELEVEN, avg_logprob=-3.0, is_cut=True)
FEW = Hypothesis(CHUNK.index, "only two", avg_logprob=-3.0, is_cut=True)
REFUSAL = "I'm sorry, but I can't assist with that."
SURE = Hypothesis(CHUNK.index, REFUSAL, avg_logprob=-0.01)
SLOW_LOOP = "and then I went home " * 4
"""Twenty words, which eight seconds can hold."""


@pytest.mark.parametrize(
    ("answers", "kept"),
    [
        (("", CUT, "", ""), ELEVEN),
        ((CUT, REFUSAL, "", ""), ELEVEN),
        ((CUT, SURE, SURE, ""), ELEVEN),
        ((SURE, FEW, "", ""), FEW.text),
        (("", f"{GOOD} {REFUSAL}", "", ""), f"{GOOD} {REFUSAL}"),
        ((FEW, CUT, FEW, FEW), ELEVEN),
        ((REFUSAL, "only two", REFUSAL, REFUSAL), "only two"),
        ((REFUSAL, "", REFUSAL, REFUSAL), ""),
        ((SLOW_LOOP, "", SLOW_LOOP, SLOW_LOOP), ""),
        ((LOOP, "", LOOP, LOOP), ""),
        ((REFUSAL, SLOW_LOOP, REFUSAL, REFUSAL), SLOW_LOOP.strip()),
    ],
)
def test_words_beat_an_empty_answer_and_an_empty_answer_beats_invented_words(answers, kept):
    assert recognise(Scripted(*answers)).text == kept


def test_an_engine_that_does_not_say_how_sure_it_is_is_the_least_sure():
    def cut(text, logprob):
        return Hypothesis(CHUNK.index, text, avg_logprob=logprob, is_cut=True)

    engine = Scripted(cut(GOOD, None), cut(ELEVEN, -9.0), cut("five words of the first", None), "")
    assert recognise(engine).text == ELEVEN


@pytest.mark.parametrize("other", ["", REFUSAL, FEW, CUT])
def test_however_much_the_witness_finds_the_words_are_kept(other):
    engine = Scripted(GOOD, other, other, other)
    found = tuple(f"{n} s sounds like another word" for n in range(20))
    heard = recognise(engine, NotedAligner(engine), lambda _, said, __: found if said.text else ())
    assert heard.text == GOOD
    assert found[-1] in heard.warnings[0]


INVENTED = "thank you for watching this video and please subscribe"


@pytest.mark.parametrize(
    ("answers", "kept"),
    [
        (("", INVENTED, "", ""), ""),
        ((INVENTED, "", INVENTED, INVENTED), ""),
        ((INVENTED, "Yes.", INVENTED, INVENTED), "Yes."),
        ((INVENTED, CUT, INVENTED, INVENTED), ELEVEN),
        ((INVENTED, REFUSAL, REFUSAL, ""), INVENTED),
    ],
)
def test_words_of_which_most_cannot_be_heard_are_worse_than_nothing(answers, kept):
    """webrtcvad mistakes music for speech, and the model then invents words."""

    def says(_, heard, __):
        return ("unheard",) if INVENTED in heard.text else ()

    engine = Scripted(*answers)
    assert recognise(engine, NotedAligner(engine, 0.1), says).text == kept


@pytest.mark.parametrize("other", ["", SLOW_LOOP])
def test_a_lecture_that_begins_like_a_reply_is_kept(other):
    told = "as an AI company we have to ask ourselves what " + " ".join(f"w{n}" for n in range(30))
    engine = Scripted(told, other, "", "")
    assert recognise(engine).text == told


def test_what_the_witness_finds_less_in_is_better():
    engine = Scripted(GOOD, ELEVEN, GOOD, "")
    heard = recognise(
        engine, NotedAligner(engine), lambda _, said, __: ("a", "b")[: 1 + (said.text == GOOD)]
    )
    assert heard.text == ELEVEN


def test_an_empty_answer_to_what_sounds_like_music_stays_empty():
    engine = Scripted("", "", "", "")
    heard = recognise(engine)
    assert (heard.text, heard.words) == ("", ())
    assert "empty, for 8.0 s that sound like speech" in heard.warnings[0]
    assert len(engine.asked) == 4


def test_a_short_chunk_is_not_split():
    chunk = Chunk(0, START, START + 2 * SAMPLE_RATE, 0, 2 * SAMPLE_RATE)
    engine = Scripted(LOOP, LOOP)
    heard = recognise(engine, chunk=chunk)
    assert len(engine.asked) == 2
    assert "in doubt" in heard.warnings[0]


def test_a_further_attempt_that_fails_leaves_what_there_was(counts):
    engine = Scripted(LOOP, EngineFailed("broken"), EngineUnavailable("gone"))
    heard = recognise(engine)
    assert heard.text == LOOP.strip()
    assert counts["attempts_failed"] == 2
    assert counts["chunks_doubtful"] == 1


def test_a_first_attempt_that_fails_is_an_error():
    with pytest.raises(EngineFailed):
        recognise(Scripted(EngineFailed("broken")))


def test_an_engine_that_repeats_itself_exactly_is_not_asked_again(counts):
    engine = Scripted(LOOP, guarded=False)
    heard = recognise(engine, None, lambda *_: ("it was not heard",))
    assert (len(engine.asked), heard.warnings) == (1, ())
    assert counts == {"chunks": 1}


def test_only_what_is_kept_is_aligned():
    engine = Scripted(LOOP, LOOP, LOOP, LOOP)
    aligner = NotedAligner(engine)
    heard = recognise(engine, aligner)
    assert aligner.texts == [LOOP.strip()]
    assert {word.timing for word in heard.words} == {"aligned"}


def test_a_witness_counts_like_a_guard(counts):
    engine = Scripted("words that nobody said in any of these seconds", GOOD)
    seen = []

    def witness(audio, hypothesis, offset):
        assert len(audio.samples) == len(SAMPLES)
        assert len(hypothesis.words) == len(hypothesis.text.split())
        seen.append(hypothesis.text)
        return () if hypothesis.text == GOOD else ("2.0 s to 3.5 s sound like other words",)

    heard = recognise(engine, NotedAligner(engine), witness)
    assert heard.text == GOOD
    assert len(seen) == 2
    assert "2.0 s to 3.5 s sound like other words" in heard.warnings[0]
    assert counts["guard_witness"] == 1


@pytest.mark.parametrize(
    ("guard", "answer"),
    [
        ("loop", SLOW_LOOP),
        ("cut", CUT),
        ("too_many_words", " ".join(f"{n * 7919 % 100003:x}" for n in range(61))),
        ("too_few_words", "Hello!"),
        ("empty", ""),
        ("commentary", REFUSAL),
        ("reasoning", f"{THOUGHT} {GOOD}"),
        ("witness", ELEVEN),
    ],
)
def test_each_guard_is_counted_once_in_an_answer(counts, guard, answer):
    engine = Scripted(answer, GOOD)
    says = {ELEVEN: ("one", "two")}
    recognise(engine, PartlyHeard(engine), lambda _, heard, __: says.get(heard.text, ()))
    found = {name: count for name, count in counts.items() if name.startswith("guard_")}
    assert found == {f"guard_{guard}": 1}


def test_no_guard_goes_uncounted():
    """The table above names every guard."""
    (rows,) = (mark.args[1] for mark in test_each_guard_is_counted_once_in_an_answer.pytestmark)
    assert {name for name, _ in rows} == {guard.__name__ for guard in GUARDS} | {"witness"}


def test_no_attempt_is_told_what_was_heard_before():
    engine = Scripted(LOOP, LOOP, GOOD, GOOD)
    prompts = []
    inner = engine.transcribe

    async def listen(chunk, audio, options):
        prompts.append(options.prompt)
        return await inner(chunk, audio, options)

    engine.transcribe = listen
    recognise(engine, options=DecodeOptions(prompt="the weather"))
    assert prompts == ["the weather"] * 4


def test_samples_are_read_when_a_slot_is_free():
    """Only as many chunks as there are slots are in memory, however many wait."""
    engine = Scripted(*[GOOD] * 10)
    live = most = 0

    def reader(start, end):
        nonlocal live, most
        live += 1
        most = max(most, live)
        return Audio(np.zeros(end - start, np.float32))

    inner = engine.transcribe

    async def transcribe(chunk, audio, options):
        nonlocal live
        await asyncio.sleep(0.005)
        live -= 1
        return await inner(chunk, audio, options)

    engine.transcribe = transcribe

    async def run():
        recogniser = Recogniser(engine)
        await asyncio.gather(
            *(recogniser.recognise(CHUNK, reader, DecodeOptions()) for _ in range(10))
        )

    asyncio.run(run())
    assert most <= engine.slots


def test_jobs_take_turns():
    order = []

    class Slow(Scripted):
        slots = 1

        async def transcribe(self, chunk, audio, options):
            order.append(options.prompt)
            await asyncio.sleep(0.001)
            return Hypothesis(chunk.index, GOOD)

    async def run():
        recogniser = Recogniser(Slow())

        def ask(name):
            options = DecodeOptions(prompt=name)
            return asyncio.create_task(recogniser.recognise(CHUNK, read, options, job=name))

        tasks = [ask("long") for _ in range(8)]
        await asyncio.sleep(0.0005)
        tasks += [ask("short") for _ in range(2)]
        await asyncio.gather(*tasks)

    asyncio.run(run())
    assert order.index("short") <= 3
    assert "long" in order[order.index("short") :][:3]


def test_a_cancelled_chunk_gives_its_slot_back():
    class Stuck(Scripted):
        slots = 1
        stuck = True

        async def transcribe(self, chunk, audio, options):
            while self.stuck:
                await asyncio.sleep(0.001)
            return Hypothesis(chunk.index, GOOD)

    async def run():
        engine = Stuck()
        recogniser = Recogniser(engine)
        first = asyncio.create_task(recogniser.recognise(CHUNK, read, DecodeOptions()))
        second = asyncio.create_task(recogniser.recognise(CHUNK, read, DecodeOptions()))
        await asyncio.sleep(0.02)
        first.cancel()
        engine.stuck = False
        return await asyncio.wait_for(second, 60)

    assert asyncio.run(run()).text == GOOD


@pytest.mark.parametrize(
    ("own", "asked", "timing"),
    [
        ("en", "de", "interpolated"),
        ("en", "en-GB", "aligned"),
        ("en", "English", "aligned"),
        ("en", None, "aligned"),
        (None, "de", "aligned"),
    ],
)
def test_an_aligner_of_another_language_is_not_asked(own, asked, timing):
    engine = Scripted(GOOD)
    aligner = NotedAligner(engine)
    if own:
        aligner.language = own
    heard = recognise(engine, aligner, options=DecodeOptions(language=asked))
    assert {word.timing for word in heard.words} == {timing}


@pytest.mark.parametrize(("asked", "timing"), [(None, "interpolated"), ("en", "aligned")])
def test_a_request_without_language_means_that_of_the_engine(asked, timing):
    engine = Scripted(GOOD)
    engine.language = "ru"
    aligner = NotedAligner(engine)
    aligner.language = "en"
    heard = recognise(engine, aligner, options=DecodeOptions(language=asked))
    assert {word.timing for word in heard.words} == {timing}


class KeepingAligner(NotedAligner):
    """Keeps what the engine says of its confidences, as the real aligners do."""

    async def align(self, audio, hypothesis):
        timed = await super().align(audio, hypothesis)
        return replace(hypothesis, words=timed.words)


@pytest.mark.parametrize(
    ("is_calibrated", "measured", "expected"),
    [
        (True, 0.5, [0.2, 0.5, 0.5]),
        (True, None, [0.2, 0.7, 0.9]),
        (False, 0.5, [0.5, 0.5, 0.5]),
    ],
)
def test_a_word_has_the_lower_confidence_of_a_calibrated_engine_and_the_aligner(
    is_calibrated, measured, expected
):
    own = (0.2, 0.7, 0.9)
    answer = Hypothesis(
        CHUNK.index, "just three words", word_confidences=own, is_calibrated=is_calibrated
    )
    engine = Scripted(answer, answer, answer, answer)
    seen = []

    def says(_, heard, __):
        seen.extend(word.confidence for word in heard.words)
        return ()

    short = Chunk(CHUNK.index, START, START + 2 * SAMPLE_RATE, 0, 2 * SAMPLE_RATE)
    heard = recognise(engine, KeepingAligner(engine, measured), says, chunk=short)
    assert [word.confidence for word in heard.words] == expected
    assert seen == [measured] * 3  # the witness gets what the aligner measured


def test_halves_of_a_calibrated_engine_are_calibrated():
    def half(text, is_calibrated=True):
        sure = (0.3,) * len(text.split())
        return Hypothesis(CHUNK.index, text, word_confidences=sure, is_calibrated=is_calibrated)

    for is_calibrated in (True, False):
        answers = half("this is what was"), half("really said in it", is_calibrated)
        engine = Scripted(LOOP, LOOP, *answers)
        heard = recognise(engine, KeepingAligner(engine, 0.5))
        assert {word.confidence for word in heard.words} == {0.3 if is_calibrated else 0.5}


# --- interim requests -----------------------------------------------------------------------------


def interim(recogniser, job="speaker", engine=None):
    return recogniser.recognise_interim(CHUNK, read, DecodeOptions(), job, NOBODY, engine)


def test_an_interim_request_gets_the_first_answer_and_counts_nothing(counts):
    engine = Scripted(GOOD, LOOP)
    recogniser = Recogniser(engine)
    assert asyncio.run(interim(recogniser)) == GOOD
    assert asyncio.run(interim(recogniser)) is None  # a guard objects, and nobody asks again
    assert len(engine.asked) == 2
    assert counts == {}


def test_an_engine_that_is_not_guarded_is_believed():
    assert asyncio.run(interim(Recogniser(Scripted(LOOP, guarded=False)))) == LOOP.strip()


def test_interim_requests_take_turns_at_the_engine_and_are_no_waiting_chunks():
    engine = Scripted(*[GOOD] * 5)
    engine.slots = 1
    recogniser = Recogniser(engine)

    async def run():
        works = [asyncio.create_task(interim(recogniser, n)) for n in range(3)]
        chunk = asyncio.create_task(recogniser.recognise(CHUNK, read, DecodeOptions(), "file"))
        await asyncio.sleep(0)
        assert recogniser.n_waiting == 1
        works[2].cancel()
        await chunk
        await asyncio.gather(*works, return_exceptions=True)
        assert recogniser.n_waiting == 0

    asyncio.run(run())
    assert len(engine.asked) == 3


def test_interim_requests_may_be_measured_apart():
    engine, other = Scripted(), Scripted(GOOD)
    assert asyncio.run(interim(Recogniser(engine), engine=other)) == GOOD
    assert (len(engine.asked), len(other.asked)) == (0, 1)
