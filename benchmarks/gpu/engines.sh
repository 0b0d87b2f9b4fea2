#!/usr/bin/env bash
# engines.sh N MODEL_DIR [vllm serve's flags]: run N engines on one GPU, on ports 8000, 8001 and so on.
# They run until they are killed (kill -TERM -PGID) or the machine stops. Each engine writes its log to
# engine-PORT.log in the current folder.
# The flags must set the size of each engine's cache (--kv-cache-memory-bytes). Without that flag an engine
# measures the free memory, and its result is wrong because the other engines take memory at the same time.
set -euo pipefail
n=$1
shift
for ((port = 8000; port < 8000 + n; port++)); do
  VLLM_CACHE_ROOT=${VLLM_CACHE_ROOT:-/tmp/vllm-cache}/$port PORT=$port \
    "$(dirname "$0")/serve.sh" "$@" > "engine-$port.log" 2>&1 &
done
for ((port = 8000; port < 8000 + n; port++)); do
  until curl -sf "http://127.0.0.1:$port/health"; do
    jobs -r | grep -q . || { tail -30 engine-*.log; exit 1; }
    sleep 1
  done
  echo "port $port is ready after $SECONDS s"
done
wait
