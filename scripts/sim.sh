#!/usr/bin/env bash
# Simulates whole clusters with every kind of fault: see --help.
# Needs Rust.
set -euo pipefail

usage() {
    cat <<'TEXT'
Usage: scripts/sim.sh [OPTIONS]

Runs clusters of one to seven nodes in virtual time: the real protocol, storage, frames and HTTP code over a
network and disks that fail in every way. One number, the seed, decides everything that happens. Stops at the
first seed that breaks a promise of Keva and says how to see it again.

Options:
  --seeds N        how many seeds to run [default: 2000]
  --start N        the first of them [default: some new number]
  --jobs N         how many at a time [default: 2]
  --marks          fail if one of the rare things that are counted was never seen; takes some thousand seeds
  --seed N         run this seed only
  --trace          with --seed: print all that happens
  --shrink         with --seed: look for fewer faults, operations, users, keys and nodes that fail too
  --with KIND, --without KIND
                   switch a kind of fault on or off: Delay Loss Reset Cut Narrow Partition OneWay Drift Leap
                   Pause Kill PowerCut CrashPoint CrashAll RecoveryCrash Torn SyncError DiskFull Rot SlowDisk
                   Stop HangUp Large Storm Wipe Echo Falter Freeze Misdirect RollBack Bulk Lag;
                   or a kind of load: Rich (counters, appends, transactions, prefixes), Lives (keys that
                   expire), Repeats (idempotency keys), Lists (listings), Follow (watches, long polls)
  --nodes N, --users N, --keys N, --operations N
                   instead of what the seed says
  -h, --help       print this

Examples:
  scripts/sim.sh --seeds 20000 --marks
  scripts/sim.sh --seed 4711 --without Rot --trace
TEXT
}

usage_error() {
    printf 'sim.sh: %s; see scripts/sim.sh --help\n' "$1" >&2
    exit 2
}

arguments=()
seeds=(--seeds 2000)
jobs=(--jobs 2)
while (($# > 0)); do
    case $1 in
    -h | --help)
        usage
        exit
        ;;
    --trace | --shrink | --marks) arguments+=("$1") ;;
    --seeds | --jobs | --start | --seed | --with | --without | --nodes | --users | --keys | --operations)
        (($# > 1)) || usage_error "$1 takes a value"
        case $1 in
        --seeds) seeds=("$1" "$2") ;;
        --jobs) jobs=("$1" "$2") ;;
        *) arguments+=("$1" "$2") ;;
        esac
        shift
        ;;
    *) usage_error "there is no option $1" ;;
    esac
    shift
done

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
exec cargo test --locked --quiet --profile sim --test simulation -- \
    "${seeds[@]}" "${jobs[@]}" ${arguments[@]+"${arguments[@]}"}
