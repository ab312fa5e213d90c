#!/usr/bin/env bash
# Property: the extension shows its entry point and nothing else, and brings no SQLite of its own; the library shows the
# functions of throng.h and nothing else. A symbol too many could be taken for the program's own, or the other way round.
#
# usage: exports.sh throng.so libthrong.so
#
# SPDX-License-Identifier: MIT
set -euo pipefail

symbols()
{
    nm --dynamic --defined-only "$1" | awk '{ print $3 }' | sort | tr '\n' ' '
}

expect()
{
    if [[ $2 != "$3" ]]; then
        printf '%s: "%s", not "%s"\n' "$1" "$2" "$3" >&2
        exit 1
    fi
}

expect "exports of the extension" "$(symbols "$1")" "sqlite3_throng_init "
expect "exports of the library" "$(symbols "$2")" "throng_register throng_version "
expect "the extension's libraries named sqlite" "$(readelf --dynamic "$1" | grep NEEDED | grep -c sqlite || true)" 0
