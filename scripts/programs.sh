#!/usr/bin/env bash
# The table of docs/benchmarks.md, "Programs": scripts/programs.sh [ROUNDS [SECONDS]]
#
# Runs two servers with plain buffers, under three heaps, and with the pool. In each round every
# variant runs once, in turn, so that a slow minute of the machine affects all variants. The table
# has the medians of the rounds, and the allocations of a separate run. By default 7 rounds of 4 s.
#
# mimalloc and jemalloc are Debian's libraries, loaded before the server's own heap. If they are
# missing, root gets them from apt-get. If that fails, their columns are left out.
set -euo pipefail
cd "$(dirname "$0")/.."
rounds=${1:-7} seconds=${2:-4}

cargo build --locked --release --quiet -p tierpool-lab
programs=${CARGO_TARGET_DIR:-target}/release

# Prints the path of a shared library, or nothing.
library() { # NAME PACKAGE
    local cache
    cache=$(PATH=$PATH:/sbin:/usr/sbin ldconfig -p)
    if ! grep -q "$1" <<<"$cache" && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$2" >&2 || true
        cache=$(PATH=$PATH:/sbin:/usr/sbin ldconfig -p)
    fi
    sed -n "s/^.*$1.* => //p" <<<"$cache" | head -n 1
}
mimalloc=$(library libmimalloc.so libmimalloc2.0)
jemalloc=$(library libjemalloc.so libjemalloc2)

# Each variant has a name, a mode, and optionally a library.
variants=("plain|plain|")
if [ -n "$mimalloc" ]; then
    variants+=("plain, mimalloc|plain|$mimalloc")
else
    echo "libmimalloc is missing and cannot be installed: its columns are left out" >&2
fi
if [ -n "$jemalloc" ]; then
    variants+=("plain, jemalloc|plain|$jemalloc")
else
    echo "libjemalloc is missing and cannot be installed: its column is left out" >&2
fi
variants+=("pool|pool|")
if [ -n "$mimalloc" ]; then
    variants+=("pool, mimalloc|pool|$mimalloc")
fi

results=$(mktemp)
trap 'rm "$results"' EXIT

# Runs one variant, and prints its numbers as lines of PROGRAM, VARIANT, KEY and NUMBER.
measure() { # PROGRAM VARIANT OPTION...
    local program=$1 name mode preload line
    IFS='|' read -r name mode preload <<<"$2"
    shift 2
    line=$("$programs/$program" "$mode" ${preload:+--preload "$preload"} "$@")
    printf '%-16s %s\n' "$name" "$line" >&2
    for pair in $line; do
        printf '%s|%s|%s|%s\n' "$program" "$name" "${pair%%=*}" "${pair#*=}"
    done >>"$results"
}

for program in frames files; do
    for variant in "${variants[@]}"; do
        # Counting slows this run down, so its other numbers are not used.
        measure "$program" "$variant" --seconds 1 --count 2> >(sed 's/^/counted: /' >&2)
        sed -i "/|allocations|/!{/^$program|${variant%%|*}|/d}" "$results"
    done
    for ((round = 0; round < rounds; round++)); do
        # Each round begins with a different variant.
        for ((at = 0; at < ${#variants[@]}; at++)); do
            measure "$program" "${variants[(at + round) % ${#variants[@]}]}" --seconds "$seconds"
        done
    done
done

median() { # PROGRAM VARIANT KEY
    awk -F'|' -v p="$1" -v v="$2" -v k="$3" '$1 == p && $2 == v && $3 == k { print $4 }' "$results" |
        sort -g | awk '{ all[NR] = $1 } END { print (all[int((NR + 1) / 2)] + all[int(NR / 2) + 1]) / 2 }'
}

printf '\n%s rounds of %s s, medians.\n' "$rounds" "$seconds"
for program in frames files; do
    unit=$([ "$program" = frames ] && echo frame || echo response)
    printf '\n| %s |' "$program"
    for variant in "${variants[@]}"; do printf ' %s |' "${variant%%|*}"; done
    printf '\n|---|'
    for variant in "${variants[@]}"; do printf -- '---|'; done
    printf '\n'
    while IFS='|' read -r key label format; do
        printf '| %s |' "${label/UNIT/$unit}"
        for variant in "${variants[@]}"; do
            # shellcheck disable=SC2059 # the format comes from the table below
            printf " $format |" "$(median "$program" "${variant%%|*}" "$key")"
        done
        printf '\n'
    done <<'ROWS'
per_s|UNITs per second|%.0f
cpu_us|server CPU per UNIT, µs|%.2f
user_us|of it outside the kernel, µs|%.2f
p50_us|latency, median, µs|%.0f
p99_us|latency, p99, µs|%.0f
peak_mib|memory at the peak, MiB|%.1f
rest_mib|memory 3 s after the load, MiB|%.1f
allocations|allocations per UNIT|%.3f
ROWS
done
