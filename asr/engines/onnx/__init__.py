"""Models of the library onnx-asr: Parakeet, Canary, Whisper, GigaAM, Zipformer and others.

- `engine`: `OnnxEngine`.
- `model`: loads and runs a model, in child processes. Only this module imports onnx_asr.
- `processes`: starts the child processes: a fork for each chunk on the CPU, one child for a GPU.
- `words`: joins tokens with times to words.

The library is an extra: ``pip install 'asr-service[onnx]'``. docs/onnx.md says how to get a model.
"""
