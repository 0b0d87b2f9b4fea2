"""Recordings in any format -> 16 kHz mono samples and speech regions.

Read the modules in this order:

- `readers`: open a file or a stream, with libsndfile or FFmpeg.
- `concatenated`: detect several recordings in one file, which libsndfile would read only in part.
- `resample`: mix or keep the channels, and resample to 16 kHz.
- `growing`: decode a recording while it arrives.
- `vad`: find speech regions in a stream of samples.
- `recording`: decode in a child process to a PCM16 file, and report progress.

The package knows nothing of chunks, engines or HTTP.
"""
