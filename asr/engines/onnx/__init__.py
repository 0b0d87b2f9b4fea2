"""Speech models in ONNX, by the library onnx-asr: Parakeet, Canary, Whisper, GigaAM, Zipformer, ...

- `engine`: the engine.
- `model`: everything that touches onnx_asr; runs in helper processes.
- `processes`: where the model runs: forked children on the CPU, one child for a GPU.
- `words`: from tokens with times to words.

The library is an extra: ``pip install 'asr-service[onnx]'``. docs/onnx.md says how to get a model.
"""
