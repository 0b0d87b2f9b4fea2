#!/usr/bin/env bash
# serve.sh MODEL_DIR [vllm serve's flags]: serve the model with random weights, until the server is killed.
# The port is $PORT, or 8000 if that is not set.
# --moe-backend triton: the default backend compiles for many minutes on a fresh machine, triton does not.
set -euo pipefail
model=$1
shift
export HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1
exec python3 -m vllm.entrypoints.cli.main serve "$model" --served-model-name omni \
  --host 127.0.0.1 --port "${PORT:-8000}" --load-format dummy --trust-remote-code \
  --max-model-len 32768 --max-num-seqs 384 --gpu-memory-utilization 0.9 \
  --limit-mm-per-prompt '{"image":0,"video":0,"audio":1}' --moe-backend triton "$@"
