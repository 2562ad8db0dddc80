#!/usr/bin/env bash
# Tests the simulator: every planted bug must be found. See --help.
# Needs Rust.
set -euo pipefail

usage() {
    cat <<'TEXT'
Usage: scripts/mutants.sh [OPTIONS] [BUG...]

Builds Keva with planted bugs, switches on one after the other (all of them, or those named), and lets the
simulator look for it. Prints how many seeds each one took, and fails if one is not found.

Options:
  --seeds N    seeds per bug at most [default: 5000]
  --start N    the first of them [default: 1]
  --list       print the names of the bugs
  -h, --help   print this
TEXT
}

usage_error() {
    printf 'mutants.sh: %s; see scripts/mutants.sh --help\n' "$1" >&2
    exit 2
}

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

all_bugs() {
    grep -rhoE 'mutant\("[a-z-]+"\)' src | sed -E 's/.*"(.*)".*/\1/' | sort -u
}

seeds=5000
start=1
bugs=()
while (($# > 0)); do
    case $1 in
    -h | --help)
        usage
        exit
        ;;
    --list)
        all_bugs
        exit
        ;;
    --seeds | --start)
        (($# > 1)) || usage_error "$1 takes a value"
        [[ $2 =~ ^[0-9]+$ ]] || usage_error "$1 takes a number, not $2"
        if [[ $1 == --seeds ]]; then seeds=$2; else start=$2; fi
        shift
        ;;
    -*) usage_error "there is no option $1" ;;
    *) bugs+=("$1") ;;
    esac
    shift
done
if ((${#bugs[@]} == 0)); then
    mapfile -t bugs < <(all_bugs)
fi

# A directory of its own: other flags mean that every dependency is compiled again.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/mutants
export RUSTFLAGS="${RUSTFLAGS:-} --cfg keva_mutation"
simulation() {
    cargo test --locked --quiet --profile sim --test simulation -- "$@"
}

cargo test --locked --quiet --profile sim --test simulation --no-run
missed=()
printf '%-32s %6s  %s\n' bug seeds 'what was noticed'
for bug in "${bugs[@]}"; do
    output=$(simulation --mutant "$bug" --start "$start" --seeds "$seeds" 2>&1) || true
    count=$(sed -nE 's/^caught after ([0-9]+) seeds$/\1/p' <<<"$output")
    notice=$(sed -n '/^FAILED/{n;s/^ *//;p;q}' <<<"$output")
    printf '%-32s %6s  %.110s\n' "$bug" "${count:-none}" "$notice"
    [[ -n $count ]] || missed+=("$bug")
done
if ((${#missed[@]} > 0)); then
    printf 'mutants.sh: not found in %d seeds: %s\n' "$seeds" "${missed[*]}" >&2
    exit 1
fi
printf 'all %d bugs were found\n' "${#bugs[@]}"
