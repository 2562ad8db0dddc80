//! Clients that write in all ways that there are: values, some of them for a time, numbers, deletions of one and of many
//! keys, and several of these at once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use fastrand::Rng;

use super::support::http_client::{Failure, HttpClient};
use super::support::http_message::Answer;
use super::write::{Effect, Write};

/// What the keys of all of them begin with.
pub const PREFIX: &str = "m/";
/// A key that one of them counts.
pub const COUNTER: &str = "m/0/n0";

/// Short, so that a paused node costs little.
const NODE_TIMEOUT: &str = "timeout=1500ms";
const CLIENT_TIMEOUT: Duration = Duration::from_secs(3);
/// Keys of each kind that a client has.
const KEYS: u32 = 20;
const COUNTERS: u32 = 4;
/// Pause of a client that could not reach its node.
const PAUSE_AFTER_MISHAP: Duration = Duration::from_millis(5);
/// Operations after which a client moves to another node, on average.
const OPERATIONS_PER_NODE: u32 = 60;

/// A client at work in a thread of its own, with keys that nobody else writes.
#[derive(Debug)]
pub struct Mixer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Vec<Write>>>,
}

impl Mixer {
    /// Starts the client with this number. `round` must be another one each time.
    pub fn start(nodes: &[SocketAddr], client: u32, round: u64, seed: u64) -> Mixer {
        let stop = Arc::new(AtomicBool::new(false));
        let nodes: Vec<HttpClient> =
            nodes.iter().map(|node| HttpClient::new(*node).with_timeout(CLIENT_TIMEOUT)).collect();
        let mut rng = Rng::with_seed(seed.wrapping_add(u64::from(client)).rotate_left(17));
        let mut work =
            Work { client, round, count: 0, node: rng.usize(..nodes.len()), nodes, rng, writes: Vec::new() };
        let thread = std::thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                while !stop.load(Ordering::Relaxed) {
                    work.write();
                }
                work.writes
            }
        });
        Mixer { stop, thread: Some(thread) }
    }

    /// Lets the client finish its current write, and returns what it has done.
    pub fn stop(mut self) -> Vec<Write> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().expect("it is stopped once").join().expect("the client does not panic")
    }
}

impl Drop for Mixer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

struct Work {
    client: u32,
    round: u64,
    /// Makes every value and every number to add another one.
    count: u64,
    nodes: Vec<HttpClient>,
    node: usize,
    rng: Rng,
    writes: Vec<Write>,
}

impl Work {
    /// One of so many keys.
    fn key(&mut self, kind: &str, count: u32) -> String {
        format!("{PREFIX}{}/{kind}{}", self.client, self.rng.u32(..count))
    }

    fn put(&mut self, kind: &str, life: Option<Duration>) -> Effect {
        self.count += 1;
        let key = self.key(kind, KEYS);
        let mut value = format!("{}-{}", self.round, self.count).into_bytes();
        if self.rng.u32(..8) == 0 {
            // No text, and lines within it.
            value.extend_from_slice(b"\n\n\xff\0id: 1\n\n");
        }
        if self.rng.u32(..300) == 0 {
            value.resize(self.rng.usize(20_000..100_000), b'x');
        }
        Effect::Put { key, value, life }
    }

    fn add(&mut self) -> Effect {
        self.count += 1;
        let by = i64::try_from(self.round * 1_000_000 + self.count).expect("a small number");
        Effect::Add { key: self.key("n", COUNTERS), by }
    }

    fn effects(&mut self) -> Vec<Effect> {
        match self.rng.u32(..100) {
            0..38 => vec![self.put("k", None)],
            38..48 => {
                let life = Duration::from_millis(self.rng.u64(50..3_000));
                vec![self.put("t", Some(life))]
            }
            48..60 => vec![Effect::Delete { key: self.key("k", KEYS) }],
            60..75 => vec![self.add()],
            75..77 => vec![Effect::DeletePrefix { prefix: format!("{PREFIX}{}/k1", self.client) }],
            _ => {
                // The same key may come twice.
                let count = self.rng.usize(2..7);
                (0..count).map(|_| self.part()).collect()
            }
        }
    }

    fn part(&mut self) -> Effect {
        match self.rng.u32(..10) {
            0..6 => self.put("k", None),
            6..8 => self.add(),
            _ => Effect::Delete { key: self.key("k", KEYS) },
        }
    }

    fn write(&mut self) {
        if self.rng.u32(..OPERATIONS_PER_NODE) == 0 {
            self.node = self.rng.usize(..self.nodes.len());
        }
        let effects = self.effects();
        let called = Instant::now();
        let revision = match send(&mut self.nodes[self.node], &effects) {
            Ok(answer) if answer.status == 200 => {
                Some(answer.revision().unwrap_or_else(|| panic!("no revision: {answer:?}")))
            }
            Ok(answer) if answer.status == 504 => None,
            Ok(answer) if answer.status == 503 => return self.move_on(),
            Ok(answer) => panic!("{effects:?} must not be answered like this: {answer:?}"),
            Err(Failure::NotSent(_)) => return self.move_on(),
            Err(Failure::Unknown(_)) => None,
        };
        self.writes.push(Write { effects, revision, called });
        if revision.is_none() {
            self.move_on();
        }
    }

    fn move_on(&mut self) {
        self.node = self.rng.usize(..self.nodes.len());
        std::thread::sleep(PAUSE_AFTER_MISHAP);
    }
}

fn send(client: &mut HttpClient, effects: &[Effect]) -> Result<Answer, Failure> {
    let key = |key: &str| format!("/v1/storage/key/{key}?{NODE_TIMEOUT}");
    match effects {
        [Effect::Put { key: name, value, life: None }] => client.request("PUT", &key(name), &[], value),
        [Effect::Put { key: name, value, life: Some(life) }] => {
            let target = format!("{}&ttl={}ms", key(name), life.as_millis());
            client.request("PUT", &target, &[], value)
        }
        [Effect::Add { key: name, by }] => {
            client.request("POST", &format!("{}&add={by}", key(name)), &[], b"")
        }
        [Effect::Delete { key: name }] => client.request("DELETE", &key(name), &[], b""),
        [Effect::DeletePrefix { prefix }] => {
            let target = format!("/v1/storage/keys?prefix={prefix}&{NODE_TIMEOUT}");
            client.request("DELETE", &target, &[], b"")
        }
        several => {
            let then: Vec<serde_json::Value> = several.iter().map(operation).collect();
            let body = serde_json::json!({ "then": then }).to_string();
            client.request("POST", &format!("/v1/storage/txn?{NODE_TIMEOUT}"), &[], body.as_bytes())
        }
    }
}

fn operation(effect: &Effect) -> serde_json::Value {
    match effect {
        Effect::Put { key, value, .. } => match std::str::from_utf8(value) {
            Ok(text) => serde_json::json!({ "put": key, "value": text }),
            Err(_) => serde_json::json!({ "put": key, "value_base64": BASE64.encode(value) }),
        },
        Effect::Add { key, by } => serde_json::json!({ "add": key, "by": by }),
        Effect::Delete { key } => serde_json::json!({ "delete": key }),
        Effect::DeletePrefix { .. } => unreachable!("a transaction has no such operation"),
    }
}
