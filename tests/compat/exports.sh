#!/usr/bin/env bash
# Property: the extension shows its entry point and nothing else, and brings no SQLite of its own; the library shows the
# functions of its headers and nothing else. A symbol too many could be taken for the program's own, or the other way round.
#
# usage: exports.sh throng.so libthrong.so header...
#
# SPDX-License-Identifier: MIT
set -euo pipefail

# What the headers declare: `throng_name(` at the end of a type, not in a comment, not static, not a macro.
declared()
{
    sed -e 's:/\*.*\*/::' -e '/^ \*/d' -e '/^\/\*/d' "$@" |
        grep -vE '^(#|static|typedef| {4,})' | grep -oE '\b\*?throng_[a-z_]+\(' | tr -d '*(' | sort -u | tr '\n' ' '
}

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
expect "exports of the library" "$(symbols "$2")" "$(declared "${@:3}")"
expect "the extension's libraries named sqlite" "$(readelf --dynamic "$1" | grep NEEDED | grep -c sqlite || true)" 0
