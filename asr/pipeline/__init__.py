"""From a recording to a transcript: chunks, recognition, alignment, stitching."""
