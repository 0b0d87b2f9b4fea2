"""tuspy: a resumable upload, then its transcription."""

import json
import urllib.parse
import urllib.request

from report import AUDIO, BASE, KEY, report
from tusclient.client import TusClient

headers = {"Authorization": f"Bearer {KEY}"}
uploader = TusClient(f"{BASE}/uploads", headers=headers).uploader(AUDIO, chunk_size=50_000)
uploader.upload()
upload_id = uploader.url.rstrip("/").rsplit("/", 1)[1]
body = urllib.parse.urlencode({"upload_id": upload_id}).encode()
request = urllib.request.Request(f"{BASE}/audio/transcriptions", body, headers)
with urllib.request.urlopen(request) as answer:
    report("json", json.load(answer)["text"])
