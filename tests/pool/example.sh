#!/usr/bin/env bash
# Property: an example compiles, says that all went well, and leaves a database that stock SQLite finds whole.
#
# usage: example.sh PROGRAM
#
# SPDX-License-Identifier: MIT
set -euo pipefail

directory=$(mktemp -d "${TMPDIR:-/dev/shm}/throng-example-XXXXXX")
trap 'rm -rf "$directory"' EXIT
"$1" "$directory/example.db"
[[ ! -e $directory/example.db-journal ]]
if command -v sqlite3 > /dev/null; then
    [[ $(sqlite3 "$directory/example.db" 'PRAGMA integrity_check') == ok ]]
fi
