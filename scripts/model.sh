#!/usr/bin/env bash
# Explores every state that small clusters can reach: see --help.
# Needs Rust.
set -euo pipefail

usage() {
    cat <<'TEXT'
Usage: scripts/model.sh [OPTIONS] [SCENARIO]...

Explores every state that small clusters of Keva's Raft can reach while messages are lost, repeated and
reordered and nodes crash, and checks in each that the rules of the protocol hold. Prints how many states
there were. Then plants known bugs, one after the other, and checks that each is found. Takes several
minutes and up to 4 GiB of memory.

Options:
  --short      only the smallest scenarios, without planted bugs
  --mutants    only the planted bugs
  --seconds N  give up a scenario after this time [default: 3600]
  -h, --help   print this

Scenarios: see tests/model/scenarios.rs. Without any, all are explored.
TEXT
}

usage_error() {
    printf 'model.sh: %s; see scripts/model.sh --help\n' "$1" >&2
    exit 2
}

# A planted bug, and the scenario that must find it.
readonly MUTANTS=(
    "vote-before-sync elections-1"
    "up-to-date-by-index longer-log"
    "ack-before-sync elections-2"
    "commit-old-term figure-8"
    "read-before-own-commit reads-new"
    "no-noop reads-new"
    "read-joins-sent-round reads"
    "read-round-is-request reads-again"
    "conflicting-log-kept snapshot"
)

short=false proofs=true mutants=true seconds=3600 scenarios=()
while (($# > 0)); do
    case $1 in
    -h | --help)
        usage
        exit
        ;;
    --short) short=true ;;
    --mutants) proofs=false ;;
    --seconds)
        (($# > 1)) || usage_error "$1 takes a number"
        [[ $2 =~ ^[0-9]{1,6}$ ]] || usage_error "$1 takes a number, not '$2'"
        seconds=$2
        shift
        ;;
    -*) usage_error "there is no option $1" ;;
    *)
        scenarios+=("$1")
        mutants=false
        ;;
    esac
    shift
done

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
build=(cargo build --locked --quiet --manifest-path tests/model/Cargo.toml)
if $short; then
    # Shares what the other tests have compiled.
    target=$(realpath -m -- "${CARGO_TARGET_DIR:-target}")
    "${build[@]}" --target-dir "$target"
    exec "$target/debug/model" --short
fi
# Planted bugs are in the program only with this.
RUSTFLAGS="${RUSTFLAGS:-} --cfg keva_mutation" "${build[@]}" --target-dir target/model
model=target/model/debug/model
if $proofs; then
    "$model" --seconds "$seconds" "${scenarios[@]}"
fi
if $mutants; then
    for pair in "${MUTANTS[@]}"; do
        read -r mutant scenario <<<"$pair"
        printf '%-24s ' "$mutant"
        if ! found=$("$model" --mutant "$mutant" --seconds "$seconds" "$scenario"); then
            printf '%s\nmodel.sh: the planted bug %s was not found\n' "$found" "$mutant" >&2
            exit 1
        fi
        # How long it took, and what was broken; the path that leads there is behind that.
        printf '%s\n' "$found" | sed -n '1{N;s/\n */: /p}'
    done
fi
