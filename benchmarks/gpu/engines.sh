#!/usr/bin/env bash
# engines.sh N MODEL_DIR [vllm serve's flags]: N engines on one GPU, on the ports from 8000 on, until
# they are killed (kill -TERM -PGID, or the end of the machine). Their logs are engine-PORT.log here.
# They start side by side, so the flags must say how much memory each one's cache gets
# (--kv-cache-memory-bytes): an engine that measures what is left would count what the others take.
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
