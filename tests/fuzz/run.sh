#!/usr/bin/env bash
# Replay all inputs that are known, then look for new ones for a time: run.sh FUZZER SEEDS SECONDS. What fails is kept
# in the current directory, as crash-*.
#
# SPDX-License-Identifier: MIT
set -euo pipefail

fuzzer=$1 seeds=$2 seconds=$3
base=${TMPDIR:-/dev/shm}
[[ -w $base ]] || base=/tmp
TMPDIR=$(mktemp -d "$base/throng-fuzz-run-XXXXXX")
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT
mkdir "$TMPDIR/corpus"

# Not libFuzzer's usual 77: a test that ends with it is one that was skipped.
options=(-timeout=10 -error_exitcode=1 -timeout_exitcode=1)
"$fuzzer" "${options[@]}" "$seeds"/*
"$fuzzer" "${options[@]}" -max_len=32768 -max_total_time="$seconds" -seed="$((${THRONG_SEED:-0} & 0x7fffffff))" \
    -print_final_stats=1 "$TMPDIR/corpus" "$seeds"
