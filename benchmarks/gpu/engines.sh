#!/usr/bin/env bash
# engines.sh N MODEL_DIR [vllm serve's flags]: N engines on one GPU, on the ports from 8000 on, until
# they are killed (kill -TERM -PGID, or the end of the machine). Their logs are engine-PORT.log here.
# Each is started when the one before it is healthy: while an engine measures how much memory is left
# for its cache, no other may take any.
set -euo pipefail
n=$1
shift
for ((port = 8000; port < 8000 + n; port++)); do
  PORT=$port "$(dirname "$0")/serve.sh" "$@" > "engine-$port.log" 2>&1 &
  until curl -sf "http://127.0.0.1:$port/health"; do
    kill -0 $! || { tail -30 "engine-$port.log"; exit 1; }
    sleep 1
  done
  echo "port $port is ready after $SECONDS s"
done
wait
