#!/usr/bin/env bash
# Compares what a node answers with what it says about itself: see --help.
# Needs Rust, curl, and Python 3 with venv; the first time also a network.
set -euo pipefail
# With CDPATH, cd may go elsewhere, and prints where.
unset CDPATH

usage() {
    cat <<'TEXT'
Usage: scripts/api.sh [OPTIONS]

Starts a cluster on this machine, reads the description of the HTTP API that it gives (/v1/openapi.json), and lets
Schemathesis (https://schemathesis.io) make requests of it: good ones, bad ones, and sequences of them. Every answer
must be what the description says: status, media type, header fields and body. What is malformed must be refused, and
nothing may end in a server error. The first half of a run uses all parameters, the second one only such as do not
exclude one another; then nothing that is well-formed may be refused as malformed.

Not asked for: streams of changes with GET (they have no end; HEAD is asked for), waits of more than 20 ms, timeouts
of less than 4 s.

Schemathesis is installed from PyPI the first time, into target/api, in the version that tests/api/requirements.txt
names.

Exit code: 0 when nothing was wrong, 1 when something was, 2 for wrong usage, 3 when Schemathesis cannot be had.

Options:
  --nodes N       how many nodes, 1 to 9 [default: 3]
  --seed S        a whole number; the same one makes the same requests of the same answers [default: 1]
  --seeds N       that many runs, with the seeds from S on [default: 1]
  --examples N    at most so many cases for each operation and kind of test [default: 15]
  --minutes M     each half of a run ends after this time at the latest, a whole number [default: 5]
  -h, --help      print this

Environment:
  KEVA_BIN        the program to run, instead of building one

Examples:
  scripts/api.sh
  scripts/api.sh --seeds 10 --examples 300 --minutes 30
TEXT
}

die() {
    printf 'api.sh: %s\n' "$1" >&2
    exit "${2:-1}"
}

nodes=3
seed=1
seeds=1
examples=15
minutes=5
while (($# > 0)); do
    case $1 in
    -h | --help)
        usage
        exit
        ;;
    --nodes | --seed | --seeds | --examples | --minutes)
        (($# > 1)) || die "$1 takes a value; see scripts/api.sh --help" 2
        [[ $2 =~ ^[1-9][0-9]{0,8}$ ]] || die "$1 takes a whole number from 1 on, not '$2'; see scripts/api.sh --help" 2
        declare "${1#--}=$2"
        shift
        ;;
    *) die "there is no option $1; see scripts/api.sh --help" 2 ;;
    esac
    shift
done
((nodes <= 9)) || die "--nodes takes 1 to 9, not '$nodes'; see scripts/api.sh --help" 2

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
root=$PWD
target=$(realpath -m -- "${CARGO_TARGET_DIR:-target}")
readonly root target

# Sets `schemathesis` to the program, in the version that is asked for.
install_schemathesis() {
    local home=$target/api/venv wanted=$root/tests/api/requirements.txt
    schemathesis=$home/bin/schemathesis
    if [[ -x $schemathesis ]] && cmp --silent -- "$wanted" "$home/installed.txt"; then
        return
    fi
    command -v python3 >/dev/null || die "python3 is missing; install it (apt-get install python3 python3-venv)" 3
    rm -rf -- "$home"
    mkdir -p -- "$target/api"
    python3 -m venv -- "$home" || die "python3 cannot make a virtual environment (apt-get install python3-venv)" 3
    "$home/bin/pip" install --quiet --disable-pip-version-check --retries 1 --timeout 10 --requirement "$wanted" ||
        die "Schemathesis cannot be installed; is there a network, and is PyPI reached?" 3
    cp -- "$wanted" "$home/installed.txt"
}

# Stops the nodes by the ids that cluster.sh has kept, and removes what they wrote.
clean_up() {
    local code=$?
    if [[ -f $scratch/cluster/cluster ]]; then
        scripts/cluster.sh --dir "$scratch/cluster" down >/dev/null || true
    fi
    if ((code == 0)); then
        rm -rf -- "$scratch"
    else
        printf 'api.sh: what was printed is in %s\n' "$scratch" >&2
    fi
}

# One half of a run: with a seed, and all parameters or only such as do not exclude one another (see hooks.py).
run() {
    local log=$scratch/seed-$1-$2.log code=0 unchecked=()
    if [[ $2 == all ]]; then unchecked=(--exclude-checks positive_data_acceptance); fi
    (
        cd -- "$scratch"
        export KEVA_SEED=$1 KEVA_PARAMETERS=$2 SCHEMATHESIS_HOOKS=$root/tests/api/hooks.py
        timeout --signal INT --kill-after 30 "${minutes}m" "$schemathesis" \
            --config-file "$root/tests/api/schemathesis.toml" --no-color run "$url/v1/openapi.json" \
            --seed "$1" --max-examples "$examples" --continue-on-failure ${unchecked[@]+"${unchecked[@]}"}
    ) >"$log" 2>&1 || code=$?
    if ((code == 124)); then
        die "seed $1 took longer than $minutes minutes; see --minutes and --examples"
    fi
    if ((code != 0)); then
        # Not in full: requests may be long.
        cut -c 1-300 -- "$log" >&2
        die "seed $1: a request was not answered as /v1/openapi.json says"
    fi
    local line
    line=$(grep -E --max-count 1 '^  [0-9]+ generated' -- "$log") || die "seed $1: nothing was asked; see $log"
    printf 'seed %s, parameters %s: %s cases, no failure\n' "$1" "$2" "$(grep -oE --max-count 1 '[0-9]+' <<<"$line" | head -n 1)"
}

install_schemathesis
scratch=$(mktemp -d -- "$target/api/run-XXXXXX")
trap clean_up EXIT
trap 'exit 130' INT TERM
# An address of its own, so that it does not meet a cluster that somebody tries out, or another check.
address=127.$((RANDOM % 254 + 1)).$((RANDOM % 256)).$((RANDOM % 254 + 1))
scripts/cluster.sh --dir "$scratch/cluster" --address "$address" up "$nodes" >"$scratch/cluster.log" 2>&1 || {
    cat -- "$scratch/cluster.log" >&2
    die "the cluster does not start"
}
url=http://$address:8380
for ((one = seed; one < seed + seeds; one++)); do
    run "$one" all
    run "$one" apart
done
