#!/usr/bin/env bash
# compare.sh [URL[,URL...] [SLOTS]]: measure raw vLLM and the service in turn, twice, both with SLOTS chunks
# in flight. The engines must already run (serve.sh). Raw chunks have the mean length of the service's chunks.
# The service's chunks differ in length, and vLLM compiles kernels for lengths that it has not seen. This
# takes up to a minute, so the first passes are not counted. Recordings are kept in $WORK.
set -euo pipefail
url=${1:-http://127.0.0.1:8000}
slots=${2:-256}
work=${WORK:-/tmp/asr-hours}
IFS=, read -ra urls <<< "$url"
raw() { python3 -m benchmarks.gpu.load "${urls[@]}" --seconds 26.87 --no-warm-up "$@"; }
service() { python3 -m benchmarks.gpu.service "$url" --slots "$slots" --work "$work" "$@"; }
echo '# not counted'
raw --concurrency 16 "$slots" --rounds 2
service --files 1 4
echo '# counted'
for _ in 1 2; do
  raw --concurrency "$slots" --rounds 8
  service --files 1 4 16
  service --files 16 --streamed
done
