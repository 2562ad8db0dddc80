//! What users ask beside reading and writing one plain key: counters, appends, transactions, lives, listings, and all of
//! it under idempotency keys. Every answer is compared with what the log of record says it must be.

use std::io::Write as _;

use fastrand::Rng;
use keva::kv::command::{Command, Condition, Matcher, Operation, Requirement, Transaction, Write};
use keva::kv::range::KeyRange;
use keva::raft::types::Index;
use serde_json::{Value, json};

use crate::answer::{Answer, encode_percent};
use crate::checks::Record;
use crate::checks::model::{Content, Decision};
use crate::listings::List;
use crate::plan::{Class, Plan};

/// A life that no run outlasts.
const LONG_TTL_MS: u64 = 48 * 3600 * 1000;

/// One request.
#[derive(Clone, Debug)]
pub(crate) enum Ask {
    Write(Write),
    Read { key: String, is_stale: bool },
    List(List),
}

/// What an answer says about the request's place in the order of everything.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// It was carried out, or could not be, at this revision.
    Placed(u64),
    /// It had no effect, this time.
    NotApplied,
    /// The same request waits already.
    InFlight,
    Unknown,
}

/// The longest life that runs wait for, in milliseconds.
pub(crate) fn ttl_ms_max(plan: &Plan) -> u64 {
    plan.election_ms * 20
}

/// The name of a rich key.
pub(crate) fn rich_key(number: usize) -> String {
    ["r/0", "r/1", "r/10", "r/\u{e4} 1", "r", "r/2?x=1&y", "s%41", "r/1/#"][number % 8].to_owned()
}

/// Draws what to ask.
pub(crate) struct Chooser<'a> {
    pub(crate) rng: &'a mut Rng,
    pub(crate) plan: &'a Plan,
    /// The number of the request, if it writes something.
    pub(crate) tag: u64,
    /// What the user knows of the rich keys: their revisions.
    pub(crate) known: &'a [Option<u64>],
}

impl Chooser<'_> {
    pub(crate) fn choose(&mut self) -> Ask {
        let has = |class| self.plan.classes.has(class);
        if has(Class::Lists) && self.rng.u32(..4) == 0 {
            return Ask::List(self.list());
        }
        if self.rng.u32(..100) < 25 {
            let is_plain = self.rng.u32(..4) == 0;
            let key = if is_plain { format!("k{}", self.rng.u32(..self.plan.keys)) } else { self.key().1 };
            return Ask::Read { key, is_stale: has(Class::Lists) && self.rng.u32(..3) == 0 };
        }
        let draw = if has(Class::Rich) { self.rng.u32(..20) } else { self.rng.u32(..6) };
        let command = match draw {
            ..5 => self.put(),
            5 => self.delete(),
            6..10 => self.add(),
            10..14 => self.append(),
            14 => {
                Command::DeletePrefix { prefix: ["r", "r/", "r/1", "s", "none"][self.rng.usize(..5)].into() }
            }
            _ => Command::Transaction(self.transaction()),
        };
        Ask::Write(Write { command, idempotency_key: None })
    }

    fn key(&mut self) -> (usize, String) {
        let number = self.rng.usize(..self.plan.rich_keys);
        (number, rich_key(number))
    }

    fn ttl_ms(&mut self) -> Option<u64> {
        if !self.plan.classes.has(Class::Lives) || self.rng.u32(..3) == 0 {
            return None;
        }
        Some(match self.rng.u32(..8) {
            0 => LONG_TTL_MS,
            1 => self.rng.u64(1..10),
            2 => self.rng.u64(1..=ttl_ms_max(self.plan)),
            _ => self.rng.u64(1..=self.plan.election_ms * 3),
        })
    }

    fn condition(&mut self, number: usize) -> Condition {
        let mut condition = Condition::default();
        match (self.rng.u32(..10), self.known[number]) {
            (0..4, Some(revision)) => condition.if_match = Some(Matcher::Revisions(vec![Index(revision)])),
            (4, _) => condition.if_none_match = Some(Matcher::Any),
            (5, _) => condition.if_match = Some(Matcher::Any),
            _ => {}
        }
        condition
    }

    fn value(&mut self) -> Vec<u8> {
        let mut value = self.tag.to_string().into_bytes();
        match self.rng.u32(..6) {
            0 => value.push(b'\n'),
            1 | 2 => {}
            _ => value.extend_from_slice(b";x"),
        }
        if self.plan.classes.has(Class::Bulk) && self.rng.u32(..4) == 0 {
            value.push(b';');
            value.resize(self.rng.usize(10_000..40_000), b'z');
        }
        value
    }

    fn put(&mut self) -> Command {
        let (number, key) = self.key();
        let condition = self.condition(number);
        Command::Put { key, value: self.value(), content_type: None, condition, ttl_ms: self.ttl_ms() }
    }

    fn delete(&mut self) -> Command {
        let (number, key) = self.key();
        Command::Delete { key, condition: self.condition(number) }
    }

    fn by(&mut self) -> i64 {
        let tag = i64::try_from(self.tag).expect("few requests");
        match self.rng.u32(..12) {
            0 => i64::MAX - tag,
            1..4 => -tag,
            _ => tag,
        }
    }

    fn add(&mut self) -> Command {
        let (number, key) = self.key();
        let condition = if self.rng.u32(..4) == 0 { self.condition(number) } else { Condition::default() };
        Command::Add { key, by: self.by(), condition, ttl_ms: self.ttl_ms() }
    }

    fn append(&mut self) -> Command {
        let (number, key) = self.key();
        let condition = if self.rng.u32(..4) == 0 { self.condition(number) } else { Condition::default() };
        let mut value = self.value();
        if value.last().is_some_and(u8::is_ascii_digit) {
            value.push(b'.');
        }
        let bytes_max = self.plan.value_bytes_max as u64;
        Command::Append { key, value, content_type: None, condition, ttl_ms: self.ttl_ms(), bytes_max }
    }

    fn transaction(&mut self) -> Transaction {
        let mut conditions = Vec::new();
        for _ in 0..self.rng.usize(..3) {
            let (number, key) = self.key();
            let requirement = match (self.rng.u32(..8), self.known[number]) {
                (0..4, Some(revision)) => Requirement::Revision(Index(revision)),
                (4, _) => Requirement::Absent,
                (5, _) => Requirement::Value(b"7".to_vec()),
                _ => Requirement::Exists,
            };
            conditions.push((key, requirement));
        }
        let then = self.operations();
        let otherwise = (self.rng.u32(..3) == 0).then(|| self.operations());
        Transaction { conditions, then, otherwise }
    }

    /// The first one that writes a value has the request's number, so that the entry is known by it.
    fn operations(&mut self) -> Vec<Operation> {
        let mut operations = Vec::new();
        for _ in 0..=self.rng.usize(..5) {
            let key = self.key().1;
            operations.push(match self.rng.u32(..4) {
                0 => Operation::Get { key },
                1 => Operation::Delete { key },
                2 => Operation::Add { key, by: self.by(), ttl_ms: self.ttl_ms() },
                _ => Operation::Put { key, value: self.value(), content_type: None, ttl_ms: self.ttl_ms() },
            });
        }
        let key = self.key().1;
        operations.push(Operation::Put {
            key,
            value: self.value(),
            content_type: None,
            ttl_ms: self.ttl_ms(),
        });
        operations
    }

    fn list(&mut self) -> List {
        let mut range = KeyRange::prefix(["", "r", "r/", "r/1", "k", "k1"][self.rng.usize(..6)]);
        if self.rng.u32(..4) == 0 {
            range.start = Some(self.key().1);
        }
        if self.rng.u32(..4) == 0 {
            range.end = Some(["k3", "r/1", "r/2"][self.rng.usize(..3)].to_owned());
        }
        if self.rng.u32(..4) == 0 {
            range.after = Some(self.key().1);
        }
        let is_json = self.rng.bool();
        List {
            range,
            limit: self.rng.bool().then(|| self.rng.usize(1..5)),
            with_values: is_json && self.rng.bool(),
            is_count: self.rng.u32(..6) == 0,
            is_json,
            is_stale: self.rng.u32(..4) == 0,
        }
    }
}

/// A request as bytes.
pub(crate) struct Request {
    method: &'static str,
    path: String,
    pub(crate) query: Vec<String>,
    pub(crate) headers: Vec<String>,
    body: Option<Vec<u8>>,
}

impl Ask {
    /// Whether it may be repeated under an idempotency key.
    pub(crate) fn is_write(&self) -> bool {
        matches!(self, Ask::Write(_))
    }

    /// Writes the request, in one of the ways to say the same.
    pub(crate) fn write(&self, rng: &mut Rng, timeout_ms: u64, out: &mut Vec<u8>) {
        let mut request = match self {
            Ask::Write(write) => {
                let mut request = write_command(rng, &write.command);
                request
                    .headers
                    .extend(write.idempotency_key.iter().map(|key| format!("Idempotency-Key: {key}")));
                request
            }
            Ask::Read { key, is_stale } => {
                let mut request = Request::on_key("GET", key);
                if *is_stale {
                    request.query.push("consistency=stale".to_owned());
                }
                request
            }
            Ask::List(list) => list.to_request(),
        };
        request.query.push(format!("timeout={timeout_ms}ms"));
        request.put_down(out);
    }

    /// Compares an answer with what it must be.
    pub(crate) fn check(&self, record: &Record, answer: &Answer) -> Verdict {
        let head = &answer.head;
        match (head.status, answer.code().as_str()) {
            (408 | 503 | 507, _) => return Verdict::NotApplied,
            (504, _) if self.is_write() => return Verdict::Unknown,
            (409, "idempotency-key-in-flight" | "in-flight") => return Verdict::InFlight,
            _ => {}
        }
        let revision = head.revision.unwrap_or_else(|| panic!("no revision: {answer:?} to {self:?}"));
        assert!(revision <= record.len(), "answered before it was committed: {answer:?} to {self:?}");
        let result = match self {
            Ask::Write(write) => check_write(record, write, revision, answer),
            Ask::Read { key, .. } => check_read(record.model.at(key, revision), answer),
            Ask::List(list) => list.check(record, revision, answer),
        };
        if let Err(complaint) = result {
            panic!("{complaint}: {self:?} was answered at revision {revision} with {answer:?}");
        }
        Verdict::Placed(revision)
    }
}

/// A read's answer is the key's content at the answer's revision.
pub(crate) fn check_read(content: Option<&Content>, answer: &Answer) -> Result<(), String> {
    let head = &answer.head;
    let Some(content) = content else {
        let is_absent = matches!(head.status, 204 | 404) && head.etag.is_none();
        return if is_absent { Ok(()) } else { Err("the key is absent".to_owned()) };
    };
    let is_same = head.status == 200 && head.etag == Some(content.revision) && *answer.body == *content.value;
    let most = content.ttl_ms.map(|ttl_ms| ttl_ms.div_ceil(1000));
    let is_life_right = match (head.ttl, most) {
        (None, None) => true,
        (Some(left), Some(most)) => left <= most,
        _ => false,
    };
    if is_same && is_life_right { Ok(()) } else { Err(format!("the key holds {content:?}")) }
}

fn check_write(record: &Record, write: &Write, revision: u64, answer: &Answer) -> Result<(), String> {
    let entry = record.get(revision);
    if entry.write.as_ref() != Some(write) {
        return Err(format!("the entry is another one, {entry:?}"));
    }
    let head = &answer.head;
    let body = || serde_json::from_slice::<Value>(&answer.body).unwrap_or_default();
    let is_right = match &entry.decision {
        Decision::Written => head.status == 200 && *answer.body == *b"{\"done\":\"true\"}",
        Decision::Counted(sum) => {
            head.status == 200 && *answer.body == *sum.to_string().as_bytes() && head.etag == Some(revision)
        }
        Decision::Deleted(count) => head.status == 200 && body()["deleted"] == *count,
        Decision::Transaction(succeeded, results) => {
            let body = body();
            head.status == 200
                && body["succeeded"] == *succeeded
                && body["revision"] == revision
                && body["results"] == Value::Array(results.clone())
        }
        Decision::Failed(current) => head.status == 412 && head.etag == *current,
        Decision::RequirementFailed(_) => head.status == 412,
        Decision::Refused(code) => matches!(head.status, 409 | 413) && answer.code() == *code,
        Decision::KeyReused => head.status == 422 && answer.code() == "idempotency-key-reused",
        Decision::NoOp | Decision::Internal | Decision::Skipped | Decision::Repeated(_) => false,
    };
    if is_right { Ok(()) } else { Err(format!("the entry did {:?}", entry.decision)) }
}

impl Request {
    pub(crate) fn new(method: &'static str, path: &str) -> Request {
        Request { method, path: path.to_owned(), query: Vec::new(), headers: Vec::new(), body: None }
    }

    fn on_key(method: &'static str, key: &str) -> Request {
        Request::new(method, &format!("/v1/storage/key/{}", encode_percent(key)))
    }

    fn put_down(&self, out: &mut Vec<u8>) {
        let Request { method, path, query, headers, body } = self;
        write!(out, "{method} {path}?{} HTTP/1.1\r\nHost: n\r\n", query.join("&")).expect("memory");
        for header in headers {
            write!(out, "{header}\r\n").expect("memory");
        }
        if let Some(body) = body {
            write!(out, "Content-Length: {}\r\n", body.len()).expect("memory");
        }
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(body.as_deref().unwrap_or_default());
    }
}

fn write_command(rng: &mut Rng, command: &Command) -> Request {
    match command {
        Command::Put { key, value, condition, ttl_ms, .. } => {
            let mut request = Request::on_key(if rng.bool() { "PUT" } else { "POST" }, key);
            request.body = Some(value.clone());
            with_options(rng, request, condition, *ttl_ms)
        }
        Command::Append { key, value, condition, ttl_ms, .. } => {
            let mut request = Request::on_key("POST", key);
            request.query.push("append".to_owned());
            request.body = Some(value.clone());
            with_options(rng, request, condition, *ttl_ms)
        }
        Command::Add { key, by, condition, ttl_ms } => {
            let mut request = Request::on_key("POST", key);
            request.query.push(format!("add={by}"));
            request.body = rng.bool().then(Vec::new);
            with_options(rng, request, condition, *ttl_ms)
        }
        Command::Delete { key, condition } => {
            let mut request = Request::on_key("DELETE", key);
            if rng.u32(..3) == 0 {
                request.method = "POST";
                request.query.push("delete".to_owned());
                request.body = Some(Vec::new());
            }
            with_options(rng, request, condition, None)
        }
        Command::DeletePrefix { prefix } => {
            let mut request = Request::new("DELETE", "/v1/storage/keys");
            request.query.push(format!("prefix={}", encode_percent(prefix)));
            request
        }
        Command::Transaction(transaction) => {
            let mut request = Request::new("POST", "/v1/storage/txn");
            request.body = Some(transaction_json(transaction).to_string().into_bytes());
            request
        }
        Command::Expire { .. } | Command::Tick => unreachable!("users cannot ask for it"),
    }
}

fn with_options(rng: &mut Rng, mut request: Request, condition: &Condition, ttl_ms: Option<u64>) -> Request {
    let is_short = rng.bool();
    match &condition.if_match {
        None => {}
        Some(Matcher::Any) => request.headers.push("If-Match: *".to_owned()),
        Some(Matcher::Revisions(list)) if is_short => request.query.push(format!("if_rev={}", list[0])),
        Some(Matcher::Revisions(list)) => request.headers.push(format!("If-Match: \"{}\"", list[0])),
    }
    match &condition.if_none_match {
        None => {}
        Some(_) if is_short => request.query.push("if_absent".to_owned()),
        Some(_) => request.headers.push("If-None-Match: *".to_owned()),
    }
    request.query.extend(ttl_ms.map(|ttl_ms| format!("ttl={}", duration(rng, ttl_ms))));
    request
}

fn duration(rng: &mut Rng, ms: u64) -> String {
    let units = [(86_400_000, "d"), (3_600_000, "h"), (1000, "s")];
    let whole: Vec<_> = units.into_iter().filter(|(unit, _)| ms.is_multiple_of(*unit)).collect();
    match whole.get(rng.usize(..=whole.len())) {
        Some((unit, name)) => format!("{}{name}", ms / unit),
        None => format!("{ms}ms"),
    }
}

fn transaction_json(transaction: &Transaction) -> Value {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("users write text");
    let conditions: Vec<Value> = transaction
        .conditions
        .iter()
        .map(|(key, requirement)| match requirement {
            Requirement::Revision(revision) => json!({"key": key, "rev": revision.0}),
            Requirement::Absent => json!({"key": key, "absent": true}),
            Requirement::Exists => json!({"key": key, "exists": true}),
            Requirement::Value(value) => json!({"key": key, "value": text(value)}),
        })
        .collect();
    let with_ttl = |mut operation: Value, ttl_ms: Option<u64>| {
        if let Some(ttl_ms) = ttl_ms {
            operation["ttl"] = format!("{ttl_ms}ms").into();
        }
        operation
    };
    let operations = |list: &[Operation]| -> Value {
        list.iter()
            .map(|operation| match operation {
                Operation::Put { key, value, ttl_ms, .. } => {
                    with_ttl(json!({"put": key, "value": text(value)}), *ttl_ms)
                }
                Operation::Add { key, by, ttl_ms } => with_ttl(json!({"add": key, "by": by}), *ttl_ms),
                Operation::Delete { key } => json!({"delete": key}),
                Operation::Get { key } => json!({"get": key}),
            })
            .collect()
    };
    let mut body = json!({"then": operations(&transaction.then)});
    if !conditions.is_empty() {
        body["if"] = conditions.into();
    }
    if let Some(otherwise) = &transaction.otherwise {
        body["else"] = operations(otherwise);
    }
    body
}
