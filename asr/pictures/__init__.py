"""Pictures and audio clips that show what was recognised where.

In reading order: `inspection` runs a transcription and keeps what each stage saw, `plot` draws it,
`clips` cuts a recording into its segments. Needs the extras ``[plot]`` and ``[clips]``.
"""
