"""Transcripts as text: subtitles, JSON, OpenAI's bodies."""
