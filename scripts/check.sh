#!/usr/bin/env bash
# Checks everything that can be checked on one machine: see --help.
# Needs Rust with rustfmt and clippy, and curl.
set -euo pipefail
# With CDPATH, cd may go elsewhere, and prints where.
unset CDPATH

usage() {
    cat <<'EOF'
Usage: scripts/check.sh [OPTIONS]

Runs every check and stops at the first that fails: formatting, shell scripts, lints, documentation,
all tests, a small model of the protocol, planted bugs that the simulator must find, the release build,
a cluster of three nodes made with it, and whether its answers are as its OpenAPI document says.

Options:
  --fast      only formatting, shell scripts, lints and tests
  -h, --help  print this
EOF
}

# Each stage is a function named check_STAGE.
readonly FAST_STAGES=(format scripts lints tests)
readonly ALL_STAGES=(format scripts lints documentation tests model mutants release demo api)
# Cases for each operation and kind of test: see scripts/api.sh.
readonly API_EXAMPLES=15

check_format() {
    cargo fmt --check
    # Packages of their own: see scripts/model.sh, scripts/oracle.sh and scripts/powercut.sh.
    cargo fmt --check --manifest-path tests/model/Cargo.toml
    cargo fmt --check --manifest-path tests/oracle/Cargo.toml
    cargo fmt --check --manifest-path tests/powercut/Cargo.toml
}

check_scripts() {
    if ! command -v shellcheck >/dev/null; then
        install_shellcheck || true
    fi
    if ! command -v shellcheck >/dev/null; then
        skipped+=("shellcheck is missing: the shell scripts were NOT checked; install it (apt-get install shellcheck)")
        return 0
    fi
    shellcheck scripts/*.sh .ci/run
}

# Only where nobody is asked for a password: in containers and on build machines.
install_shellcheck() {
    [[ $EUID == 0 ]] && command -v apt-get >/dev/null || return 1
    apt-get install -y --no-install-recommends shellcheck >/dev/null 2>&1 && return
    apt-get update >/dev/null 2>&1 && apt-get install -y --no-install-recommends shellcheck >/dev/null 2>&1
}

# Warnings become errors behind `--` and not in RUSTFLAGS: these would make every dependency be compiled again.
check_lints() {
    cargo clippy --locked --all-targets -- --deny warnings
}

# Shares the checked dependencies with the lints.
check_documentation() {
    RUSTDOCFLAGS='--deny warnings' cargo doc --locked --no-deps --document-private-items
}

check_tests() {
    cargo test --locked
}

check_model() {
    scripts/model.sh --short
}

check_mutants() {
    scripts/mutants.sh --quick
}

check_release() {
    cargo build --locked --release --bin keva
}

check_demo() {
    local target
    target=$(realpath -- "${CARGO_TARGET_DIR:-target}")
    # An address of its own, so that it does not meet a cluster that somebody tries out, or another check.
    local address=127.$((RANDOM % 254 + 1)).$((RANDOM % 256)).$((RANDOM % 254 + 1))
    KEVA_BIN=$target/release/keva scripts/cluster.sh --address "$address" demo
}

check_api() {
    local target code=0
    target=$(realpath -- "${CARGO_TARGET_DIR:-target}")
    # About 20 seconds of processor time, and less than a minute on slow build machines.
    KEVA_BIN=$target/release/keva scripts/api.sh --examples "$API_EXAMPLES" || code=$?
    if ((code == 3)); then
        skipped+=("Schemathesis cannot be had: answers were NOT compared with the OpenAPI document; see above")
        return 0
    fi
    return "$code"
}

stages=("${ALL_STAGES[@]}")
skipped=()
timings=()
while (($# > 0)); do
    case $1 in
    --fast) stages=("${FAST_STAGES[@]}") ;;
    -h | --help)
        usage
        exit
        ;;
    *)
        printf 'check.sh: there is no option %s; see scripts/check.sh --help\n' "$1" >&2
        exit 2
        ;;
    esac
    shift
done

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
for tool in cargo cargo-fmt cargo-clippy curl; do
    if ! command -v "$tool" >/dev/null; then
        printf 'check.sh: %s is missing; install curl and Rust, with: rustup component add rustfmt clippy\n' "$tool" >&2
        exit 2
    fi
done
stage=
trap '[[ -z $stage ]] || printf "check.sh: FAILED: %s\n" "$stage" >&2' EXIT
for stage in "${stages[@]}"; do
    printf '== %s\n' "$stage"
    started=$SECONDS
    # Not part of a condition: there, bash would go on after a command that fails inside.
    "check_$stage"
    timings+=("$(printf '%-14s %4d s' "$stage" "$((SECONDS - started))")")
done
stage=
printf '== passed in %d s\n' "$SECONDS"
printf '%s\n' "${timings[@]}"
if ((${#skipped[@]} > 0)); then
    printf 'WARNING: %s\n' "${skipped[@]}" >&2
fi
