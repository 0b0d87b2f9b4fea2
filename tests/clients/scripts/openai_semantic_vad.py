"""The `openai` package: a live session with `semantic_vad`."""

import openai_realtime

openai_realtime.talk("semantic_vad", {"type": "semantic_vad", "eagerness": "auto"})
