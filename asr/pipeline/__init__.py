"""From a recording to a transcript.

In reading order: `transcriber` serves many recordings, `run` holds the state of one, `chunking`
cuts speech into chunks, `recognition` turns one chunk into timed words, `scheduler` decides which
chunk the engine takes next, `stitch` and `overlap` turn hypotheses into segments, `channels` does
this for each channel of a recording, `checkpoint` stores hypotheses so that a later attempt need
not repeat them, `known_text` aligns a given text instead of recognising one.

The package does not know HTTP, jobs or the command line.
"""
