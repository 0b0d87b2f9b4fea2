"""The package whisper-cpp-client, at the route of whisper.cpp's server."""

import json

from report import AUDIO, ROOT, report
from whisper_cpp_client import WhisperCppClient

host, port = ROOT.rsplit(":", 1)
client = WhisperCppClient(host, int(port))
report("json", json.loads(client.transcribe(AUDIO))["text"])
client.set_params({"response_format": "verbose_json", "temperature": "0.0", "language": "en"})
answer = json.loads(client.transcribe(AUDIO))
report("segments", " ".join(segment["text"] for segment in answer["segments"]))
