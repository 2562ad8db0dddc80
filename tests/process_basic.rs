//! A cluster of real processes does what the manual promises when nothing fails, and when too much does.

mod support;

use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::path::Path;
use std::time::{Duration, Instant};

use support::cluster::{Cluster, ClusterOptions, PATIENCE, report, wait_for};
use support::http_client::{Failure, HttpClient};
use support::http_message::Answer;
use support::node_process::NodeProcess;
use support::original::ORIGINAL_CONFIGURATION;
use support::workload::write_once;

/// What the first Keva answered to a write, and this one too, to the byte.
const DONE: &str = r#"{"done":"true"}"#;

fn call(
    client: &mut HttpClient,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    client
        .request(method, target, headers, body)
        .unwrap_or_else(|failure| panic!("{method} {target} at {}: {failure}", client.address()))
}

fn get(client: &mut HttpClient, key: &str) -> Answer {
    call(client, "GET", &format!("/v1/storage/key/{key}"), &[], b"")
}

fn put(client: &mut HttpClient, key: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    call(client, "PUT", &format!("/v1/storage/key/{key}"), headers, body)
}

/// Takes the ports of the original configuration away from other runs of this test. `None`: not allowed to use them.
fn take_original_ports() -> Option<TcpListener> {
    let guard = wait_for("another run of this test to end", || TcpListener::bind(("127.0.0.1", 7_099)).ok());
    for port in [370, 371, 372, 380, 381, 382] {
        if let Err(error) = TcpListener::bind(("127.0.0.1", port)) {
            report(&format!(
                "SKIPPED original_walkthrough_works_verbatim: port {port} of localhost: {error}"
            ));
            return None;
        }
    }
    Some(guard)
}

#[test]
fn original_walkthrough_works_verbatim() {
    let Some(_guard) = take_original_ports() else { return };
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("scratch directory");
    let config_file = directory.path().join("keva.toml");
    std::fs::write(&config_file, ORIGINAL_CONFIGURATION).expect("write keva.toml");
    let node = |name: &str, workdir: &str| {
        let workdir = directory.path().join(workdir);
        std::fs::create_dir(&workdir).expect("make the working directory");
        let mut node = NodeProcess::new(name, &config_file, &workdir, &directory.path().join(name));
        node.start();
        node
    };
    // "At least two out of the three instances".
    let mut nodes = [node("host1", "workdir1"), node("host2", "workdir2")];
    let client = |port: u16| {
        let address =
            ("localhost", port).to_socket_addrs().expect("localhost").find(std::net::SocketAddr::is_ipv4);
        HttpClient::new(address.expect("localhost has an IPv4 address"))
    };
    let (mut first, mut second) = (client(380), client(381));
    for client in [&mut first, &mut second] {
        wait_for("both nodes to be ready", || {
            nodes.iter_mut().for_each(NodeProcess::assert_running);
            client.request("GET", "/readyz", &[], b"").ok().filter(|answer| answer.status == 200)
        });
    }

    let target = "/v1/storage/key/greeting";
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    let answer = call(&mut first, "POST", target, &form, br#"{"hello":"world"}"#);
    assert_eq!((answer.status, answer.text().as_str()), (200, DONE));
    let answer = call(&mut second, "GET", target, &[], b"");
    assert_eq!((answer.status, answer.text().as_str()), (200, r#"{"hello":"world"}"#));
    let answer = call(&mut second, "DELETE", target, &[], b"");
    assert_eq!((answer.status, answer.text().as_str()), (200, DONE));
    let answer = call(&mut first, "GET", target, &[], b"");
    assert_eq!((answer.status, answer.body.len()), (204, 0));
    let answer = call(&mut first, "DELETE", target, &[], b"");
    assert_eq!((answer.status, answer.text().as_str()), (200, DONE), "deleting an absent key is no error");
}

#[test]
fn every_node_takes_every_request() {
    let cluster = Cluster::start(3);
    for writer in 0..3 {
        for reader in 0..3 {
            let key = format!("from-{writer}-to-{reader}");
            let (mut writing, mut reading) = (cluster.client(writer), cluster.client(reader));
            assert_eq!(get(&mut reading, &key).status, 204, "{key} is absent at first");
            let answer = call(&mut writing, "POST", &format!("/v1/storage/key/{key}"), &[], b"one");
            assert_eq!((answer.status, answer.text().as_str()), (200, DONE));
            let read = get(&mut reading, &key);
            assert_eq!((read.status, read.text().as_str()), (200, "one"));
            assert_eq!(read.etag(), answer.etag());
            assert!(read.revision() >= answer.revision(), "a read reflects every write before it");
            assert_eq!(get(&mut reading, &format!("{key}?missing=404")).status, 200);
            assert_eq!(
                call(&mut reading, "DELETE", &format!("/v1/storage/key/{key}"), &[], b"").text(),
                DONE
            );
            assert_eq!(get(&mut writing, &key).status, 204);
            assert_eq!(get(&mut writing, &format!("{key}?missing=404")).status, 404);
        }
    }
}

/// Bytes that no one would guess, the same every time.
fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    fastrand::Rng::with_seed(42).fill(&mut bytes);
    bytes
}

#[test]
fn largest_value_goes_around_and_a_larger_one_is_refused() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader();
    let followers = cluster.others(leader);
    let value = noise(1 << 20);
    let mut first = cluster.client(followers[0]);
    let mut second = cluster.client(followers[1]);
    assert_eq!(put(&mut first, "large", &[], &value).status, 200);
    let read = get(&mut second, "large");
    assert_eq!(read.status, 200);
    assert!(read.body == value, "1 MiB through one follower comes back from the other one as it was");
    assert_eq!(read.header("Content-Type"), Some("application/octet-stream"));

    let answer = put(&mut first, "large", &[], &noise((1 << 20) + 1));
    assert_eq!(answer.status, 413, "{}", answer.text());
    assert!(get(&mut first, "large").body == value, "what was refused has changed nothing");
    assert_eq!(put(&mut first, "empty", &[], b"").status, 200);
    let empty = get(&mut second, "empty");
    assert_eq!((empty.status, empty.body.len()), (200, 0), "empty is not absent");
}

// E5
#[test]
fn conditions_are_judged_by_the_whole_cluster() {
    let cluster = Cluster::start(3);
    let [mut one, mut two, mut three] = [0, 1, 2].map(|position| cluster.client(position));
    let created = put(&mut one, "c", &[("If-None-Match", "*")], b"first");
    assert_eq!(created.status, 200);
    let revision = created.etag().expect("a write names its revision");
    let again = put(&mut two, "c", &[("If-None-Match", "*")], b"second");
    assert_eq!((again.status, again.etag()), (412, Some(revision)));

    let tag = format!("\"{revision}\"");
    let changed = put(&mut three, "c", &[("If-Match", &tag)], b"third");
    assert_eq!(changed.status, 200);
    let late = put(&mut one, "c", &[("If-Match", &tag)], b"late");
    assert_eq!((late.status, late.etag()), (412, changed.etag()));
    assert_eq!(late.header("Content-Type"), Some("application/problem+json"));
    assert_eq!(get(&mut one, "c").text(), "third");

    let current = format!("\"{}\"", changed.etag().expect("a revision"));
    let target = "/v1/storage/key/c";
    let unchanged = call(&mut two, "GET", target, &[("If-None-Match", &current)], b"");
    assert_eq!((unchanged.status, unchanged.body.len(), unchanged.etag()), (304, 0, changed.etag()));
    assert_eq!(call(&mut two, "GET", target, &[("If-None-Match", &tag)], b"").text(), "third");
    assert_eq!(call(&mut two, "DELETE", target, &[("If-Match", &tag)], b"").status, 412);
    assert_eq!(call(&mut two, "DELETE", target, &[("If-Match", &current)], b"").status, 200);
    let gone = put(&mut three, "c", &[("If-Match", "*")], b"x");
    assert_eq!((gone.status, gone.etag()), (412, None));
}

#[test]
fn answers_name_the_leader_and_the_node() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader();
    let name = format!("host{}", leader + 1);
    for position in 0..3 {
        let answer = get(&mut cluster.client(position), "x");
        assert_eq!(answer.header("Keva-Leader"), Some(name.as_str()));
        assert_eq!(answer.header("Keva-Node"), Some(format!("host{}", position + 1).as_str()));
        let page = call(&mut cluster.client(position), "GET", "/v1/cluster", &[], b"");
        let page: serde_json::Value = serde_json::from_slice(&page.body).expect("/v1/cluster is JSON");
        assert_eq!(page["leader"], name);
    }
}

/// Asks a node without a quorum for a second and checks that it neither makes something up nor hangs (E14).
fn assert_minority_is_honest(cluster: &Cluster, position: usize) {
    let mut client = cluster.client(position);
    let start = Instant::now();
    let read = get(&mut client, "known?timeout=700ms");
    assert!(matches!(read.status, 503 | 504), "a read without a quorum: {read:?}");
    let absent = get(&mut client, "unknown?timeout=700ms");
    assert!(matches!(absent.status, 503 | 504), "absence is an answer too: {absent:?}");
    let write = put(&mut client, "known?timeout=700ms", &[], b"minority");
    assert!(matches!(write.status, 503 | 504), "a write without a quorum: {write:?}");
    assert!(start.elapsed() < Duration::from_secs(10), "?timeout= bounds a request");
    for answer in [&read, &absent] {
        assert_eq!(answer.header("Content-Type"), Some("application/problem+json"));
        assert!(!answer.text().contains("value of"), "no value leaks: {answer:?}");
    }

    let stale = get(&mut client, "known?consistency=stale");
    assert_eq!((stale.status, stale.text().as_str()), (200, "value of known"), "stale reads need nobody");
    assert_eq!(get(&mut client, "unknown?consistency=stale").status, 204);
    assert_eq!(call(&mut client, "GET", "/livez", &[], b"").status, 200);
    assert_eq!(call(&mut client, "GET", "/readyz", &[], b"").status, 503);
}

// E14
#[test]
fn minority_neither_reads_nor_writes() {
    let mut cluster = Cluster::start_with(&ClusterOptions::new(3).wait_time("0.5"));
    write_once(&mut cluster.client(0), "known", "value of known").expect("the cluster is whole");
    for left in 0..3 {
        // Every node must have applied the write before it is left alone, so that the stale read has something to see.
        assert_eq!(get(&mut cluster.client(left), "known").status, 200);
        let others = cluster.others(left);
        cluster.kill_at_once(&others);
        assert_minority_is_honest(&cluster, left);
        for position in others {
            cluster.node(position).start();
        }
        cluster.wait_all_ready();
        // The minority's write may have been done when the others came back (504) or not (503): both are values that
        // somebody wrote.
        let value = get(&mut cluster.client(left), "known").text();
        assert!(["value of known", "minority"].contains(&value.as_str()), "{value}");
        write_once(&mut cluster.client(0), "known", "value of known").expect("the cluster is whole");
    }
}

// C6: a node that has just started knows nothing, not even that a key is absent.
#[test]
fn lonely_node_after_a_restart_answers_no_read() {
    let mut cluster = Cluster::start(3);
    write_once(&mut cluster.client(0), "known", "value of known").expect("the cluster is whole");
    cluster.kill_at_once(&[0, 1, 2]);
    cluster.node(1).start();
    let mut client = cluster.client(1);
    wait_for("the node to take connections", || client.request("GET", "/livez", &[], b"").ok());
    for key in ["known", "unknown"] {
        let answer = get(&mut client, &format!("{key}?timeout=300ms"));
        assert!(matches!(answer.status, 503 | 504), "{key}: {answer:?}");
    }
}

#[test]
fn restarted_cluster_keeps_its_data() {
    let mut cluster = Cluster::start(3);
    let mut last = 0;
    for round in 0..3 {
        let mut client = cluster.client(round);
        for key in 0..50 {
            let revision =
                write_once(&mut client, &format!("key-{round}-{key}"), &format!("value {round} {key}"));
            let revision = revision.expect("the cluster is whole");
            assert!(revision > last, "revisions grow for ever (F29)");
            last = revision;
        }
        assert_eq!(
            call(&mut client, "DELETE", &format!("/v1/storage/key/key-{round}-0"), &[], b"").status,
            200
        );
        for position in 0..3 {
            if round == 0 {
                cluster.node(position).kill();
            } else {
                cluster.node(position).terminate();
                let status = cluster.node(position).wait_exit(PATIENCE);
                assert_eq!(status.code(), Some(0), "SIGTERM ends a node cleanly");
            }
        }
        for position in 0..3 {
            cluster.node(position).start();
        }
        cluster.wait_all_ready();
        for position in 0..3 {
            let mut client = cluster.client(position);
            for (round, key) in (0..=round).flat_map(|round| (1..50).map(move |key| (round, key))) {
                assert_eq!(
                    get(&mut client, &format!("key-{round}-{key}")).text(),
                    format!("value {round} {key}")
                );
            }
            assert_eq!(get(&mut client, &format!("key-{round}-0")).status, 204);
        }
    }
}

// A14, C7
#[test]
fn single_node_survives_kills() {
    let mut cluster = Cluster::start(1);
    for round in 0..20 {
        let revision = write_once(&mut cluster.client(0), "single", &format!("round {round}"))
            .expect("a whole cluster of one");
        cluster.node(0).kill();
        cluster.start_node(0);
        let read = get(&mut cluster.client(0), "single");
        assert_eq!((read.text(), read.etag()), (format!("round {round}"), Some(revision)));
    }
}

/// Starts a node that must refuse to run, and returns what it says.
fn refusal(node: &mut NodeProcess) -> String {
    let before = node.log_length();
    node.start();
    let status = node.wait_exit(PATIENCE);
    let said = node.log_since(before);
    assert_eq!(status.code(), Some(2), "refused to start, with: {said}");
    said
}

// F13
#[test]
fn second_process_on_a_directory_is_refused_with_the_holders_pid() {
    let mut cluster = Cluster::start(1);
    let config_file = cluster.directory().join("keva.toml");
    let log_file = cluster.directory().join("second.log");
    let directory = cluster.node(0).working_directory().to_owned();
    let mut second = NodeProcess::new("host1", &config_file, &directory, &log_file);
    let said = refusal(&mut second);
    let holder = cluster.node(0).pid().to_string();
    assert!(said.contains(&holder), "names the process that holds the directory, {holder}: {said}");
    assert_eq!(put(&mut cluster.client(0), "still", &[], b"here").status, 200);
}

// F19, F20
#[test]
fn foreign_data_is_refused() {
    let mut cluster = Cluster::start(3);
    let first = cluster.node(0).working_directory().to_owned();
    cluster.kill_at_once(&[0, 1]);

    // host2 on the directory of host1.
    let own = cluster.node(1).working_directory().to_owned();
    cluster.node(1).set_working_directory(&first);
    let said = refusal(cluster.node(1));
    assert!(said.contains("host1") && said.contains("host2"), "names both nodes: {said}");
    cluster.node(1).set_working_directory(&own);

    // host1 on its own directory, but as a member of another cluster.
    let own_config = cluster.directory().join("keva.toml");
    let other_config = renamed_cluster(&own_config, &cluster.directory().join("other.toml"));
    cluster.node(0).set_config_file(&other_config);
    let said = refusal(cluster.node(0));
    assert!(said.contains("cluster"), "says that the data is another cluster's: {said}");

    cluster.node(0).set_config_file(&own_config);
    cluster.node(0).start();
    cluster.node(1).start();
    cluster.wait_all_ready();
}

// F19
#[test]
fn node_of_another_cluster_is_not_let_in() {
    let mut cluster = Cluster::create(&ClusterOptions::new(3));
    let other =
        renamed_cluster(&cluster.directory().join("keva.toml"), &cluster.directory().join("other.toml"));
    cluster.node(2).set_config_file(&other);
    for position in 0..3 {
        cluster.node(position).start();
    }
    cluster.wait_ready(0);
    cluster.wait_ready(1);
    write_once(&mut cluster.client(0), "secret", "of the first cluster")
        .expect("two of three nodes are a quorum");
    let mut stranger = cluster.client(2);
    wait_for("the stranger to take connections", || stranger.request("GET", "/livez", &[], b"").ok());
    // Long enough for many attempts to get in.
    let answer = get(&mut stranger, "secret?timeout=2s");
    assert!(matches!(answer.status, 503 | 504), "{answer:?}");
    assert_eq!(get(&mut stranger, "secret?consistency=stale").status, 503, "nobody lets it take part");
    let status = stranger.request("GET", "/v1/cluster", &[], b"").expect("an answer").text();
    assert!(status.contains("\"last\": 0,") && status.contains("\"standing\": \"new\""), "{status}");
    let said = cluster.node(2).log_tail();
    assert!(said.contains("cluster"), "the stranger's log says what is wrong: {said}");
}

/// A copy of a configuration file for a cluster with another name.
fn renamed_cluster(original: &Path, copy: &Path) -> std::path::PathBuf {
    let text = std::fs::read_to_string(original).expect("read keva.toml");
    std::fs::write(copy, format!("cluster = 'another'\n{text}")).expect("write the copy");
    copy.to_owned()
}

#[test]
fn loopback_nodes_cannot_be_reached_from_outside() {
    let mut cluster = Cluster::start(1);
    // Another address of this machine stands for the outside.
    let outside = std::net::Ipv4Addr::new(127, 0, 0, 1);
    assert_ne!(outside, cluster.ip());
    for address in [cluster.client_address(0), cluster.peer_address(0)] {
        TcpStream::connect(address).expect("reachable on its own address");
        let elsewhere = TcpStream::connect_timeout(&(outside, address.port()).into(), Duration::from_secs(1));
        assert!(elsewhere.is_err(), "port {} is open on all interfaces", address.port());
    }
    cluster.node(0).assert_running();
}

// E9: a client that goes away does not take its write with it, and does not hurt the node.
#[test]
fn client_that_leaves_does_not_cancel_its_write() {
    let cluster = Cluster::start(3);
    for position in 0..3 {
        let key = format!("left-{position}");
        let request =
            support::http_client::Request::new("PUT", &format!("/v1/storage/key/{key}"), &[], b"anyway");
        let mut leaving = cluster.client(position);
        leaving.start(&request).expect("send");
        leaving.close();
        let mut other = cluster.client((position + 1) % 3);
        wait_for("the write to be done", || {
            Some(get(&mut other, &key)).filter(|answer| answer.text() == "anyway")
        });
    }
}

#[test]
fn refused_connection_is_told_apart_from_a_lost_one() {
    let mut cluster = Cluster::start(1);
    let mut client = cluster.client(0);
    assert_eq!(put(&mut client, "x", &[], b"1").status, 200);
    cluster.node(0).kill();
    // The kept connection is found dead before anything is sent on it.
    let failure = client.request("PUT", "/v1/storage/key/x", &[], b"2").expect_err("nobody is there");
    assert!(matches!(failure, Failure::NotSent(_)), "{failure}");
    cluster.start_node(0);
    assert_eq!(get(&mut client, "x").text(), "1");
}
