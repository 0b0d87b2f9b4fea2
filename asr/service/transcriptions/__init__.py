"""OpenAI's transcription routes: form, bodies, streaming."""
