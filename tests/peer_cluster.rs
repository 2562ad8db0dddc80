//! Three whole nodes in one process, each with its loop in a thread of its own and its disk in memory: requests over
//! real sockets, and a clean stop by a signal.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use keva::config::Config;
use keva::net::event_loop::{Listeners, NodeSetup, RunError, run};
use keva::raft::storage::Storage;
use keva::raft::types::{HardState, Incarnation, Index};
use support::memory_storage::MemoryStorage;

/// Signals reach every loop in this process, so the tests take turns.
static ALONE: Mutex<()> = Mutex::new(());

/// A configuration whose ports were free a moment ago.
fn configuration(size: usize, limits: &str) -> Config {
    let free: Vec<std::net::TcpListener> =
        (0..2 * size).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let ports: Vec<u16> = free.iter().map(|socket| socket.local_addr().unwrap().port()).collect();
    let nodes = ports.chunks(2).enumerate().map(|(number, ports)| {
        format!(
            "[[node]]\nidentity = 'host{number}'\naddress = 'localhost'\nkeva_port = {}\nuser_port = {}\nwait_time = '0.5'\n",
            ports[0], ports[1]
        )
    });
    let text = nodes.collect::<String>() + limits;
    Config::parse(&text, Path::new("keva.toml")).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn run_node<S: Storage>(config: &Config, position: usize, storage: S) -> Result<S, RunError> {
    let node = &config.nodes[position];
    let setup = NodeSetup {
        config,
        node,
        listeners: Listeners::bind(node).unwrap(),
        storage,
        incarnation: Incarnation(1),
        disk_id: position as u64,
        process: 7,
        cluster_id: 7,
        seed: position as u64,
    };
    run(setup)
}

/// One request on a connection of its own: the status and the body.
fn request(port: u16, method: &str, path: &str, body: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(body.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_string())?;
    Some((status, body))
}

fn wait_until(what: &str, mut is_done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_done() {
        assert!(start.elapsed() < Duration::from_secs(20), "waited in vain for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Asks all nodes of this process to stop, also when a check fails: their threads must end for the test to end.
struct StopNodes;

impl Drop for StopNodes {
    fn drop(&mut self) {
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM).unwrap();
    }
}

#[test]
fn three_nodes_serve_any_client_and_stop_in_good_order() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let config = configuration(3, "");
    let ports: Vec<u16> = config.nodes.iter().map(|node| node.user_port).collect();
    thread::scope(|scope| {
        let nodes: Vec<_> = (0..3)
            .map(|position| {
                scope.spawn({
                    let config = &config;
                    move || run_node(config, position, MemoryStorage::default())
                })
            })
            .collect();
        let stop = StopNodes;
        for port in &ports {
            wait_until("the node to be ready", || {
                request(*port, "GET", "/readyz", "").is_some_and(|(status, _)| status == 200)
            });
        }
        // Every node takes writes, and every other one has them at once.
        for (number, port) in ports.iter().enumerate() {
            let path = format!("/v1/storage/key/k{number}");
            let value = format!("value {number}");
            assert_eq!(request(*port, "POST", &path, &value), Some((200, "{\"done\":\"true\"}".into())));
            for reader in &ports {
                assert_eq!(request(*reader, "GET", &path, ""), Some((200, value.clone())));
            }
        }
        check_pipelining(ports[0]);
        let leaders: HashSet<_> =
            ports.iter().map(|port| request(*port, "GET", "/v1/cluster/leader", "")).collect();
        assert_eq!(leaders.len(), 1, "{leaders:?}");
        let (status, text) = request(ports[0], "GET", "/v1/cluster", "").unwrap();
        assert_eq!((status, text.matches("\"connected\": true").count()), (200, 3), "{text}");

        drop(stop);
        let start = Instant::now();
        for node in nodes {
            let storage = node.join().unwrap().unwrap();
            assert!(storage.durable_last_index() >= Index(4), "three writes and a no-op");
            assert_ne!(storage.durable_hard_state(), HardState::default());
        }
        assert!(
            start.elapsed() < Duration::from_secs(3),
            "a stop without waiting clients took {:?}",
            start.elapsed()
        );
    });
    for port in ports {
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "nobody listens any more");
    }
}

/// E10: pipelined requests are answered in order, and each one sees what those before it wrote.
fn check_pipelining(port: u16) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut requests = String::new();
    for value in 1000..1100 {
        let path = "/v1/storage/key/pipelined";
        requests += &format!("PUT {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n{value}");
        requests += &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    }
    requests += "GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(requests.as_bytes()).unwrap();
    let mut answers = String::new();
    stream.read_to_string(&mut answers).unwrap();
    let bodies = answers.split("HTTP/1.1 ").filter_map(|answer| answer.split_once("\r\n\r\n"));
    let values: Vec<&str> = bodies.map(|(_, body)| body).filter(|body| body.starts_with('1')).collect();
    let expected: Vec<String> = (1000..1100).map(|value: u32| value.to_string()).collect();
    assert_eq!(values, expected);
}

/// F2: after a failed sync no answer leaves, and the loop ends with the reason.
#[test]
fn a_failed_sync_ends_the_node_without_an_answer() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let config = configuration(1, "");
    let port = config.nodes[0].user_port;
    let storage = MemoryStorage::default();
    let fails = storage.faults.failing_sync.clone();
    thread::scope(|scope| {
        let node = scope.spawn(|| run_node(&config, 0, storage));
        let stop = StopNodes;
        let path = "/v1/storage/key/k";
        wait_until("a first write", || {
            request(port, "POST", path, "one").is_some_and(|(status, _)| status == 200)
        });
        fails.store(true, Ordering::SeqCst);
        assert_eq!(request(port, "POST", path, "two"), None);
        let error = node.join().unwrap().unwrap_err();
        assert!(matches!(error, RunError::Storage(_)), "{error}");
        assert!(error.to_string().contains("the disk of this test fails"), "{error}");
        // The loop is gone: nothing is left to stop.
        std::mem::forget(stop);
    });
}

/// I10: one connection too many is told so, and room that is made is used.
#[test]
fn connections_are_limited() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let config = configuration(1, "[limits]\nclient_connections = 2\n");
    let port = config.nodes[0].user_port;
    thread::scope(|scope| {
        let node = scope.spawn(|| run_node(&config, 0, MemoryStorage::default()));
        let stop = StopNodes;
        let live = || request(port, "GET", "/livez", "").map(|(status, _)| status);
        wait_until("the node", || live() == Some(200));
        let mut held: Vec<TcpStream> = Vec::new();
        for _ in 0..2 {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
            assert!(stream.read(&mut [0; 1024]).unwrap() > 0);
            held.push(stream);
        }
        assert_eq!(live(), Some(503));
        drop(held);
        wait_until("room", || live() == Some(200));
        drop(stop);
        node.join().unwrap().unwrap();
    });
}
