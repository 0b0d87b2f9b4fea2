#!/usr/bin/env bash
# compare.sh [URL[,URL...] [SLOTS]]: raw vLLM and the service in turn, twice, with as many chunks in flight,
# against engines that run (serve.sh). Raw chunks are as long as the service's are on average.
# What goes first is not counted: the service's chunks differ in length, and vLLM compiles kernels for
# what it has not seen, which takes up to a minute. Recordings are kept in $WORK.
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
