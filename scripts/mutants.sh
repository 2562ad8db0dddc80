#!/usr/bin/env bash
# Tests the tests: every planted bug must be found. See --help.
# Needs Rust.
set -euo pipefail
# With CDPATH, cd may go elsewhere, and prints where.
unset CDPATH

usage() {
    cat <<'TEXT'
Usage: scripts/mutants.sh [OPTIONS] [BUG...]
       scripts/mutants.sh --seed N [--trace | --shrink] [OPTIONS] BUG

Builds Keva with planted bugs, switches on one after the other (all of them, or those named), and lets the
simulator, and for a few bugs other tests, look for it. Prints how many seeds each one took, and fails if one is not
found. With --seed, shows
what one bug does in one run.

Options:
  --seeds N    seeds per bug at most [default: 5000]
  --start N    the first of them [default: 1]
  --jobs N     how many bugs at a time [default: 2]
  --quick      leave out the bugs that take very many seeds
  --list       print the names of the bugs
  --seed N     run this seed only, with one bug
  --trace      with --seed: print all that happens
  --shrink     with --seed: look for fewer faults, operations, users, keys and nodes that fail too
  --with KIND, --without KIND, --nodes N, --users N, --keys N, --operations N
               as for scripts/sim.sh, instead of what is advised for a bug
  -h, --help   print this
TEXT
}

usage_error() {
    printf 'mutants.sh: %s; see scripts/mutants.sh --help\n' "$1" >&2
    exit 2
}

# What brings out a bug that is rare otherwise.
advice_for() {
    case $1 in
    any-answer-confirms-reads) echo --with Echo ;;
    campaign-outlives-candidacy) echo --with Falter --with Storm ;;
    esac
}

# Bugs that take too many seeds for a check that runs every day.
readonly SLOW='any-answer-confirms-reads deleted-key-comes-back incarnation-not-raised match-may-regress
    read-joins-sent-round snapshot-keeps-nothing-aside start-not-counted'

# Tests that find bugs which the simulator does not, or hardly ever: they need an order of events that is too rare.
tests_for() {
    case $1 in
    chunk-of-another-snapshot | snapshot-answer-before-sync) echo raft_stories raft_tables ;;
    loss-not-told | roll-back-answer-before-sync | suspect-votes-count | voter-before-sync) echo raft_stories ;;
    gap-behind-snapshot-accepted | log-begun-before-snapshot | log-kept-over-conflict | snapshot-before-hard-state | \
        start-over-keeps-terms)
        echo storage_snapshots storage_snapshot_damage storage_model
        ;;
    bad-draft-kept) echo storage_snapshot_space ;;
    moved-before-standing) echo storage_repair ;;
    append-without-bound | count-misses-changes | expire-early | logical-time-goes-back | transaction-reads-around-itself) echo kv ;;
    bookmark-too-early | dump-and-event-both | id-before-sync | id-on-every-event-of-a-transaction | \
        reset-without-later-keys | watch-*)
        echo watch
        ;;
    recycled-keeps-salt) echo storage_reuse ;;
    reserve-used-by-growth) echo storage_full ;;
    clock-keeps-to-earlier-leader | clock-never-set-back | clock-reset-by-snapshot | expiry-proposed-again | history-outlives-snapshot | \
        key-outlives-client | life-rounded-down | time-not-written | time-stops-between-leaders | \
        serves-before-admission | time-told-before-office | time-written-for-nothing | upkeep-taken-from-others)
        echo replica
        ;;
    void-segments-count) echo storage_snapshots ;;
    esac
}

all_bugs() {
    grep -rhoE 'mutant\("[a-z-]+"\)' src | sed -E 's/.*"(.*)".*/\1/' | sort -u
}

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
seeds=5000 start=1 jobs=2 quick=0
bugs=() seed=() showing=() plan=()
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
    --quick) quick=1 ;;
    --trace | --shrink) showing+=("$1") ;;
    --with | --without)
        (($# > 1)) || usage_error "$1 takes a value"
        plan+=("$1" "$2")
        shift
        ;;
    --seeds | --start | --jobs | --seed | --nodes | --users | --keys | --operations)
        (($# > 1)) || usage_error "$1 takes a value"
        [[ $2 =~ ^[0-9]{1,18}$ ]] || usage_error "$1 takes a number, not $2"
        case $1 in
        --seeds) seeds=$2 ;;
        --start) start=$2 ;;
        --jobs) jobs=$2 ;;
        --seed) seed=("$1" "$2") ;;
        *) plan+=("$1" "$2") ;;
        esac
        shift
        ;;
    -*) usage_error "there is no option $1" ;;
    *)
        all_bugs | grep -qxF -- "$1" || usage_error "there is no bug $1"
        bugs+=("$1")
        ;;
    esac
    shift
done
((jobs > 0)) || usage_error "--jobs takes at least 1"
((${#seed[@]} == 0 || ${#bugs[@]} == 1)) || usage_error "--seed takes one bug"
((${#showing[@]} == 0 || ${#seed[@]} > 0)) || usage_error "${showing[0]} goes with --seed"
if ((${#bugs[@]} == 0)); then
    for bug in $(all_bugs); do
        if ((quick)) && grep -qwF -- "$bug" <<<"$SLOW"; then
            continue
        fi
        bugs+=("$bug")
    done
fi

# A directory of its own: other flags mean that every dependency is compiled again.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/mutants
export RUSTFLAGS="${RUSTFLAGS:-} --cfg keva_mutation"
# Where cargo has put the program of a test.
program_of() {
    local build=(cargo test --locked --quiet --profile sim --test "$1" --no-run) program
    "${build[@]}"
    program=$("${build[@]}" --message-format=json | sed -nE "s/.*\"executable\":\"([^\"]*\/$1-[^\"]*)\".*/\1/p")
    [[ -x $program ]] || {
        printf 'mutants.sh: cargo does not say where the program of %s is: %s\n' "$1" "$program" >&2
        exit 1
    }
    echo "$program"
}
simulation=$(program_of simulation)

if ((${#seed[@]} > 0)); then
    exec "$simulation" --mutant "${bugs[0]}" "${seed[@]}" "${plan[@]}" "${showing[@]}"
fi

declare -A programs=()
for bug in "${bugs[@]}"; do
    for test in $(tests_for "$bug"); do
        [[ -n ${programs[$test]:-} ]] || programs[$test]=$(program_of "$test")
    done
done

results=$(mktemp -d)
trap 'rm -rf -- "$results"' EXIT
look_for() {
    local advice=("${plan[@]}") test
    for test in $(tests_for "$1"); do
        if ! KEVA_MUTANT=$1 "${programs[$test]}" >"$results/$1" 2>&1; then
            printf 'found by: %s\n' "$test" >>"$results/$1"
            return 0
        fi
    done
    [[ -z $(tests_for "$1") ]] || return 0
    ((${#advice[@]} > 0)) || read -ra advice < <(advice_for "$1" && echo)
    "$simulation" --mutant "$1" --start "$start" --seeds "$seeds" "${advice[@]}" >"$results/$1" 2>&1
}
for bug in "${bugs[@]}"; do
    while (($(jobs -rp | wc -l) >= jobs)); do
        wait -n || true
    done
    look_for "$bug" &
done
wait || true

missed=()
printf '%-32s %6s  %s\n' bug seeds 'what was noticed'
for bug in "${bugs[@]}"; do
    if [[ -n $(tests_for "$bug") ]]; then
        found=$(sed -nE 's/^found by: (.*)$/\1/p' "$results/$bug")
        printf '%-32s %6s  %.110s\n' "$bug" "$([[ -n $found ]] && echo - || echo none)" "${found:+test $found: }$(grep -m 1 -A 1 ' panicked at ' "$results/$bug" | tail -n 1)"
        [[ -n $found ]] || missed+=("$bug")
        continue
    fi
    # The last line of a run that came to its end, whatever that was.
    if ! grep -q '^per core: ' "$results/$bug"; then
        printf 'mutants.sh: with %s the simulator broke off:\n' "$bug" >&2
        tail -n 20 "$results/$bug" >&2
        exit 1
    fi
    count=$(sed -nE 's/^caught after ([0-9]+) seeds$/\1/p' "$results/$bug")
    notice=$(sed -n '/^FAILED/{n;s/^ *//;p;q}' "$results/$bug")
    printf '%-32s %6s  %.110s\n' "$bug" "${count:-none}" "$notice"
    [[ -n $count ]] || missed+=("$bug")
done
if ((${#missed[@]} > 0)); then
    printf 'mutants.sh: not found in %d seeds: %s\n' "$seeds" "${missed[*]}" >&2
    exit 1
fi
printf 'all %d bugs were found\n' "${#bugs[@]}"
