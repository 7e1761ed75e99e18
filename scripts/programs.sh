#!/usr/bin/env bash
# The table of docs/benchmarks.md, "Programs": scripts/programs.sh [ROUNDS [SECONDS [RECORD]]]
#
# Runs nine programs with plain buffers, under three heaps, and with the pool, under two. In each
# round every variant runs once, in turn, so that a slow minute of the machine affects all variants.
# The table has the medians of the rounds, and the allocations of a separate run. By default 7 rounds
# of 2 s: half an hour. RECORD is a CSV file that gets a line for each measurement.
#
# mimalloc and jemalloc are Debian's libraries, loaded before the server's own heap; curl and wrk are
# clients of http_files, and memcached is the server of the program of that name. If they are missing,
# root gets them from apt-get. If that fails, a message says so: the heaps are left out, and code of
# the program's own replaces curl, wrk and memcached.
set -euo pipefail
cd "$(dirname "$0")/.."
rounds=${1:-7} seconds=${2:-2} record=${3:-}

cargo build --locked --release --quiet -p tierpool-lab --features peers
programs=${CARGO_TARGET_DIR:-target}/release

install() { # PACKAGE
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 0
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$1" >&2 || true
}
for peer in curl wrk memcached; do
    command -v "$peer" >/dev/null || install "$peer"
done

# Adds variants on another heap, if there is one.
heap() { # LIBRARY PACKAGE MODE...
    local found library=$1
    find_it() { PATH=$PATH:/sbin:/usr/sbin ldconfig -p | sed -n "s/^.*$library.* => //p" | head -n 1; }
    found=$(find_it)
    if [ -z "$found" ]; then
        install "$2"
        found=$(find_it)
    fi
    if [ -z "$found" ]; then
        echo "$library is MISSING and cannot be installed: it is left out" >&2
        return
    fi
    for mode in "${@:3}"; do
        variants+=("$mode+$found")
    done
}
variants=(plain pool)
heap libmimalloc.so libmimalloc2.0 plain pool
heap libjemalloc.so libjemalloc2 plain

lines=$(mktemp)
trap 'rm "$lines"' EXIT
table='' words=''
for program in frames http_files limits log_pipeline memcached proxy requests udp_fanout workers; do
    echo "$program" >&2
    result=$("$programs/$program" --rounds "$rounds" --seconds "$seconds" --rest 10 \
        --record "$lines" "${variants[@]}")
    table+=$(grep '^|' <<<"$result")$'\n'
    words+=$(grep -v '^|' <<<"$result")$'\n'
done

if [ -n "$record" ]; then
    commit=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)
    cpu=$(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1)
    columns=program,mode,heap,round,per_s,cpu_us,user_us,p50_us,p99_us,faults,peak_mib,rest_mib,allocations
    [ -e "$record" ] || echo "commit,cpu,$columns" >"$record"
    sed "s/^/$commit,\"$cpu\",/" "$lines" >>"$record"
fi

echo
echo "$rounds rounds of $seconds s, medians: plain/pool. CPU time, page faults and allocations are per unit."
echo
echo '| | per second | CPU µs | faults | allocations | MiB, peak | 10 s later |'
echo '|---|---|---|---|---|---|---|'
printf '%s\n%s' "$table" "$words"
