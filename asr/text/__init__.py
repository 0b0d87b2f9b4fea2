"""Properties of written text that recognition, alignment and subtitles need. English word lists.

In reading order: `spoken` (the spoken forms of a written token), which uses `figures` (numbers,
sums of money, dates and times), `abbreviations` and `numerals`; `phrasing` (where sentences end and
where lines may break); `spread` (times for words that have none); `script` (a text to align), which
uses `decoding` (encodings) and `subtitle_files` (SRT, WebVTT, LRC).

The package knows nothing of audio. Only `spread` knows times.
"""
