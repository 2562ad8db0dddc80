#!/usr/bin/env bash
# Kills, pauses and cuts off nodes of a cluster on this machine while clients use it: see --help.
# Needs Rust, setsid (util-linux) and Linux's /proc.
set -euo pipefail
# With CDPATH, cd may go elsewhere, and prints where.
unset CDPATH

usage() {
    cat <<'TEXT'
Usage: scripts/chaos.sh [OPTIONS]

Builds the release program and runs rounds of chaos against a cluster of real processes on this machine:
clients read, write, compare-and-set and watch on all nodes while nodes are killed, paused and stopped and their
links fail, all drawn from a seed. At the end of each round the faults stop, and then: every node must be
ready within 30 seconds, every acknowledged write must be there exactly once, the history of what the
clients were told must be linearizable, and every client that follows keys, and goes on at another node
whenever its stream ends, must have got the events of all writes, in order, each once, and no others.
Prints a line per round, and the sums at the end.

Exit code: 0 when nothing was wrong, 1 when something was (the cluster's files are kept then), 2 for
wrong usage. Ctrl-C ends the run after the current round, with all checks.

Options:
  --nodes 3|5          how many nodes [default: 3]
  --minutes M          no round begins later than this, such as 10 or 0.5 [default: 1]
  --seed S             a whole number; the same one draws the same faults [default: from the clock]
  --faults LIST        the kinds to draw from, separated by commas [default: all of them]:
                         kill       kill -9 of one node, a minority, a majority or all
                         pause      SIGSTOP and SIGCONT, 0.1 to 10 times the wait time
                         terminate  SIGTERM and a start
                         delay      a node's links deliver late
                         oneway     what a node sends, or is sent, does not arrive
                         split      the nodes fall into two groups
                         stall      a node's links deliver in small pieces
                         isolate    a node reaches nobody
                         break      a node's connections break
  --wait-time MS       the nodes' wait_time in milliseconds, 50 to 60000 [default: 500]
  --directory DIR      the nodes' data goes into a new directory in DIR [default: target/tmp]
  -h, --help           print this

Environment:
  KEVA_BIN             the program to run, instead of building one

Examples:
  scripts/chaos.sh --minutes 10
  scripts/chaos.sh --nodes 5 --minutes 60 --seed 7 --faults kill,pause
TEXT
}

usage_error() {
    printf 'chaos.sh: %s; see scripts/chaos.sh --help\n' "$1" >&2
    exit 2
}

nodes=3
minutes=1
seed=$(date +%s)
faults=
wait_time=500
parent=
while (($# > 0)); do
    case $1 in
    -h | --help)
        usage
        exit
        ;;
    --nodes | --minutes | --seed | --faults | --wait-time | --directory)
        (($# > 1)) || usage_error "$1 takes a value"
        case $1 in
        --nodes) nodes=$2 ;;
        --minutes) minutes=$2 ;;
        --seed) seed=$2 ;;
        --faults) faults=$2 ;;
        --wait-time) wait_time=$2 ;;
        --directory)
            [[ -d $2 ]] || usage_error "there is no directory $2"
            parent=$(realpath -- "$2")
            ;;
        esac
        shift
        ;;
    *) usage_error "there is no option $1" ;;
    esac
    shift
done
[[ $nodes =~ ^[35]$ ]] || usage_error "--nodes takes 3 or 5, not '$nodes'"
[[ $minutes =~ ^[0-9]{1,6}(\.[0-9]{1,3})?$ ]] || usage_error "--minutes takes a number such as 10 or 0.5, not '$minutes'"
[[ $seed =~ ^[0-9]{1,18}$ ]] || usage_error "--seed takes a whole number, not '$seed'"
if [[ ! $wait_time =~ ^[1-9][0-9]{1,4}$ ]] || ((wait_time < 50 || wait_time > 60000)); then
    usage_error "--wait-time takes 50 to 60000 milliseconds, not '$wait_time'"
fi
kind='(kill|pause|terminate|delay|oneway|split|stall|isolate|break)'
[[ -z $faults || $faults =~ ^$kind(,$kind)*$ ]] || usage_error "there is a fault in '$faults' that does not exist"
command -v cargo >/dev/null || {
    printf 'chaos.sh: cargo is missing; install Rust\n' >&2
    exit 2
}
if [[ -n ${KEVA_BIN:-} ]]; then
    [[ -f $KEVA_BIN && -x $KEVA_BIN ]] || usage_error "KEVA_BIN=$KEVA_BIN is no program"
    KEVA_BIN=$(realpath -- "$KEVA_BIN")
fi

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
target=${CARGO_TARGET_DIR:-target}
if [[ -z ${KEVA_BIN:-} ]]; then
    cargo build --release --locked --bin keva
    KEVA_BIN=$(realpath -- "$target/release/keva")
fi
export KEVA_BIN
# The test program is run directly, not through cargo, so that it can be told to stop.
messages=$(cargo test --locked --test chaos --no-run --message-format=json)
[[ $messages =~ \"executable\":\"([^\"]*/chaos-[^\"/]*)\" ]] || {
    printf 'chaos.sh: cargo does not name the test program\n' >&2
    exit 1
}
harness=${BASH_REMATCH[1]}
mkdir -p -- "$target/tmp"
directory=$(mktemp -d -- "${parent:-$(realpath -- "$target/tmp")}/chaos-XXXXXX")
harness_pid=

# The test program ends its nodes by itself, unless it was killed. Only nodes with data in this run's directory are ours.
clean_up() {
    local process
    if [[ -n $harness_pid ]]; then kill -KILL "$harness_pid" 2>/dev/null || true; fi
    for process in /proc/[0-9]*; do
        if [[ $process/exe -ef $KEVA_BIN ]] && tr '\0' '\n' 2>/dev/null <"$process/cmdline" |
            grep -qF -- "$directory/"; then
            kill -KILL "${process#/proc/}" 2>/dev/null || true
        fi
    done
    # Kept when it holds what a violation left behind.
    rmdir -- "$directory" 2>/dev/null || printf 'chaos.sh: files are left in %s\n' "$directory" >&2
}
trap clean_up EXIT

# In a session of its own, so that Ctrl-C reaches this script and not the nodes.
CHAOS_NODES=$nodes CHAOS_MINUTES=$minutes CHAOS_SEED=$seed CHAOS_FAULTS=$faults CHAOS_WAIT_TIME_MS=$wait_time \
    CHAOS_DIRECTORY=$directory KEEP_TEST_CLUSTERS=1 \
    setsid "$harness" --ignored --exact long_chaos_loses_and_doubles_nothing --nocapture &
harness_pid=$!
trap 'printf "chaos.sh: stopping after this round\n" >&2; kill -TERM "$harness_pid" 2>/dev/null || true' INT TERM
status=0
# A signal ends the wait before the test program has ended.
while kill -0 "$harness_pid" 2>/dev/null; do
    status=0
    wait "$harness_pid" || status=$?
done
harness_pid=
((status == 0)) || exit 1
