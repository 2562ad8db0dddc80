#!/usr/bin/env bash
# Drives everything that reads bytes from outside with random input: see --help.
# Needs Rust.
set -euo pipefail

usage() {
    cat <<'TEXT'
Usage: scripts/fuzz.sh [OPTIONS]

Builds the tests of the decoders with optimization and runs them for long: HTTP requests, frames and
greetings of peers, log entries, commands, configuration files, and working directories that were
damaged or forged. Prints how often each was run. A failure prints how to repeat it.

Options:
  --executions N  inputs for all decoders together [default: 10000000]
  --seed N        where the generator starts; another seed gives other inputs [default: the time]
  -h, --help      print this

Examples:
  scripts/fuzz.sh --executions 100000000
TEXT
}

usage_error() {
    printf 'fuzz.sh: %s; see scripts/fuzz.sh --help\n' "$1" >&2
    exit 2
}

executions=10000000
seed=$(date +%s)
while (($# > 0)); do
    case $1 in
    -h | --help)
        usage
        exit
        ;;
    --executions | --seed)
        (($# > 1)) || usage_error "$1 takes a number"
        [[ $2 =~ ^[0-9]{1,18}$ ]] || usage_error "$1 takes a number, not '$2'"
        if [[ $1 == --seed ]]; then seed=$2; else executions=$2; fi
        shift
        ;;
    *) usage_error "there is no option $1" ;;
    esac
    shift
done

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
# Each execution takes one seed, so runs with neighbouring seeds begin far apart.
KEVA_FUZZ_SEED=$((seed % 1000000 * 1000000000000))
KEVA_FUZZ_EXECUTIONS=$executions
export KEVA_FUZZ_SEED KEVA_FUZZ_EXECUTIONS
printf '%d executions from seed %d\n' "$executions" "$seed"
# Link-time optimization would take longer than it saves.
export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16
exec cargo test --locked --release --test decoders -- --nocapture --test-threads 1
