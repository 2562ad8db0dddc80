#!/usr/bin/env bash
# Compares Keva's Raft with another implementation: see --help.
# Needs Rust.
set -euo pipefail

usage() {
    cat <<'TEXT'
Usage: scripts/oracle.sh [OPTIONS]

Runs Keva's Raft and the crate `raft` side by side through the same random situations, and compares votes,
answers to appends, roles, terms, logs and commit indexes. Building the other implementation takes a minute
or two, so this is not part of scripts/check.sh.

Options:
  --schedules N  random lives of a cluster, each with 40 events [default: 3000]
  --seed N       the first schedule's number [default: 1]
  -h, --help     print this
TEXT
}

usage_error() {
    printf 'oracle.sh: %s; see scripts/oracle.sh --help\n' "$1" >&2
    exit 2
}

while (($# > 0)); do
    case $1 in
    -h | --help)
        usage
        exit
        ;;
    --schedules | --seed)
        (($# > 1)) || usage_error "$1 takes a number"
        [[ $2 =~ ^[0-9]{1,18}$ ]] || usage_error "$1 takes a number, not '$2'"
        if [[ $1 == --seed ]]; then export KEVA_ORACLE_SEED=$2; else export KEVA_ORACLE_SCHEDULES=$2; fi
        shift
        ;;
    *) usage_error "there is no option $1" ;;
    esac
    shift
done

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
exec cargo test --locked --manifest-path tests/oracle/Cargo.toml --target-dir target/oracle -- --nocapture
