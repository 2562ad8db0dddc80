//! Faults that only the system can cause: a sync that fails, packets that are lost. They need root and the right tools;
//! without them each test says that it was skipped.

mod support;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use support::cluster::{Cluster, ClusterOptions, PATIENCE, report, wait_for};
use support::failover::wait_acknowledged;
use support::workload::{Writer, assert_all_there, assert_none_there, write_once};

/// Set for the copy of this program that runs inside a network of its own.
const INSIDE: &str = "NETWORK_TEST_INSIDE";

/// Runs a command and says whether it succeeded.
fn succeeds(words: &[&str]) -> bool {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Runs a command that must succeed.
fn run(words: &[&str]) {
    let output = Command::new(words[0]).args(&words[1..]).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{words:?}: {error}"));
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn skip(test: &str, why: &str) {
    report(&format!("\n!!!! SKIPPED {test}: {why} !!!!\n"));
}

// ---- a sync that fails --------------------------------------------------------------------------------------------

/// `strace`, attached to a process, lets one of its syncs fail and writes down what it does.
struct FailingSync {
    strace: Child,
    trace: PathBuf,
}

impl FailingSync {
    fn attach(pid: u32, number: u32, trace: &Path) -> FailingSync {
        let strace = Command::new("strace")
            .args(["-f", "-y", "-s", "16", "-e", "trace=fdatasync,write,writev,sendto,sendmsg"])
            .args(["-e", &format!("inject=fdatasync:error=EIO:when={number}")])
            .arg("-o")
            .arg(trace)
            .args(["-p", &pid.to_string()])
            .stderr(Stdio::null())
            .spawn()
            .expect("strace starts");
        FailingSync { strace, trace: trace.to_owned() }
    }

    /// What the process did before its sync failed, and after that.
    fn trace(mut self) -> (String, String) {
        self.strace.wait().expect("it ends with the process");
        let text = std::fs::read_to_string(&self.trace).expect("strace has written");
        let (before, after) = text.split_once("(INJECTED)").expect("a sync has failed");
        (before.to_owned(), after.to_owned())
    }
}

impl Drop for FailingSync {
    fn drop(&mut self) {
        let _ = self.strace.kill();
        let _ = self.strace.wait();
    }
}

// F2: after a failed sync nobody knows what the disk holds.
#[test]
fn failed_sync_ends_the_node_before_its_next_word() {
    if !succeeds(&["strace", "-o", "/dev/null", "-e", "inject=fdatasync:error=EIO:when=1", "true"]) {
        return skip("failed_sync_ends_the_node_before_its_next_word", "strace is missing or may not trace");
    }
    let mut cluster = Cluster::start_with(&ClusterOptions::new(3).wait_time("0.5"));
    for is_leader in [true, false] {
        let leader = cluster.leader();
        let victim = if is_leader { leader } else { cluster.others(leader)[0] };
        let trace = cluster.directory().join(format!("trace-{is_leader}"));
        let log_offset = cluster.node(victim).log_length();
        let writers: Vec<Writer> = (0..3)
            .map(|node| Writer::start(cluster.client_address(node), format!("sync-{is_leader}/{node}")))
            .collect();
        wait_acknowledged(&writers, &[0; 3]);
        let failing = FailingSync::attach(cluster.node(victim).pid(), 40, &trace);
        let status = cluster.node(victim).wait_exit(PATIENCE);
        assert_eq!(status.code(), Some(1), "{status}");
        let said = cluster.node(victim).log_since(log_offset);
        let last = said.lines().last().expect("it says why");
        assert!(last.contains("Input/output error") && last.contains("stops at once"), "{said}");
        assert!(last.contains("see to the disk, then start it again"), "{last}");

        // Answers and messages to peers go to sockets: there are many before, and none after.
        let (before, after) = failing.trace();
        let speaks =
            |text: &str| text.lines().any(|line| line.contains("socket:[") || line.contains("TCP:["));
        assert!(speaks(&before), "the trace must show sockets: {before}");
        assert!(!speaks(&after), "the node spoke after its sync had failed: {after}");

        // The others go on.
        let others: Vec<usize> = cluster.others(victim);
        cluster.wait_leader(&others);
        let so_far: Vec<usize> = writers.iter().map(Writer::acknowledged).collect();
        let (mut going_on, mut counts, mut stopped) = (Vec::new(), Vec::new(), Vec::new());
        for (node, writer) in writers.into_iter().enumerate() {
            if node == victim {
                stopped.push(writer);
            } else {
                counts.push(so_far[node]);
                going_on.push(writer);
            }
        }
        wait_acknowledged(&going_on, &counts);
        cluster.start_node(victim);
        cluster.wait_all_ready();
        let mut client = cluster.client(victim);
        for writer in going_on.into_iter().chain(stopped) {
            let seen = writer.stop();
            assert_all_there(&mut client, &seen.acknowledged);
            assert_none_there(&mut client, &seen.mishaps);
        }
    }
}

// ---- a new working directory --------------------------------------------------------------------------------------

// F11: a directory whose name is not durable takes everything in it away with the next power cut.
#[test]
fn new_directories_have_durable_names_before_the_node_is_ready() {
    let name = "new_directories_have_durable_names_before_the_node_is_ready";
    if !succeeds(&["strace", "-D", "-o", "/dev/null", "true"]) {
        return skip(name, "strace is missing or may not trace");
    }
    let mut cluster = Cluster::create(&ClusterOptions::new(1));
    let parent = cluster.directory().join("parent");
    let working_directory = parent.join("workdir");
    let trace = cluster.directory().join("trace");
    cluster.node(0).set_working_directory(&working_directory);
    let words = ["strace", "-D", "-f", "-y", "-e", "trace=mkdir,mkdirat,fsync,fdatasync,listen", "-o"];
    let mut launcher: Vec<String> = words.iter().map(ToString::to_string).collect();
    launcher.push(trace.display().to_string());
    cluster.node(0).set_launcher(launcher);
    cluster.node(0).start();
    cluster.wait_all_ready();
    cluster.node(0).kill();
    let text = wait_for("strace to end", || {
        let text = std::fs::read_to_string(&trace).ok()?;
        text.contains("+++ killed").then_some(text)
    });

    let find = |parts: &[&str]| {
        let position = text
            .lines()
            .position(|line| !line.contains(" = -1 ") && parts.iter().all(|part| line.contains(part)));
        position.unwrap_or_else(|| panic!("nothing with {parts:?} in\n{text}"))
    };
    let show = |path: &Path| path.canonicalize().expect("it is there").display().to_string();
    let first_data = find(&["sync(", &format!("<{}/", show(&working_directory))]);
    for made in [&parent, &working_directory] {
        let above = made.parent().expect("it is in a directory");
        let mkdir = find(&["mkdir", &format!("\"{}\"", made.display())]);
        let sync = find(&["sync(", &format!("<{}>)", show(above))]);
        assert!(
            mkdir < sync && sync < first_data,
            "{}: {mkdir}, {sync}, {first_data}\n{text}",
            made.display()
        );
    }
}

// ---- a network that loses packets ---------------------------------------------------------------------------------

/// The address of a node in the network that the test makes.
fn ip(node: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 99, 0, 1 + u8::try_from(node).expect("few nodes"))
}

/// In a network of its own, which ends with the processes in it: nothing is changed on this machine.
#[test]
fn lost_packets_and_one_way_links_lose_no_write() {
    let name = "lost_packets_and_one_way_links_lose_no_write";
    if !succeeds(&["unshare", "--net", "--mount", "nft", "list", "ruleset"]) {
        return skip(name, "it may not make network namespaces, or nft is missing");
    }
    let bridge = "ip link add br0 type bridge && ip link add v0 type veth peer name v1";
    if !succeeds(&["unshare", "--net", "--mount", "sh", "-c", bridge]) {
        return skip(name, "this kernel has no bridges or virtual links, or ip (iproute2) is missing");
    }
    let program = std::env::current_exe().expect("this program has a path");
    // ip keeps files for named namespaces in /run. This /run is seen by these processes only.
    let status = Command::new("unshare")
        .args(["--net", "--mount", "sh", "-c", "mount -t tmpfs tmpfs /run && exec \"$0\" \"$@\""])
        .arg(program)
        .args(["--ignored", "--exact", "inside_a_network_of_its_own", "--nocapture"])
        .env(INSIDE, "1")
        .status()
        .expect("unshare starts");
    assert!(status.success(), "see above: {status}");
}

#[test]
#[ignore = "the test above runs it where it can do no harm"]
fn inside_a_network_of_its_own() {
    if std::env::var_os(INSIDE).is_none() {
        return;
    }
    let mut cluster = network_cluster();
    lose_packets(&mut cluster);
    for leader_is_deaf in [true, false] {
        cut_one_way(&mut cluster, leader_is_deaf);
    }
}

/// Three nodes in namespaces n1 to n3, joined by a bridge in the namespace of this process.
fn network_cluster() -> Cluster {
    let script = "ip link set lo up && ip link add br0 type bridge && ip addr add 10.99.0.254/24 dev br0 \
                  && ip link set br0 up";
    run(&["sh", "-ec", script]);
    for node in 1..=3 {
        let script = format!(
            "ip netns add n{node}; ip link add v{node} type veth peer name eth0 netns n{node}
             ip link set v{node} master br0 up; ip -n n{node} link set lo up
             ip -n n{node} addr add 10.99.0.{node}/24 dev eth0; ip -n n{node} link set eth0 up
             ip netns exec n{node} nft add table inet t
             ip netns exec n{node} nft 'add chain inet t c {{ type filter hook input priority 0; }}'"
        );
        run(&["sh", "-ec", &script]);
    }
    let mut options = ClusterOptions::new(3).wait_time("0.5");
    options.ips = (0..3).map(ip).collect();
    let mut cluster = Cluster::create(&options);
    for node in 0..3 {
        let words = ["ip", "netns", "exec", &format!("n{}", node + 1)];
        cluster.node(node).set_launcher(words.iter().map(ToString::to_string).collect());
        cluster.node(node).start();
    }
    cluster.wait_all_ready();
    cluster
}

/// Adds a rule for what arrives at a node.
fn add_rule(node: usize, rule: &str) {
    run(&["sh", "-ec", &format!("ip netns exec n{} nft 'add rule inet t c {rule}'", node + 1)]);
}

fn remove_rules() {
    for node in 1..=3 {
        run(&["ip", "netns", "exec", &format!("n{node}"), "nft", "flush", "chain", "inet", "t", "c"]);
    }
}

/// One packet in ten between nodes is lost.
fn lose_packets(cluster: &mut Cluster) {
    for node in 0..3 {
        add_rule(node, "ip saddr 10.99.0.1-10.99.0.3 numgen random mod 100 < 10 counter drop");
    }
    let writers: Vec<Writer> =
        (0..3).map(|node| Writer::start(cluster.client_address(node), format!("loss/{node}"))).collect();
    wait_acknowledged(&writers, &[0; 3]);
    let rules = Command::new("ip").args(["netns", "exec", "n1", "nft", "list", "ruleset"]).output();
    let rules = String::from_utf8_lossy(&rules.expect("nft runs").stdout).into_owned();
    assert!(!rules.contains("packets 0 "), "no packet was lost: {rules}");
    remove_rules();
    cluster.wait_all_ready();
    let so_far: Vec<usize> = writers.iter().map(Writer::acknowledged).collect();
    wait_acknowledged(&writers, &so_far);
    check_all(cluster, writers);
}

/// The leader hears nobody, or nobody hears the leader.
fn cut_one_way(cluster: &mut Cluster, leader_is_deaf: bool) {
    let leader = cluster.leader();
    let others = cluster.others(leader);
    write_once(&mut cluster.client(leader), "one-way", "old").expect("the cluster is whole");
    let writers: Vec<Writer> = (0..3)
        .map(|node| Writer::start(cluster.client_address(node), format!("one-way-{leader_is_deaf}/{node}")))
        .collect();
    wait_acknowledged(&writers, &[0; 3]);
    for other in &others {
        if leader_is_deaf {
            add_rule(leader, &format!("ip saddr {} drop", ip(*other)));
        } else {
            add_rule(*other, &format!("ip saddr {} drop", ip(leader)));
        }
    }
    wait_for("another leader", || {
        let names: Vec<_> = others.iter().map(|other| cluster.leader_by(*other)).collect();
        let old = format!("host{}", leader + 1);
        names.iter().all(|name| name.as_ref().is_some_and(|name| *name != old)).then_some(())
    });
    let new = format!("new {leader_is_deaf}");
    wait_for("a write without the old leader", || {
        write_once(&mut cluster.client(others[0]), "one-way", &new).ok()
    });
    let mut cut_off = cluster.client(leader).with_timeout(Duration::from_secs(5));
    for _ in 0..5 {
        let answer = cut_off
            .request("GET", "/v1/storage/key/one-way?timeout=100ms", &[], b"")
            .expect("clients reach it");
        assert!(matches!(answer.status, 503 | 504), "a read without a majority: {answer:?}");
    }
    remove_rules();
    cluster.wait_all_ready();
    let answer = cut_off.request("GET", "/v1/storage/key/one-way", &[], b"").expect("an answer");
    assert_eq!(answer.text(), new);
    check_all(cluster, writers);
}

fn check_all(cluster: &Cluster, writers: Vec<Writer>) {
    for (node, writer) in writers.into_iter().enumerate() {
        let seen = writer.stop();
        let mut client = cluster.client((node + 1) % 3);
        assert_all_there(&mut client, &seen.acknowledged);
        assert_none_there(&mut client, &seen.mishaps);
    }
}
