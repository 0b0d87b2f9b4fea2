"""Haystack's RemoteWhisperTranscriber."""

from haystack.components.audio import RemoteWhisperTranscriber
from haystack.utils import Secret
from report import AUDIO, BASE, KEY, report

transcriber = RemoteWhisperTranscriber(api_key=Secret.from_token(KEY), api_base_url=BASE)
(document,) = transcriber.run(sources=[AUDIO])["documents"]
report("json", document.content)
