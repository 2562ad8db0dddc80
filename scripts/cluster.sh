#!/usr/bin/env bash
# Runs a Keva cluster on this host, for trying things out and for tests: see --help.
# Needs bash, curl, coreutils and Linux's /proc; cargo only when KEVA_BIN is not set.
set -euo pipefail
# With CDPATH, cd may go elsewhere, and prints where.
unset CDPATH

readonly NODES_MAX=9
readonly ADDRESS_DEFAULT=127.0.0.1
readonly BASE_PORT_DEFAULT=8370
readonly USER_PORT_OFFSET=10
readonly WAIT_TIME_DEFAULT=1
readonly READY_SECONDS=30
readonly STOP_SECONDS=10

usage() {
    cat <<'EOF'
Usage: scripts/cluster.sh [OPTIONS] COMMAND

Commands:
  up [N]          build Keva, start a cluster of N nodes (default 3) and wait until all are ready;
                  in a directory that 'down --keep' left behind: start the same cluster again
  down            stop all nodes and delete what the cluster wrote
  status          one line for each node: process, role, term, log, leader
  leader          print the leader's identity; exit code 1 when there is none
  kill NODE       end a node as a crash does (SIGKILL)
  pause NODE      stop a node as a frozen host does (SIGSTOP)
  resume NODE     let a paused node go on (SIGCONT)
  restart NODE    stop a node in good order (SIGTERM) if it runs, and start it again
  logs NODE       print what a node has logged
  demo            start a cluster, write on one node, read on another, kill the leader, read again

NODE is 1 or host1, 2 or host2, ..., or leader.

Options:
  --dir DIR            where the cluster lives [default: $KEVA_CLUSTER_DIR, else keva-cluster-UID in
                       $TMPDIR or /tmp; demo: a new directory]
  --address ADDRESS    the loopback address of all nodes, 127.x.y.z [default: 127.0.0.1]
  --base-port PORT     the nodes take PORT, PORT+1, ... and clients PORT+10, PORT+11, ... [default: 8370]
  --wait-time SECONDS  the nodes' wait_time, the base of the election timeout [default: 1]
  --keep               down: keep data and logs; demo: keep the cluster running
  -h, --help           print this

Environment:
  KEVA_BIN             the program to run, instead of building one
  KEVA_LOG             the nodes' log level [default: info]

Several clusters run side by side when each has its own --dir, and its own --base-port or --address.

Examples:
  scripts/cluster.sh up && curl -d hello http://127.0.0.1:8380/v1/storage/key/greeting
  scripts/cluster.sh kill leader; scripts/cluster.sh status
  scripts/cluster.sh --dir /tmp/five --base-port 9000 up 5
EOF
}

die() {
    printf 'cluster.sh: %s\n' "$1" >&2
    exit "${2:-1}"
}

usage_error() {
    die "$1; see scripts/cluster.sh --help" 2
}

# --- the cluster's directory ------------------------------------------------------------------------------------

# Sets `directory` to an absolute path, so that it can be recognised on a command line.
enter_directory() {
    mkdir -p -- "$directory" || die "cannot create $directory; choose another --dir"
    directory=$(cd -- "$directory" && pwd -P)
    [[ -O $directory ]] || die "$directory belongs to somebody else; choose another --dir"
    # A quote would end the strings of the configuration and of this script's own files.
    [[ $directory != *[\'$'\n']* ]] || die "$directory has a quote or a line end in its name; choose another --dir"
    marker=$directory/cluster
}

# Sets `nodes`, `address`, `base_port` and `wait_time` to what the cluster was made with.
load_cluster() {
    local wanted_address=$address wanted_port=$base_port wanted_time=$wait_time
    if [[ -d $directory ]]; then
        enter_directory
    fi
    marker=$directory/cluster
    [[ -f $marker ]] || die "no cluster in $directory; start one with 'up', or name its --dir"
    read -r nodes address base_port wait_time <"$marker" || die "$marker is damaged; delete $directory"
    [[ $nodes =~ ^[1-9]$ && $base_port =~ ^[0-9]+$ ]] || die "$marker is damaged; delete $directory"
    if [[ ${wanted_address:-$address} != "$address" || ${wanted_port:-$base_port} != "$base_port" ||
        ${wanted_time:-$wait_time} != "$wait_time" ]]; then
        die "the cluster in $directory has --address $address, --base-port $base_port and --wait-time $wait_time; run 'down' first"
    fi
}

create_cluster() {
    if [[ -n $(ls -A -- "$directory") ]]; then
        die "$directory is not empty and has no cluster; choose another --dir"
    fi
    printf '%s %s %s %s\n' "$nodes" "$address" "$base_port" "$wait_time" >"$marker"
    local node
    {
        printf "cluster = 'test-%s-%s'\n" "$address" "$base_port"
        for ((node = 1; node <= nodes; node++)); do
            printf "\n[[node]]\nidentity = 'host%s'\naddress = '%s'\n" "$node" "$address"
            printf "keva_port = %s\nuser_port = %s\n" "$((base_port + node - 1))" "$(user_port "$node")"
            printf "wait_time = '%s'\n" "$wait_time"
        done
    } >"$directory/keva.toml"
    for ((node = 1; node <= nodes; node++)); do
        mkdir -- "$directory/host$node"
    done
}

# Deletes only what create_cluster and the nodes made.
delete_cluster() {
    local node
    for ((node = 1; node <= nodes; node++)); do
        rm -rf -- "$directory/host$node"
    done
    rm -f -- "$directory/keva.toml" "$marker"
    rmdir -- "$directory" 2>/dev/null || true
}

user_port() {
    printf '%s' "$((base_port + USER_PORT_OFFSET + $1 - 1))"
}

url() {
    printf 'http://%s:%s' "$address" "$(user_port "$1")"
}

# --- processes ----------------------------------------------------------------------------------------------------

# Prints the process id of a node that runs. The number in the file may belong to another process by now, so it counts
# only if the process was started with this cluster's configuration and this identity.
pid_of() {
    local pid words=() word has_config='' has_identity=''
    pid=$(cat -- "$directory/host$1/pid" 2>/dev/null) || return 1
    [[ $pid =~ ^[1-9][0-9]*$ ]] || return 1
    { mapfile -d '' -t words <"/proc/$pid/cmdline"; } 2>/dev/null || return 1
    for word in ${words[@]+"${words[@]}"}; do
        if [[ $word == "$directory/keva.toml" ]]; then has_config=1; fi
        if [[ $word == "host$1" ]]; then has_identity=1; fi
    done
    [[ -n $has_config && -n $has_identity ]] || return 1
    printf '%s' "$pid"
}

is_running() {
    pid_of "$1" >/dev/null
}

is_paused() {
    local pid line
    pid=$(pid_of "$1") || return 1
    { read -r line <"/proc/$pid/stat"; } 2>/dev/null || return 1
    # The state follows the program's name, which stands in parentheses (proc(5)).
    [[ ${line##*) } == [Tt]* ]]
}

signal() {
    local pid
    if pid=$(pid_of "$2"); then
        # It may end by itself just now.
        kill "-$1" "$pid" 2>/dev/null || true
    fi
}

# Waits until a node has ended, for some seconds.
wait_for_end() {
    local deadline=$((SECONDS + $2))
    while is_running "$1"; do
        ((SECONDS < deadline)) || return 1
        sleep 0.05
    done
}

start_node() {
    local home=$directory/host$1
    nohup "$keva" --config-file "$directory/keva.toml" --node-identity "host$1" \
        --working-directory "$home/data" </dev/null >>"$home/log" 2>&1 &
    printf '%s\n' "$!" >"$home/pid"
    # No message of bash's own when it is killed.
    disown
    # For a moment the new process is a copy of this script. Whether it lives on is checked where it is waited for.
    local tries
    for ((tries = 0; tries < 40; tries++)); do
        if is_running "$1" || ! kill -0 "$!" 2>/dev/null; then break; fi
        sleep 0.05
    done
}

# Asks nodes to stop, and ends those that do not.
stop_nodes() {
    local node
    for node in "$@"; do
        signal TERM "$node"
        # A paused process gets the signal only when it goes on.
        signal CONT "$node"
    done
    for node in "$@"; do
        if ! wait_for_end "$node" "$STOP_SECONDS"; then
            printf 'cluster.sh: host%s did not stop within %s seconds and is killed\n' "$node" "$STOP_SECONDS" >&2
            kill_node "$node"
        fi
        rm -f -- "$directory/host$node/pid"
    done
}

kill_node() {
    signal KILL "$1"
    wait_for_end "$1" "$STOP_SECONDS" || die "host$1 could not be killed"
}

all_nodes() {
    seq 1 "$nodes"
}

# --- talking to nodes ---------------------------------------------------------------------------------------------

# No settings of the user and no proxy: the nodes are on this host.
ask() {
    curl -q --silent --noproxy '*' --max-time 2 "$@"
}

answers_200() {
    [[ $(ask --output /dev/null --write-out '%{http_code}' "$(url "$1")/$2") == 200 ]]
}

# Waits until a path of a node answers 200. A node that ends meanwhile is an error at once.
wait_for_200() {
    local deadline=$((SECONDS + READY_SECONDS))
    until answers_200 "$1" "$2"; do
        if ! is_running "$1"; then
            show_log_end "$1"
            die "host$1 has ended; its log is $directory/host$1/log"
        fi
        if ((SECONDS >= deadline)); then
            show_log_end "$1"
            die "host$1 does not answer /$2 with 200 after $READY_SECONDS seconds; see $directory/host$1/log"
        fi
        sleep 0.1
    done
}

show_log_end() {
    printf 'The last lines of host%s:\n' "$1" >&2
    tail -n 5 -- "$directory/host$1/log" >&2 || true
}

# Prints the identity of the leader that the first node to know one names.
find_leader() {
    local node identity
    for node in $(all_nodes); do
        if is_running "$node" && ! is_paused "$node" && identity=$(ask --fail "$(url "$node")/v1/cluster/leader"); then
            printf '%s\n' "$identity"
            return
        fi
    done
    return 1
}

# The value of a member of a JSON object without inner objects, or "-".
member() {
    if [[ $2 =~ \"$1\"[[:space:]]*:[[:space:]]*(\"([^\"]*)\"|[0-9]+) ]]; then
        printf '%s' "${BASH_REMATCH[2]:-${BASH_REMATCH[1]}}"
    else
        printf '%s' -
    fi
}

port_is_taken() {
    (exec 3<>"/dev/tcp/$address/$1") 2>/dev/null
}

# --- commands -----------------------------------------------------------------------------------------------------

find_program() {
    if [[ -n ${KEVA_BIN:-} ]]; then
        [[ -x $KEVA_BIN && -f $KEVA_BIN ]] || die "KEVA_BIN=$KEVA_BIN is no program; correct or unset it"
        keva=$(realpath -- "$KEVA_BIN")
        return
    fi
    local root
    root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
    command -v cargo >/dev/null || die "cargo is missing; install Rust, or set KEVA_BIN to a built program"
    (cd -- "$root" && cargo build --release --locked --bin keva) || die "the build failed"
    # A relative target directory counts from where cargo was started.
    keva=$(cd -- "$root" && realpath -- "${CARGO_TARGET_DIR:-target}/release/keva")
}

command_up() {
    local wanted=${1:-} node port
    [[ -z $wanted || $wanted =~ ^[1-$NODES_MAX]$ ]] || usage_error "up takes 1 to $NODES_MAX nodes, not '$wanted'"
    enter_directory
    # When it does not come to a cluster, an empty directory is all there is.
    trap 'rmdir -- "$directory" 2>/dev/null || true' EXIT
    if [[ -f $marker ]]; then
        load_cluster
        [[ -z $wanted || $wanted == "$nodes" ]] || die "$directory has a cluster of $nodes nodes; run 'down' first"
        for node in $(all_nodes); do
            ! is_running "$node" || die "the cluster in $directory is up; run 'down' first, or choose another --dir"
        done
    else
        nodes=${wanted:-3}
        address=${address:-$ADDRESS_DEFAULT}
        base_port=${base_port:-$BASE_PORT_DEFAULT}
        wait_time=${wait_time:-$WAIT_TIME_DEFAULT}
    fi
    find_program
    for node in $(all_nodes); do
        for port in "$((base_port + node - 1))" "$(user_port "$node")"; do
            ! port_is_taken "$port" || die "port $port for host$node is taken; choose another --base-port"
        done
    done
    [[ -f $marker ]] || create_cluster
    # From here on, a failure must leave no process behind. Logs stay.
    trap 'stop_nodes $(all_nodes)' EXIT
    trap 'exit 130' INT TERM
    for node in $(all_nodes); do start_node "$node"; done
    for node in $(all_nodes); do wait_for_200 "$node" readyz; done
    trap - EXIT INT TERM
    for node in $(all_nodes); do printf 'host%s  %s\n' "$node" "$(url "$node")"; done
}

command_down() {
    load_cluster
    # shellcheck disable=SC2046 # numbers
    stop_nodes $(all_nodes)
    if [[ -n $keep ]]; then
        printf 'stopped; data and logs are in %s\n' "$directory"
    else
        delete_cluster
    fi
}

command_status() {
    load_cluster
    local format='%-6s %-8s %-8s %-13s %6s %8s %8s  %-7s %s\n' node pid state body object top role
    # shellcheck disable=SC2059 # one format for all lines
    printf "$format" NODE PID STATE ROLE TERM COMMIT APPLIED LEADER CLIENTS
    for node in $(all_nodes); do
        pid=$(pid_of "$node") || pid=-
        state=running
        if [[ $pid == - ]]; then state=stopped; fi
        if is_paused "$node"; then state=paused; fi
        body=
        if [[ $state == running ]]; then body=$(ask "$(url "$node")/v1/cluster") || state=silent; fi
        # The members are objects inside the object: apart, each is flat.
        object="\{[^{}]*\"identity\"[[:space:]]*:[[:space:]]*\"host$node\"[^{}]*\}"
        top=${body%%\"members\"*}${body##*]}
        role=$(member role "$top")
        if [[ $role == - && $body =~ $object ]]; then role=$(member role "${BASH_REMATCH[0]}"); fi
        # shellcheck disable=SC2059 # one format for all lines
        printf "$format" "host$node" "$pid" "$state" "$role" "$(member term "$top")" "$(member commit "$top")" \
            "$(member applied "$top")" "$(member leader "$top")" "$(url "$node")"
    done
}

command_leader() {
    load_cluster
    find_leader || die "there is no leader"
}

# Sets `node` to the number that a user's word for a node stands for.
resolve_node() {
    local name=${1:-}
    [[ -n $name ]] || usage_error "$command needs a node"
    if [[ $name == leader ]]; then
        name=$(find_leader) || die "there is no leader"
    fi
    node=${name#host}
    [[ $node =~ ^[1-9]$ && $node -le $nodes ]] || usage_error "there is no node '$name', only 1 to $nodes"
}

command_signal() {
    local node
    load_cluster
    resolve_node "${1:-}"
    is_running "$node" || die "host$node is not running; start it with 'restart $node'"
    case $command in
    kill) kill_node "$node" ;;
    pause) signal STOP "$node" ;;
    resume) signal CONT "$node" ;;
    esac
}

command_restart() {
    local node
    load_cluster
    resolve_node "${1:-}"
    find_program
    stop_nodes "$node"
    start_node "$node"
    # Whether it gets ready depends on the others, too.
    wait_for_200 "$node" livez
}

command_logs() {
    local node
    load_cluster
    resolve_node "${1:-}"
    cat -- "$directory/host$node/log"
}

# Shows a curl command, runs it and compares what it prints.
show_curl() {
    local expected=$1 answer
    shift
    printf '\n$ curl'
    printf ' %s' "$@"
    printf '\n'
    answer=$(curl -q --silent --show-error --noproxy '*' --max-time 20 "$@") || die "curl failed"
    printf '%s\n' "$answer"
    [[ $answer == "$expected" ]] || die "the answer is not '$expected'"
}

command_demo() {
    local path=v1/storage/key/greeting node writer=1 reader=2
    command_up "${1:-3}"
    if [[ -z $keep ]]; then
        trap command_down EXIT
        trap 'exit 130' INT TERM
    fi
    ((nodes >= 3)) || die "the demo needs 3 nodes or more"
    show_curl '{"done":"true"}' -d hello "$(url $writer)/$path"
    show_curl hello "$(url $reader)/$path"
    node=$(find_leader) || die "there is no leader"
    printf '\nThe leader, %s, is killed.\n' "$node"
    kill_node "${node#host}"
    if [[ $node == "host$reader" ]]; then reader=3; fi
    show_curl hello "$(url $reader)/$path"
    if [[ -n $keep ]]; then
        printf '\nStop it with: scripts/cluster.sh --dir %q down\n' "$directory"
    fi
}

# --- the command line ---------------------------------------------------------------------------------------------

directory=
address=
base_port=
wait_time=
keep=
words=()
while (($# > 0)); do
    case $1 in
    --dir | --address | --base-port | --wait-time)
        (($# > 1)) || usage_error "$1 needs a value"
        case $1 in
        --dir) directory=$2 ;;
        --address) address=$2 ;;
        --base-port) base_port=$2 ;;
        --wait-time) wait_time=$2 ;;
        esac
        shift
        ;;
    --keep) keep=1 ;;
    -h | --help)
        usage
        exit
        ;;
    -*) usage_error "there is no option $1" ;;
    *) words+=("$1") ;;
    esac
    shift
done
((${#words[@]} > 0)) || usage_error "a command is missing"
((${#words[@]} <= 2)) || usage_error "too many words: ${words[*]}"
command=${words[0]}
argument=${words[1]:-}
if [[ ! $base_port =~ ^([1-9][0-9]{3,4})?$ ]] || ((base_port > 0 && (base_port < 1024 || base_port > 65500))); then
    usage_error "--base-port takes 1024 to 65500, not '$base_port'"
fi
[[ $address =~ ^(127(\.[0-9]{1,3}){3})?$ ]] || usage_error "--address takes a loopback address 127.x.y.z, not '$address'"
[[ -z $wait_time || $wait_time =~ ^[0-9]+(\.[0-9]+)?$ ]] || usage_error "--wait-time takes seconds such as 1 or 0.5, not '$wait_time'"
command -v curl >/dev/null || die "curl is missing; install it"
if [[ -z $directory ]]; then
    if [[ $command == demo ]]; then
        directory=$(mktemp -d -t keva-demo.XXXXXX)
    else
        directory=${KEVA_CLUSTER_DIR:-${TMPDIR:-/tmp}/keva-cluster-$(id -u)}
    fi
fi
nodes=
marker=
keva=
case $command in
up) command_up "$argument" ;;
demo) command_demo "$argument" ;;
down | status | leader)
    [[ -z $argument ]] || usage_error "$command takes no argument"
    "command_$command"
    ;;
kill | pause | resume) command_signal "$argument" ;;
restart | logs) "command_$command" "$argument" ;;
*) usage_error "there is no command '$command'" ;;
esac
