//! A client connection with a tiny one-node store behind it, and a strict reader of responses.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "each test binary uses its own part")]

use std::rc::Rc;

use keva::kv::command::Write;
use keva::kv::payload::Payload;
use keva::kv::session::WriteId;
use keva::kv::store::Store;
use keva::net::api::follow::{Follow, Goal};
use keva::net::api::{
    Action, ClusterView, HandedOver, Health, MemberView, MetricsView, NodeView, Render, render,
    render_hand_over, render_metrics, render_status,
};
use keva::net::client::{Call, ClientConnection, ClientContext, ClientLimits};
use keva::net::http::response::Response;
use keva::net::metrics::{Responses, StorageUse, Traffic, TurnTimes};
use keva::raft::types::{EntryId, Incarnation, Index, NodeId, Term};
use keva::replica::io::{
    Applied, InFlight, Listing, Outcome, ReplicaStatus, Reply, Request, RoleName, Standing, Ticket,
};
use keva::util::time::{LogicalTime, Millis};

/// Longest value in these tests.
pub const VALUE_BYTES_MAX: usize = 200_000;

/// A state machine that applies writes at once.
#[derive(Default)]
pub struct TestNode {
    pub store: Store,
    pub time: LogicalTime,
}

pub fn view() -> NodeView {
    NodeView {
        node: "host1".into(),
        leader: Some("host2".into()),
        health: Health::default(),
        time: LogicalTime(0),
    }
}

pub fn reply(revision: u64, outcome: Outcome) -> Reply {
    Reply { ticket: Ticket(0), revision: Index(revision), outcome }
}

impl TestNode {
    pub fn revision(&self) -> u64 {
        self.store.applied_index().0
    }

    pub fn answer(&mut self, action: Action) -> Response {
        match action {
            Action::Status(page) => {
                let status = self.status();
                render_status(page, &status, &ClusterView { now: Millis(0), members: &[member()] }, &view())
            }
            Action::Submit { render: Render::Follow(follow), .. } => self.follow(*follow),
            Action::Metrics => {
                let metrics = MetricsView {
                    in_flight: InFlight::default(),
                    synced_index: self.store.applied_index(),
                    log_bytes: 0,
                    client_connections: 1,
                    responses: &Responses::default(),
                    client_traffic: &Traffic::default(),
                    peer_traffic: &Traffic::default(),
                    storage: &StorageUse::default(),
                    turns: &TurnTimes::default(),
                };
                let cluster = ClusterView { now: Millis(0), members: &[member()] };
                render_metrics(&metrics, &self.status(), &cluster, &view())
            }
            Action::Submit { request, render: how, .. } => {
                let (revision, outcome) = self.carry_out(request);
                render(how, reply(revision.0, outcome), &NodeView { time: self.time, ..view() })
            }
            Action::HandOver { to, .. } => {
                let end = match to {
                    Some(name) if name != "host1" => HandedOver::NoSuchNode(name),
                    _ => HandedOver::Done(NodeId(1)),
                };
                render_hand_over(end, &ClusterView { now: Millis(0), members: &[member()] }, &view())
            }
        }
    }

    /// A stream begins; whoever waits is told at once that its time is over.
    fn follow(&mut self, follow: Follow) -> Response {
        match follow {
            Follow::Watch(watch) => watch.response(self.store.applied_index()),
            Follow::Wait(wait) => match &wait.goal {
                Goal::Key { key, .. } => {
                    let request = Request::Read { key: key.clone(), consistency: wait.consistency };
                    let (revision, outcome) = self.carry_out(request);
                    render(wait.render, reply(revision.0, outcome), &view())
                }
                Goal::List { above, .. } => wait.unchanged_listing(*above),
            },
        }
    }

    fn status(&self) -> ReplicaStatus {
        ReplicaStatus {
            id: NodeId(1),
            role: RoleName::Leader,
            term: Term(3),
            leader: Some(NodeId(1)),
            commit_index: self.store.applied_index(),
            applied_index: self.store.applied_index(),
            last_index: self.store.applied_index(),
            log_start: EntryId::default(),
            snapshot: None,
            snapshot_draft: None,
            standing: Standing::Voter,
            is_full: false,
            leader_is_full: false,
            keys: self.store.key_count(),
            peers: Vec::new(),
        }
    }

    fn carry_out(&mut self, request: Request) -> (Index, Outcome) {
        let applied = self.store.applied_index();
        match request {
            Request::Barrier => (applied, Outcome::Reached),
            Request::Read { key, .. } => (applied, Outcome::Value(self.store.get(&key).cloned())),
            Request::List { range, listing: Listing::Count, .. } => {
                (applied, Outcome::Count(self.store.range(&range).count() as u64))
            }
            Request::List { range, listing: Listing::Page { limit, with_values }, .. } => {
                (applied, Outcome::Page(self.store.page(&range, limit, with_values)))
            }
            Request::Write(write) => self.apply(write),
        }
    }

    fn apply(&mut self, write: Write) -> (Index, Outcome) {
        assert_eq!(write.check(), Ok(()), "only what keeps the rules is asked of a node");
        let index = self.store.applied_index().next();
        let id = WriteId { origin: NodeId(1), incarnation: Incarnation(1), seq: index.0 };
        match self.store.apply(index, Payload { id, time: self.time, write }) {
            Applied::Repeated { revision, first } => (revision, Outcome::Applied(*first)),
            outcome => (index, Outcome::Applied(outcome)),
        }
    }
}

fn member() -> MemberView<'static> {
    MemberView {
        id: NodeId(1),
        identity: "host1",
        address: "10.0.0.1",
        keva_port: 1,
        user_port: 2,
        connected: true,
        last_contact: None,
        version: None,
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

impl Client {
    /// One request in parts, one response.
    pub fn tell(&mut self, method: &str, target: &str, headers: &str, body: &str) -> Answer {
        self.ask(request(method, target, headers, body))
    }

    /// What the node is asked by a request that must be understood.
    pub fn understood(method: &str, target: &str, headers: &str, body: &str) -> Action {
        let mut client = Client::new();
        client.connection.receive(client.now, request(method, target, headers, body).as_bytes());
        client.next_call().unwrap_or_else(|| panic!("{method} {target} is no call")).action
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

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        assert!(self.header("content-type").unwrap().contains("json"));
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The status and code of a problem.
    pub fn problem(&self) -> (u16, String) {
        (self.status, self.member("code"))
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

/// Any request. A body, even an empty one, goes with `PUT` and `POST`.
pub fn request(method: &str, target: &str, headers: &str, body: &str) -> String {
    let length = if body.is_empty() && method != "PUT" && method != "POST" {
        String::new()
    } else {
        format!("Content-Length: {}\r\n", body.len())
    };
    format!("{method} {target} HTTP/1.1\r\nHost: h\r\n{headers}{length}\r\n{body}")
}
