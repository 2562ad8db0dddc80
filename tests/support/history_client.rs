//! Clients that read and write a few shared keys through changing nodes, and record everything.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use fastrand::Rng;

use super::history::{Action, History, HistoryClock, Operation, Outcome, Version};
use super::http_client::{Failure, HttpClient};
use super::http_message::Answer;

/// The time that a client grants the node, in the words of the API. Short, so that a paused node costs little.
const NODE_TIMEOUT: &str = "timeout=1500ms";
/// The time after which a client gives a node up.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(3);
/// Operations after which a client may move to another node, on average.
const OPERATIONS_PER_NODE: usize = 60;

/// What all clients of a history share.
#[derive(Debug)]
pub struct HistoryRun {
    clock: HistoryClock,
    nodes: Vec<SocketAddr>,
    keys: u32,
    /// What the keys start with.
    name: String,
    stop: AtomicBool,
    recorded: AtomicUsize,
    next_value: AtomicU64,
}

/// Clients at work.
#[derive(Debug)]
pub struct HistoryClients {
    run: Arc<HistoryRun>,
    threads: Vec<JoinHandle<Vec<Operation>>>,
}

impl HistoryClients {
    /// Starts `clients` threads that work on `keys` keys. There should be at least twice as many keys as clients: the
    /// search for a linearization gets hard when more than about five operations at a time are on a key.
    pub fn start(nodes: Vec<SocketAddr>, clients: u32, keys: u32, seed: u64) -> HistoryClients {
        HistoryClients::start_named("shared", nodes, clients, keys, seed)
    }

    /// The same on keys that start with `name`. Nobody must have used them before: the history begins without them.
    pub fn start_named(
        name: &str,
        nodes: Vec<SocketAddr>,
        clients: u32,
        keys: u32,
        seed: u64,
    ) -> HistoryClients {
        assert!(keys >= 2 * clients, "too few keys for the checker");
        let run = Arc::new(HistoryRun {
            clock: HistoryClock::start(),
            nodes,
            keys,
            name: name.to_owned(),
            stop: AtomicBool::new(false),
            recorded: AtomicUsize::new(0),
            next_value: AtomicU64::new(1),
        });
        let threads = (0..clients)
            .map(|client| {
                let run = Arc::clone(&run);
                let rng = Rng::with_seed(seed.wrapping_add(u64::from(client)));
                std::thread::spawn(move || HistoryClient::new(run, client, rng).work())
            })
            .collect();
        HistoryClients { run, threads }
    }

    /// Operations recorded so far.
    pub fn recorded(&self) -> usize {
        self.run.recorded.load(Ordering::Relaxed)
    }

    /// Panics when a client has given up: it says why itself.
    pub fn assert_working(&self) {
        assert!(!self.threads.iter().any(JoinHandle::is_finished), "a client has panicked: see above");
    }

    /// Lets every client finish its current operation, reads every key through every node, and returns the history.
    pub fn stop(mut self) -> History {
        self.run.stop.store(true, Ordering::Relaxed);
        let mut history = History::default();
        for thread in self.threads.drain(..) {
            history.operations.extend(thread.join().expect("a client does not panic"));
        }
        let mut last = HistoryClient::new(Arc::clone(&self.run), u32::MAX, Rng::with_seed(0));
        for node in 0..self.run.nodes.len() {
            last.node = node;
            for key in 0..self.run.keys {
                last.perform(key, Action::Get);
            }
        }
        history.operations.append(&mut last.operations);
        history
    }
}

impl Drop for HistoryClients {
    fn drop(&mut self) {
        self.run.stop.store(true, Ordering::Relaxed);
    }
}

struct HistoryClient {
    run: Arc<HistoryRun>,
    client: u32,
    rng: Rng,
    node: usize,
    connections: Vec<HttpClient>,
    /// What this client last saw in each key.
    versions: Vec<Option<Version>>,
    operations: Vec<Operation>,
}

impl HistoryClient {
    fn new(run: Arc<HistoryRun>, client: u32, mut rng: Rng) -> HistoryClient {
        let connections =
            run.nodes.iter().map(|address| HttpClient::new(*address).with_timeout(CLIENT_TIMEOUT)).collect();
        HistoryClient {
            client,
            node: rng.usize(..run.nodes.len()),
            rng,
            connections,
            versions: vec![None; usize::try_from(run.keys).expect("few keys")],
            operations: Vec::new(),
            run,
        }
    }

    fn work(mut self) -> Vec<Operation> {
        while !self.run.stop.load(Ordering::Relaxed) {
            if self.rng.usize(..OPERATIONS_PER_NODE) == 0 {
                self.move_on();
            }
            let key = self.rng.u32(..self.run.keys);
            let action = self.choose(key);
            if !self.perform(key, action) {
                // The node is down, cut off or paused. Another one may be better.
                self.move_on();
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        self.operations
    }

    fn move_on(&mut self) {
        self.node = self.rng.usize(..self.run.nodes.len());
    }

    fn choose(&mut self, key: u32) -> Action {
        let value = self.run.next_value.fetch_add(1, Ordering::Relaxed);
        match self.rng.u32(..100) {
            0..45 => Action::Get,
            45..67 => Action::Put { value },
            67..89 => match self.versions[key as usize] {
                Some(expected) => Action::CompareAndSet { expected, value },
                None => Action::Create { value },
            },
            89..94 => Action::Create { value },
            _ => Action::Delete,
        }
    }

    /// Does and records an operation. Says whether there was a proper answer.
    fn perform(&mut self, key: u32, action: Action) -> bool {
        let call = self.run.clock.now();
        let answer = request(&mut self.connections[self.node], &self.run.name, key, action);
        let end = self.run.clock.now();
        let (outcome, revision) = match &answer {
            Ok(answer) => (outcome_of(action, answer), answer.revision()),
            Err(Failure::NotSent(_)) => (Outcome::NotApplied, None),
            Err(Failure::Unknown(_)) => (Outcome::Unknown, None),
        };
        self.versions[key as usize] = match (outcome, action.value(), revision) {
            (Outcome::Found(version), ..) => Some(version),
            (Outcome::Done, Some(value), Some(revision)) => Some(Version { value, revision }),
            _ => None,
        };
        let failed = matches!(outcome, Outcome::NotApplied | Outcome::Unknown);
        if !(failed && action == Action::Get) {
            self.operations.push(Operation {
                client: self.client,
                key,
                call,
                end,
                action,
                outcome,
                revision,
            });
            self.run.recorded.fetch_add(1, Ordering::Relaxed);
        }
        !failed
    }
}

fn request(client: &mut HttpClient, name: &str, key: u32, action: Action) -> Result<Answer, Failure> {
    let target = format!("/v1/storage/key/{name}-{key}?{NODE_TIMEOUT}");
    let body = action.value().map(|value| value.to_string()).unwrap_or_default();
    match action {
        Action::Get => client.request("GET", &target, &[], b""),
        Action::Put { .. } => client.request("PUT", &target, &[], body.as_bytes()),
        Action::Create { .. } => client.request("PUT", &target, &[("If-None-Match", "*")], body.as_bytes()),
        Action::CompareAndSet { expected, .. } => {
            let condition = format!("\"{}\"", expected.revision);
            client.request("PUT", &target, &[("If-Match", &condition)], body.as_bytes())
        }
        Action::Delete => client.request("DELETE", &target, &[], b""),
    }
}

fn outcome_of(action: Action, answer: &Answer) -> Outcome {
    match (answer.status, action) {
        (200, Action::Get) => Outcome::Found(Version {
            value: answer.text().parse().unwrap_or_else(|_| panic!("not a number: {answer:?}")),
            revision: answer.etag().unwrap_or_else(|| panic!("no ETag: {answer:?}")),
        }),
        (204, Action::Get) => Outcome::Missing,
        (200, _) => Outcome::Done,
        (412, Action::Create { .. } | Action::CompareAndSet { .. }) => {
            Outcome::ConditionFailed(answer.etag())
        }
        (503, _) => Outcome::NotApplied,
        (504, _) => Outcome::Unknown,
        _ => panic!("{action:?} must not be answered like this: {answer:?}"),
    }
}
