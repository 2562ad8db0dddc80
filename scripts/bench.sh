#!/usr/bin/env bash
# Measures a cluster of three nodes on this machine: see --help.
# Needs Rust, Linux's /proc, and ss (iproute2) to count the messages between nodes.
set -euo pipefail
# With CDPATH, cd may go elsewhere, and prints where.
unset CDPATH

usage() {
    cat <<'TEXT'
Usage: scripts/bench.sh [OPTIONS]

Builds the release program, starts clusters of three nodes on this machine, and prints a report: requests
per second and what they cost, latency against the disk's own, the cost of being idle, the pauses of
clients when the leader goes, and sizes. Takes about five minutes. The nodes and the clients share the
machine's processors; let nothing else run.

Options:
  --only PARTS         some of: throughput,latency,idle,failover,size [default: these],
                       growth,keys,rejoin,amplification,listing,watchers
  --seconds N          seconds per measurement under load [default: 10]
  --idle-seconds N     seconds per measurement without requests [default: 60]
  --connections N      client connections for the throughput [default: 64]
  --value-bytes N      length of the values in bytes [default: 256]
  --overwrites N       of growth: how many overwrites [default: 1000000]
  --overwritten-keys N of growth: of how many keys [default: 1000]
  --keys N             of keys, rejoin, amplification and listing: how many keys [default: 1000000]
  --key-value-bytes N  of keys, rejoin and listing: length of their values in bytes [default: 100]
  --watchers N         of watchers: clients that follow keys that nobody writes [default: 5000]. Each
                       needs an open file here and in the node: see ulimit -Hn
  --followers N        of watchers: clients who all see every write [default: 1000]
  --rounds N           how often the leader is killed, and how often it is asked to stop [default: 20]
  --directory DIR      the nodes' data goes into a new directory in DIR, so this chooses the disk that
                       is measured [default: target/tmp]
  -h, --help           print this

Examples:
  scripts/bench.sh --only throughput,latency --seconds 5
  scripts/bench.sh --only failover --directory /mnt/sdcard
TEXT
}

usage_error() {
    printf 'bench.sh: %s; see scripts/bench.sh --help\n' "$1" >&2
    exit 2
}

arguments=()
while (($# > 0)); do
    case $1 in
    -h | --help)
        usage
        exit
        ;;
    --only | --seconds | --idle-seconds | --connections | --value-bytes | --rounds | \
        --overwrites | --overwritten-keys | --keys | --key-value-bytes | --watchers | --followers)
        (($# > 1)) || usage_error "$1 takes a value"
        arguments+=("$1" "$2")
        shift
        ;;
    --directory)
        (($# > 1)) || usage_error "$1 takes a value"
        [[ -d $2 ]] || usage_error "there is no directory $2"
        arguments+=("$1" "$(realpath -- "$2")")
        shift
        ;;
    *) usage_error "there is no option $1" ;;
    esac
    shift
done

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
exec cargo bench --locked --quiet --bench load -- "${arguments[@]}"
