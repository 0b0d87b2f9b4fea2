"""The `openai` package: a live session, with server VAD and with commits."""

import base64

import openai
from report import BASE, CHUNK, KEY, pcm_24k, report

client = openai.OpenAI(base_url=BASE, api_key=KEY, max_retries=0)
pcm = pcm_24k()


def talk(what, turn_detection):
    audio = {
        "input": {
            "format": {"type": "audio/pcm", "rate": 24000},
            "transcription": {"model": "gpt-4o-transcribe", "language": "en"},
            "turn_detection": turn_detection,
        }
    }
    with client.realtime.connect(extra_query={"intent": "transcription"}) as connection:
        connection.session.update(session={"type": "transcription", "audio": audio})
        for start in range(0, len(pcm), CHUNK):
            piece = base64.b64encode(pcm[start : start + CHUNK]).decode()
            connection.input_audio_buffer.append(audio=piece)
        connection.input_audio_buffer.commit()
        connection.input_audio_buffer.clear()
        texts, is_cleared = {}, False  # by item, in the order of the turns
        for event in connection:
            kind = event.type
            if kind == "error":
                assert event.error.code == "input_audio_buffer_commit_empty", event
            elif kind == "input_audio_buffer.committed":
                texts[event.item_id] = None
            elif kind == "input_audio_buffer.cleared":
                is_cleared = True
            elif kind.endswith("input_audio_transcription.completed"):
                texts[event.item_id] = event.transcript
            if is_cleared and None not in texts.values():
                break
    report(what, " ".join(texts.values()))


talk("commit", None)
talk("server_vad", {"type": "server_vad"})
