#!/bin/sh
# Cuts off what a loss of power or a full disk has left of Redis' last write, which nobody was told of. To be run before
# every start of Redis: left to itself, Redis would take a torn command for a whole one, or cut within a transaction.
#
#     mend-redis.sh FOLDER    where the append-only files are, as a rule `appendonlydir`
#
# What was written and not flushed reached the disk in sectors, in any order. One that did not is full of zeros, and no
# command of ours has so many: texts have none, numbers a few. Within a text Redis would not notice them. They can only
# be in the last write, so only the end of the file is looked at.

SECTOR_BYTES=512
LAST_WRITE_MAX_SECTORS=131072 # 64 MiB

for file in "$1"/*.incr.aof; do
    test -e "$file" || continue
    skipped=$(($(wc -c <"$file") / SECTOR_BYTES - LAST_WRITE_MAX_SECTORS))
    test "$skipped" -gt 0 || skipped=0
    torn=$(tail -c +$((skipped * SECTOR_BYTES + 1)) "$file" | od -A n -v -t x1 -w$SECTOR_BYTES |
        grep -n -m 1 -x '\( 00\)*' | cut -d : -f 1)
    test -z "$torn" || truncate -s $(((skipped + torn - 1) * SECTOR_BYTES)) "$file"
    # What is left ends within a transaction, or the file was never torn: then this changes nothing.
    yes | redis-check-aof --fix "$file"
done
