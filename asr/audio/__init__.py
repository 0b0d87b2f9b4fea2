"""Recordings in any format -> 16 kHz mono samples and speech regions.

Read the modules in this order:

- `readers`: open a file, with libsndfile or FFmpeg; `decoding` is what all readers share.
- `ffmpeg`: decode one audio track; `clock` keeps its times true, and `tracks` chooses it.
- `containers` and `mpeg`: how far a recording goes. `concatenated` finds the one that follows it in
  the same file, and `chain` decodes them all. Decoders alone read only the first one.
- `resample`: mix or keep the channels, and resample to 16 kHz.
- `growing`: decode a recording while it arrives.
- `vad`: find speech regions in a stream of samples.
- `recording`: decode in a child process to a PCM16 file, and report progress.

The package knows nothing of chunks, engines or HTTP.
"""
