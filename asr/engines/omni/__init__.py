"""Nemotron-3-Nano-Omni, on servers over HTTP or on vLLM in this process.

Read the modules in this order:

- `prompt`: the instruction, the sampling, and the hypothesis in an answer. Pure functions.
- `scrub`: remove thinking, labels and commentary from an answer.
- `dialects`: how servers differ in their chat completions.
- `http`: the engine on servers, with retries and deadlines.
- `servers`: choose the next server, and check their health.
- `connections`: spread requests over several HTTP clients.
- `local`: the engine on vLLM in this process.
- `watchdog`: end vLLM's processes when this process is killed.
- `gather`: an optional scheduler for vLLM, which starts chunks together.

The package knows nothing of files or of other chunks. `asr.engines.guards` judges the answers.
"""
