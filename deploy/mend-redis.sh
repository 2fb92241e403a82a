#!/bin/sh
# Cuts off what a loss of power or a full disk has left of Redis' last write, which nobody was told of. To be run before
# every start of Redis: left to itself, Redis would take a torn command for a whole one, or cut within a transaction.
#
#     mend-redis.sh FOLDER && redis-server ...    where the append-only files are, as a rule `appendonlydir`
#
# What was written and not flushed reached the disk in sectors, in any order. One that did not is full of zeros, and no
# command of ours has so many: texts have none, numbers a few. Within a text Redis would not notice them. They can only
# be in the last write, so only the end of the file is looked at.
#
# It fails where it could not look: a file that was not looked at must not be taken for whole.

SECTOR_BYTES=512
LAST_WRITE_MAX_SECTORS=131072 # 64 MiB

fail() {
    echo "mend-redis: $1" >&2
    exit 1
}

# The number of the first sector of zeros in what comes in, from 1, or nothing.
first_missing() {
    od -A n -v -t x1 -w$SECTOR_BYTES | grep -n -m 1 -x '\( 00\)*' | cut -d : -f 1
}

test "$#" = 1 || fail "it is told one folder, that of the append-only files"
test -e "$1" || echo "mend-redis: there is no $1 yet, so nothing to mend" >&2
test ! -e "$1" || { test -d "$1" && test -r "$1" && test -x "$1"; } || fail "$1 is no folder that can be read"
# Each tool shows that it can before what it says is believed.
seen=$({ printf "%${SECTOR_BYTES}s" "" && head -c $SECTOR_BYTES /dev/zero; } | tail -c +1 | first_missing)
test "$seen" = 2 || fail "it needs tail, od with -w, grep with -m, and cut"

for file in "$1"/*.incr.aof; do
    test -e "$file" || continue
    size=$(wc -c <"$file") || fail "$file can't be read"
    skipped=$((size / SECTOR_BYTES - LAST_WRITE_MAX_SECTORS))
    test "$skipped" -gt 0 || skipped=0
    torn=$(tail -c +$((skipped * SECTOR_BYTES + 1)) "$file" | first_missing)
    if test -n "$torn"; then
        truncate -s $(((skipped + torn - 1) * SECTOR_BYTES)) "$file" || fail "$file can't be cut"
    fi
    # What is left ends within a transaction, or the file was never torn: then this changes nothing.
    yes | redis-check-aof --fix "$file" || fail "redis-check-aof can't mend $file"
done
