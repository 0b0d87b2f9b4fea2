"""Transcripts as text.

In reading order: `formats` lists all formats and writes plain text, SRT, WebVTT and TSV;
`subtitles` cuts segments into readable cues; `openai` makes the bodies of OpenAI's API;
`full_json` writes and reads our own JSON; `gaps` says where text is missing; `numbers` rounds for
all of them.

The package does not know where a transcript comes from.
"""
