//! A client connection with a tiny one-node store behind it, and a strict reader of responses.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "each test binary uses its own part")]

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use keva::kv::command::{Command, Condition, Matcher};
use keva::net::api::{
    Action, ClusterView, Health, MemberView, MetricsView, NodeView, render, render_metrics, render_status,
};
use keva::net::client::{Call, ClientConnection, ClientContext, ClientLimits};
use keva::net::http::response::Response;
use keva::net::metrics::{Responses, StorageUse, Traffic, TurnTimes};
use keva::raft::types::{EntryId, Index, NodeId, Term};
use keva::replica::io::{InFlight, Item, Outcome, ReplicaStatus, Reply, Request, RoleName, Standing, Ticket};
use keva::util::time::Millis;

/// Longest value in these tests.
pub const VALUE_BYTES_MAX: usize = 200_000;

/// A store that applies writes at once.
#[derive(Default)]
pub struct TestNode {
    pub revision: u64,
    pub items: BTreeMap<String, Item>,
}

pub fn view() -> NodeView {
    NodeView { node: "host1".into(), leader: Some("host2".into()), health: Health::default() }
}

pub fn reply(revision: u64, outcome: Outcome) -> Reply {
    Reply { ticket: Ticket(0), revision: Index(revision), outcome }
}

fn holds(condition: &Condition, current: Option<Index>) -> bool {
    let matches = |matcher: &Matcher| match (matcher, current) {
        (_, None) => false,
        (Matcher::Any, Some(_)) => true,
        (Matcher::Revisions(list), Some(current)) => list.contains(&current),
    };
    condition.if_match.as_ref().is_none_or(matches) && !condition.if_none_match.as_ref().is_some_and(matches)
}

impl TestNode {
    pub fn answer(&mut self, action: Action) -> Response {
        let member = MemberView {
            id: NodeId(1),
            identity: "host1",
            address: "10.0.0.1",
            keva_port: 1,
            user_port: 2,
            connected: true,
            last_contact: None,
            version: None,
        };
        let cluster = ClusterView { now: Millis(0), members: &[member] };
        match action {
            Action::Status(page) => render_status(page, &self.status(), &cluster, &view()),
            Action::Metrics => {
                let metrics = MetricsView {
                    in_flight: InFlight::default(),
                    synced_index: Index(self.revision),
                    log_bytes: 0,
                    client_connections: 1,
                    responses: &Responses::default(),
                    client_traffic: &Traffic::default(),
                    peer_traffic: &Traffic::default(),
                    storage: &StorageUse::default(),
                    turns: &TurnTimes::default(),
                };
                render_metrics(&metrics, &self.status(), &cluster, &view())
            }
            Action::Submit { request, render: how, .. } => {
                let outcome = self.apply(request);
                render(how, reply(self.revision, outcome), &view())
            }
        }
    }

    fn status(&self) -> ReplicaStatus {
        ReplicaStatus {
            id: NodeId(1),
            role: RoleName::Leader,
            term: Term(3),
            leader: Some(NodeId(1)),
            commit_index: Index(self.revision),
            applied_index: Index(self.revision),
            last_index: Index(self.revision),
            log_start: EntryId::default(),
            snapshot: None,
            snapshot_draft: None,
            standing: Standing::Voter,
            is_full: false,
            leader_is_full: false,
            keys: self.items.len() as u64,
            peers: Vec::new(),
        }
    }

    fn apply(&mut self, request: Request) -> Outcome {
        match request {
            Request::Barrier => Outcome::Reached,
            Request::Read { key, .. } => Outcome::Value(self.items.get(&key).cloned()),
            Request::Write(command) => {
                self.revision += 1;
                let (key, condition) = match &command {
                    Command::Put { key, condition, .. } | Command::Delete { key, condition } => {
                        (key.clone(), condition.clone())
                    }
                };
                let current = self.items.get(&key).map(|item| item.revision);
                if !holds(&condition, current) {
                    return Outcome::ConditionFailed { current };
                }
                match command {
                    Command::Put { key, value, content_type, .. } => {
                        let item = Item {
                            value: value.into(),
                            content_type: content_type.map(Arc::from),
                            revision: Index(self.revision),
                        };
                        self.items.insert(key, item);
                    }
                    Command::Delete { key, .. } => {
                        self.items.remove(&key);
                    }
                }
                Outcome::Written
            }
        }
    }
}

pub fn context() -> Rc<ClientContext> {
    let limits = ClientLimits { value_bytes_max: VALUE_BYTES_MAX, ..ClientLimits::default() };
    Rc::new(ClientContext { limits, ..ClientContext::default() })
}

/// A connection, its node and everything it sent.
pub struct Client {
    pub connection: ClientConnection,
    pub context: Rc<ClientContext>,
    pub node: TestNode,
    pub now: Millis,
    pub sent: Vec<u8>,
    /// What was asked of the node, as text.
    pub calls: Vec<String>,
}

impl Client {
    pub fn new() -> Client {
        let now = Millis(1_000);
        let context = context();
        Client {
            connection: ClientConnection::new(now, Rc::clone(&context)),
            context,
            node: TestNode::default(),
            now,
            sent: Vec::new(),
            calls: Vec::new(),
        }
    }

    /// Gives the bytes to the connection, answers every call at once and takes all output.
    pub fn feed(&mut self, bytes: impl AsRef<[u8]>) -> &mut Client {
        self.connection.receive(self.now, bytes.as_ref());
        self.run()
    }

    pub fn end(&mut self) -> &mut Client {
        self.connection.receive_end(self.now);
        self.run()
    }

    /// Answers and sends until nothing happens any more.
    pub fn run(&mut self) -> &mut Client {
        loop {
            while let Some(Call { id, action }) = self.connection.next_call(self.now) {
                self.calls.push(format!("{action:?}"));
                let response = self.node.answer(action);
                self.connection.respond(self.now, id, response);
            }
            if self.drain() == 0 {
                return self;
            }
        }
    }

    /// Takes all output; gives the number of bytes.
    pub fn drain(&mut self) -> usize {
        let before = self.sent.len();
        while !self.connection.output().is_empty() {
            let output = self.connection.output();
            let count = output.len();
            self.sent.extend_from_slice(output);
            self.connection.sent(self.now, count);
        }
        self.sent.len() - before
    }

    pub fn next_call(&mut self) -> Option<Call> {
        self.connection.next_call(self.now)
    }

    pub fn at(&mut self, millis: u64) -> &mut Client {
        self.now = Millis(millis);
        self.connection.handle_deadline(self.now);
        self.run()
    }

    /// Whether the last response was sent and the connection ends.
    pub fn is_closing(&self) -> bool {
        self.connection.wants_shutdown_write() || self.connection.is_finished()
    }

    /// The responses sent so far; the requests were no `HEAD`.
    pub fn responses(&self) -> Vec<Answer> {
        parse(&self.sent, |_| false)
    }

    pub fn statuses(&self) -> Vec<u16> {
        self.responses().iter().map(|answer| answer.status).collect()
    }

    /// One request, one response, then forgotten.
    pub fn ask(&mut self, request: impl AsRef<[u8]>) -> Answer {
        let is_head = request.as_ref().starts_with(b"HEAD ");
        self.sent.clear();
        self.feed(request);
        let mut answers = parse(&self.sent, |_| is_head);
        assert_eq!(answers.len(), 1, "{}", String::from_utf8_lossy(&self.sent));
        self.sent.clear();
        answers.remove(0)
    }
}

/// A response as a client sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "the header {name} is there twice");
        value
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// A member of a problem.
    pub fn member(&self, name: &str) -> String {
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        let json: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        json[name].as_str().unwrap_or_else(|| panic!("no {name} in {json}")).to_owned()
    }
}

/// Reads a stream of responses to its end. `is_head` tells which of the final ones answer a `HEAD`.
pub fn parse(mut bytes: &[u8], is_head: impl Fn(usize) -> bool) -> Vec<Answer> {
    let mut answers: Vec<Answer> = Vec::new();
    let mut finals = 0;
    while !bytes.is_empty() {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("a complete head");
        let head = std::str::from_utf8(&bytes[..end]).unwrap();
        bytes = &bytes[end + 4..];
        let mut lines = head.split("\r\n");
        let status: u16 = lines.next().unwrap().strip_prefix("HTTP/1.1 ").unwrap()[..3].parse().unwrap();
        let headers: Vec<(String, String)> = lines
            .map(|line| line.split_once(": ").expect("a colon in a header"))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let mut answer = Answer { status, headers, body: Vec::new() };
        let length = answer.header("content-length").map(|text| text.parse::<usize>().unwrap());
        let bodiless = status < 200 || status == 204 || status == 304;
        assert_eq!(length.is_none(), bodiless, "Content-Length with {status}");
        let sends_body = !bodiless && !is_head(finals);
        if sends_body {
            let length = length.unwrap();
            answer.body = bytes[..length].to_vec();
            bytes = &bytes[length..];
        }
        finals += usize::from(status >= 200);
        answers.push(answer);
    }
    answers
}

/// `GET` of a key.
pub fn get(key: &str) -> String {
    format!("GET /v1/storage/key/{key} HTTP/1.1\r\nHost: h\r\n\r\n")
}

/// `PUT` of a key.
pub fn put(key: &str, value: &str) -> String {
    let length = value.len();
    format!("PUT /v1/storage/key/{key} HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n{value}")
}
