#!/usr/bin/env bash
# Cuts the power under Keva's storage, hundreds of times: see --help.
# Needs Rust, Linux, root, FUSE, loop devices and ext4.
set -euo pipefail
# With CDPATH, cd may go elsewhere, and prints where.
unset CDPATH

usage() {
    cat <<'TEXT'
Usage: scripts/powercut.sh [OPTIONS]

Runs Keva's storage on a real ext4 file system over a disk that records every write and every flush. Then
cuts the power at hundreds of moments: what was flushed before is kept, of everything after it a random
part, some of it torn. Mounts each image that a cut leaves, opens the storage, and checks that every
promise made before the cut holds and that the storage goes on working.

Mounts only below a scratch directory of its own, and undoes all of it at its end. Without root, FUSE or
loop devices it says SKIPPED and does nothing.

Options:
  --images N    how many images to inspect [default: 600; for each planted bug at most 6000]
  --seed N      the number of the first life [default: 1]
  --mutants     plant known bugs, one after the other, and check that each is found
  --mutant BUG  plant this one only; their names: scripts/mutants.sh --list
  -h, --help    print this
TEXT
}

usage_error() {
    printf 'powercut.sh: %s; see scripts/powercut.sh --help\n' "$1" >&2
    exit 2
}

# Bugs that a power cut shows; some are also seen after a mere crash. The others need damage or a failing disk.
readonly MUTANTS=(hard-state-not-synced log-before-hard-state log-begun-before-snapshot log-removed-before-snapshot
    name-before-content names-not-synced older-slot-wins reused-before-renamed snapshot-before-hard-state
    snapshot-named-before-header snapshot-not-synced tail-not-rewritten void-segments-count)

images='' seed=1 mutants=()
while (($# > 0)); do
    case $1 in
    -h | --help)
        usage
        exit
        ;;
    --images | --seed)
        (($# > 1)) || usage_error "$1 takes a number"
        [[ $2 =~ ^[0-9]{1,15}$ ]] || usage_error "$1 takes a number, not '$2'"
        if [[ $1 == --seed ]]; then seed=$2; else images=$2; fi
        shift
        ;;
    --mutants) mutants=("${MUTANTS[@]}") ;;
    --mutant)
        (($# > 1)) || usage_error "$1 takes a name"
        mutants+=("$2")
        shift
        ;;
    *) usage_error "there is no option $1" ;;
    esac
    shift
done

: "${images:=$((${#mutants[@]} > 0 ? 6000 : 600))}"

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
target=$(realpath -m -- "${CARGO_TARGET_DIR:-target}")/powercut

skip() {
    printf '\n!!!! SKIPPED scripts/powercut.sh: %s !!!!\n\n' "$1"
    exit 0
}

# Everything that is mounted below the scratch directory, the newest first.
own_mounts() {
    awk -v below="$scratch/" 'index($5, below) == 1 { print $5 }' /proc/self/mountinfo | tac
}

# The loop devices over files below the scratch directory.
own_loops() {
    losetup --list --noheadings --output NAME,BACK-FILE 2>/dev/null |
        awk -v below="$scratch/" 'index($2, below) == 1 { print $1 }'
}

scratch='' worker=''
cleanup() {
    local status=$? round path
    trap - EXIT
    trap '' INT TERM HUP
    if [[ -n $worker ]]; then
        kill -TERM "$worker" 2>/dev/null || true
        wait "$worker" 2>/dev/null || true
    fi
    [[ -n $scratch ]] || exit "$status"
    # What is busy for the moment, or lies under something else, is free in one of the next rounds.
    for ((round = 0; round < 50; round++)); do
        while read -r path; do
            umount -- "$path" 2>/dev/null || true
        done < <(own_mounts)
        while read -r path; do
            losetup --detach "$path" 2>/dev/null || true
        done < <(own_loops)
        [[ -n $(own_mounts)$(own_loops) ]] || break
        sleep 0.1
    done
    if [[ -n $(own_mounts)$(own_loops) ]]; then
        printf 'powercut.sh: cannot unmount or detach: %s %s\n' "$(own_mounts)" "$(own_loops)" >&2
        exit 1
    fi
    rm -rf --one-file-system -- "$scratch"
    exit "$status"
}
trap cleanup EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

[[ $(uname) == Linux ]] || skip "this is not Linux"
[[ $EUID == 0 ]] || skip "only root may mount file systems"
for tool in mkfs.ext4 losetup mount umount awk; do
    command -v "$tool" >/dev/null || skip "$tool is missing"
done
for device in /dev/fuse /dev/loop-control; do
    { : <>"$device"; } 2>/dev/null || skip "$device cannot be opened"
done
scratch=$(mktemp -d "${TMPDIR:-/tmp}/keva-powercut.XXXXXX")
# As the kernel names it.
scratch=$(realpath -- "$scratch")
mkdir "$scratch/memory"
mount -t tmpfs -o size=512m,mode=700 keva-powercut "$scratch/memory" 2>/dev/null ||
    skip "this user may not mount"
# The kernel may have all of it and this container may still not use it.
rehearse() {
    local device
    mkdir "$scratch/memory/rehearsal"
    truncate --size 8M "$scratch/memory/rehearsal.img"
    mkfs.ext4 -q "$scratch/memory/rehearsal.img" &&
        device=$(losetup --find --show "$scratch/memory/rehearsal.img") &&
        mount -t ext4 "$device" "$scratch/memory/rehearsal" &&
        umount "$scratch/memory/rehearsal" &&
        losetup --detach "$device"
}
rehearse 2>/dev/null || skip "ext4 over a loop device cannot be mounted"

build=(cargo build --locked --quiet --manifest-path tests/powercut/Cargo.toml)
if ((${#mutants[@]} > 0)); then
    # A directory of its own: other flags mean that every dependency is compiled again.
    target+=/mutants
    export RUSTFLAGS="${RUSTFLAGS:-} --cfg keva_mutation"
fi
"${build[@]}" --target-dir "$target"

# In the background: only so is a signal to this script answered at once.
run() {
    "$target/debug/powercut" run --scratch "$scratch/memory" --keep "$target/failed.img" \
        --images "$images" --seed "$seed" "$@" </dev/null &
    worker=$!
    local status=0
    wait "$worker" || status=$?
    worker=''
    return "$status"
}

if ((${#mutants[@]} == 0)); then
    run
    exit
fi
missed=()
for mutant in "${mutants[@]}"; do
    printf '%-30s ' "$mutant"
    run --mutant "$mutant" || missed+=("$mutant")
done
if ((${#missed[@]} > 0)); then
    printf 'powercut.sh: not found in %d images: %s\n' "$images" "${missed[*]}" >&2
    exit 1
fi
