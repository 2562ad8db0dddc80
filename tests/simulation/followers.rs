//! Users that follow changes: streams over HTTP, resumed through other nodes when they break, and requests that wait for
//! a change. Some read slowly, some hang up in the middle of an event.

use fastrand::Rng;
use serde_json::Value;

use crate::answer::{Answer, Head, encode_percent};
use crate::asks::{check_read, rich_key};
use crate::checks::order::Span;
use crate::checks::stream::{Event as Told, Stream, Subject};
use crate::env::{Env, Event};
use crate::marks::Mark;
use crate::network::{ReadEnd, Socket, Status};
use crate::plan::{Plan, exponential, stream};
use crate::users::Load;

/// Longest silence of a stream before its follower tries another one.
const SILENCE_US: u64 = 30_000_000;

/// What was asked on a connection.
#[derive(Clone, Debug)]
enum Wish {
    Nothing,
    /// A stream, in JSON lines or not.
    Watch {
        is_json: bool,
        is_stale: bool,
    },
    /// A key that is not at this revision (or absent: `None`).
    WaitKey {
        key: String,
        known: Option<u64>,
    },
    /// A listing after this revision.
    WaitList {
        prefix: String,
        above: u64,
    },
}

/// One of them.
#[derive(Debug)]
pub(crate) struct Follower {
    index: usize,
    host: usize,
    rng: Rng,
    socket: Option<Socket>,
    /// The node of the last stream.
    last_node: Option<usize>,
    output: Vec<u8>,
    input: Vec<u8>,
    /// What the chunks hold.
    text: Vec<u8>,
    wish: Wish,
    is_streaming: bool,
    call: u64,
    stream: Stream,
    /// The last that is known of the key of the subject, for requests that wait.
    known: u64,
    next_at: u64,
    give_up_at: u64,
    asleep_until: u64,
    is_final: bool,
    pub(crate) wake_at: Option<u64>,
}

impl Follower {
    pub(crate) fn new(number: usize, plan: &Plan) -> Follower {
        let mut rng = stream(plan.seed, 5000 + number as u64);
        let stream = Stream::new(draw_subject(&mut rng, plan));
        Follower {
            index: plan.users + number,
            host: plan.nodes + plan.users + number,
            next_at: rng.u64(..=plan.unit() * 2),
            rng,
            socket: None,
            last_node: None,
            output: Vec::new(),
            input: Vec::new(),
            text: Vec::new(),
            wish: Wish::Nothing,
            is_streaming: false,
            call: 0,
            stream,
            known: 0,
            give_up_at: u64::MAX,
            asleep_until: 0,
            is_final: false,
            wake_at: None,
        }
    }

    pub(crate) fn wake(&mut self, env: &mut Env, at: u64) {
        if self.wake_at.is_none_or(|wake| at < wake) {
            self.wake_at = Some(at);
            env.schedule(at, Event::User { user: self.index });
        }
    }

    /// No more faults: it must get all that there is.
    pub(crate) fn start_final(&mut self, env: &mut Env, load: &Load) {
        self.is_final = true;
        self.asleep_until = 0;
        let is_outside =
            self.socket.is_some_and(|socket| !load.targets.contains(&env.network.host_of(socket ^ 1)));
        if is_outside || !matches!(self.wish, Wish::Watch { is_stale: false, .. }) {
            self.leave(env);
        }
        self.next_at = self.next_at.min(env.now);
        self.wake(env, env.now);
    }

    pub(crate) fn is_satisfied(&mut self, env: &Env) -> bool {
        self.is_streaming && self.text.is_empty() && self.stream.is_current(&env.checks.record.model)
    }

    /// Does whatever is to be done at the moment.
    pub(crate) fn act(&mut self, env: &mut Env, load: &mut Load) {
        drop(env.network.take_ready(self.host));
        if env.now < self.asleep_until {
            return self.wake(env, self.asleep_until);
        }
        self.receive(env, load);
        if self.give_up_at <= env.now {
            self.leave(env);
        }
        if self.next_at <= env.now {
            self.go_on(env, load);
        }
        if let Some(socket) = self.socket
            && !self.output.is_empty()
        {
            let count = env.network.write(socket, &self.output);
            self.output.drain(..count);
        }
        let at = self.give_up_at.min(self.next_at);
        if at < u64::MAX {
            self.wake(env, at.max(env.now + 1));
        }
    }

    /// Dials, or asks.
    fn go_on(&mut self, env: &mut Env, load: &Load) {
        let Some(socket) = self.socket else {
            let target = load.targets[self.rng.usize(..load.targets.len())];
            self.socket = Some(env.network.dial(self.host, target));
            // A dial that nobody answers is given up too.
            self.next_at = env.now + env.plan.unit();
            return;
        };
        self.next_at = u64::MAX;
        match env.network.status(socket) {
            Status::Open if matches!(self.wish, Wish::Nothing) => self.ask(env),
            Status::Open => {}
            _ => self.leave(env),
        }
    }

    fn ask(&mut self, env: &mut Env) {
        if self.rng.u32(..12) == 0 && !self.is_final {
            self.stream = Stream::new(draw_subject(&mut self.rng, &env.plan));
            (self.last_node, self.known) = (None, 0);
        }
        let wait_ms = self.rng.u64(1..env.plan.election_ms * 6);
        self.wish = match (self.rng.u32(..10), self.stream.subject()) {
            (0..3, Subject::Key(key)) if !self.is_final => {
                let known =
                    (self.known > 0 || self.rng.bool()).then_some(self.known).filter(|known| *known > 0);
                Wish::WaitKey { key: key.clone(), known }
            }
            (0..3, Subject::Prefix(prefix)) if !self.is_final && self.known > 0 => {
                Wish::WaitList { prefix: prefix.clone(), above: self.known }
            }
            _ => Wish::Watch { is_json: self.rng.bool(), is_stale: !self.is_final && self.rng.u32(..6) == 0 },
        };
        self.call = env.checks.next_tick();
        let mut query = vec![format!("timeout={}ms", env.plan.timeout_ms)];
        let mut headers = String::from("Host: n\r\n");
        let path = match self.stream.subject() {
            Subject::Key(key) => format!("/v1/storage/key/{}", encode_percent(key)),
            Subject::Prefix(prefix) => {
                query.extend((!prefix.is_empty()).then(|| format!("prefix={}", encode_percent(prefix))));
                "/v1/storage/keys".to_owned()
            }
        };
        let mut patience = env.plan.timeout_ms * 1500 + env.plan.unit() * 2;
        match &self.wish {
            Wish::Watch { is_json, is_stale } => {
                query.push("watch".to_owned());
                query.extend(is_stale.then(|| "consistency=stale".to_owned()));
                headers.push_str(if *is_json { "Accept: application/x-ndjson\r\n" } else { "" });
                if self.rng.u32(..20) == 0 {
                    // All there is.
                    self.stream.since = Some(0);
                }
                match self.stream.since {
                    Some(since) if self.rng.bool() => {
                        headers.push_str(&format!("Last-Event-ID: {since}\r\n"));
                    }
                    Some(since) => query.push(format!("since={since}")),
                    None => {}
                }
            }
            Wish::WaitKey { known, .. } => {
                query.push(format!("wait={wait_ms}ms"));
                patience += wait_ms * 1500;
                if let Some(known) = known {
                    headers.push_str(&format!("If-None-Match: \"{known}\"\r\n"));
                }
            }
            Wish::WaitList { above, .. } => {
                query.push(format!("wait={wait_ms}ms"));
                patience += wait_ms * 1500;
                headers.push_str(&format!("If-None-Match: \"{above}\"\r\n"));
            }
            Wish::Nothing => unreachable!("it was just chosen"),
        }
        env.trace(|| {
            let (wish, stream) = (&self.wish, &self.stream);
            format!(
                "follower{} asks {:?}, {wish:?}, {stream:?}",
                self.index,
                env.network.host_of(self.socket.unwrap_or(0) ^ 1)
            )
        });
        self.output = format!("GET {path}?{} HTTP/1.1\r\n{headers}\r\n", query.join("&")).into_bytes();
        self.give_up_at = env.now + patience;
    }

    /// Closes the connection, and comes back.
    fn leave(&mut self, env: &mut Env) {
        if let Some(socket) = self.socket.take() {
            env.network.close(socket);
        }
        if self.is_streaming && !self.input.is_empty() {
            env.mark(Mark::WatchCut);
        }
        self.input.clear();
        self.output.clear();
        self.text.clear();
        (self.wish, self.is_streaming, self.give_up_at) = (Wish::Nothing, false, u64::MAX);
        self.next_at = env.now + 1 + exponential(&mut self.rng, env.plan.unit() / 5);
    }

    fn receive(&mut self, env: &mut Env, load: &mut Load) {
        let Some(socket) = self.socket else { return };
        let end = env.network.read(socket, &mut self.input);
        if self.next_at < u64::MAX
            && env.network.status(socket) == Status::Open
            && matches!(self.wish, Wish::Nothing)
        {
            self.next_at = env.now;
        }
        match self.wish {
            Wish::Nothing => {}
            Wish::Watch { .. } => self.read_stream(env, load),
            Wish::WaitKey { .. } | Wish::WaitList { .. } => {
                if let Some(answer) = Answer::take(&mut self.input) {
                    self.finish_wait(env, load, &answer);
                    self.wish = Wish::Nothing;
                    (self.next_at, self.give_up_at) = (env.now + 1, u64::MAX);
                    if answer.head.is_last || self.rng.u32(..3) == 0 {
                        return self.leave(env);
                    }
                }
            }
        }
        if end != ReadEnd::Empty && self.socket.is_some() {
            self.leave(env);
        }
    }

    // ---- streams --------------------------------------------------------------------------------

    fn read_stream(&mut self, env: &mut Env, load: &mut Load) {
        if !self.is_streaming {
            let Some(head) = Head::parse(&self.input) else { return };
            if head.status != 200 {
                let Some(answer) = Answer::take(&mut self.input) else { return };
                assert!(matches!(head.status, 408 | 503), "a stream is not refused like this: {answer:?}");
                return self.leave(env);
            }
            self.begin_stream(env, load, &head);
        }
        let Wish::Watch { is_json, .. } = self.wish else { unreachable!("it is a stream") };
        let before = self.text.len();
        let is_over = take_chunks(&mut self.input, &mut self.text);
        if self.text.len() > before {
            self.give_up_at = env.now + SILENCE_US;
        }
        while let Some(end) = end_of_event(&self.text, is_json) {
            let event: Vec<u8> = self.text.drain(..end).collect();
            self.take_event(env, std::str::from_utf8(&event).expect("events are text"), is_json);
        }
        if is_over {
            assert!(self.text.is_empty(), "a stream ended in good order within an event");
            return self.leave(env);
        }
        if self.is_final {
            return;
        }
        if self.text.len() + before > 0 && self.rng.u32(..40) == 0 {
            return self.leave(env);
        }
        if self.rng.u32(..15) == 0 {
            let factor = if self.rng.u32(..4) == 0 { 20 } else { 1 };
            self.asleep_until = env.now + exponential(&mut self.rng, env.plan.unit() * factor);
            self.give_up_at = self.give_up_at.max(self.asleep_until + 1);
        }
    }

    fn begin_stream(&mut self, env: &mut Env, load: &mut Load, head: &Head) {
        assert!(head.is_chunked, "{head:?}");
        self.input.drain(..head.len);
        let applied = head.revision.expect("a stream begins somewhere");
        assert!(applied <= env.checks.record.len(), "{head:?} is not committed");
        let node = self.socket.map(|socket| env.network.host_of(socket ^ 1));
        let mark = if self.stream.since.is_some() { Mark::WatchResumed } else { Mark::WatchStarted };
        env.mark(mark);
        if self.last_node.is_some() && self.last_node != node {
            env.mark(Mark::WatchElsewhere);
        }
        self.last_node = node;
        if let Wish::Watch { is_stale: false, .. } = self.wish {
            let end = env.checks.next_tick();
            load.spans.push(Span { call: self.call, end, revision: applied, is_logged: false });
        }
        self.stream.begin(&env.checks.record.model, applied);
        self.is_streaming = true;
        self.give_up_at = env.now + SILENCE_US;
    }

    fn take_event(&mut self, env: &mut Env, text: &str, is_json: bool) {
        env.trace(|| format!("follower{} gets {text:?}", self.index));
        let committed = env.checks.record.len();
        if let Some(comment) = text.strip_prefix(": ") {
            let revision = comment.trim().parse().expect("a comment says a revision");
            self.stream.on_bookmark(&env.checks.record.model, committed, revision);
            return env.mark(Mark::WatchBookmark);
        }
        let event = if is_json { parse_line(text) } else { parse_event(text) };
        if event.name == "bookmark" {
            let revision = event.data["revision"].as_u64().expect("a bookmark says a revision");
            self.stream.on_bookmark(&env.checks.record.model, committed, revision);
            return env.mark(Mark::WatchBookmark);
        }
        if event.name == "reset" {
            env.mark(Mark::WatchReset);
        }
        if self.stream.on_event(&env.checks.record.model, committed, &event) {
            env.mark(Mark::WatchSynced);
        } else if event.id.is_none() && self.stream.is_within_entry() {
            env.mark(Mark::WatchOfMany);
        }
        if let Some(revision) = event.id {
            self.known = revision;
        }
    }

    // ---- requests that wait ---------------------------------------------------------------------

    fn finish_wait(&mut self, env: &mut Env, load: &mut Load, answer: &Answer) {
        env.trace(|| format!("follower{} is told {answer:?} for {:?}", self.index, self.wish));
        let head = &answer.head;
        if matches!(head.status, 408 | 503) {
            return;
        }
        let revision = head.revision.unwrap_or_else(|| panic!("no revision: {answer:?}"));
        let record = &env.checks.record;
        assert!(revision <= record.len(), "answered before it was committed: {answer:?}");
        match &self.wish {
            Wish::WaitKey { key, known } => {
                let content = record.model.at(key, revision);
                let current = content.map(|content| content.revision);
                match head.status {
                    304 => assert_eq!(current, *known, "{key} was said to be unchanged: {answer:?}"),
                    _ => {
                        if let Err(complaint) = check_read(content, answer) {
                            panic!("{complaint}: {key}, at {revision}: {answer:?}");
                        }
                        let is_news = current != *known;
                        let is_time_up = known.is_none() && current.is_none();
                        assert!(is_news || is_time_up, "{key} has not changed: {answer:?}");
                    }
                }
                self.known = current.unwrap_or(0);
            }
            Wish::WaitList { prefix, above } => {
                let changes = &record.model.changes[record.model.change_after(*above)..];
                let change = changes
                    .iter()
                    .find(|change| change.revision <= revision && change.key.starts_with(prefix.as_str()));
                match head.status {
                    304 => assert!(change.is_none(), "said to be unchanged: {change:?}, {answer:?}"),
                    200 => {
                        let mut keys = record.model.range(prefix, revision).map(|(key, _)| &**key);
                        let text = std::str::from_utf8(&answer.body).expect("a listing is text");
                        let listed = text.lines().map(crate::answer::decode_percent);
                        for key in listed {
                            assert_eq!(Some(key.as_str()), keys.next(), "at {revision}: {answer:?}");
                        }
                        assert!(keys.next().is_none() || head.next.is_some(), "at {revision}: {answer:?}");
                    }
                    _ => panic!("a request that waits is not answered like this: {answer:?}"),
                }
                self.known = revision;
            }
            Wish::Nothing | Wish::Watch { .. } => unreachable!("it waited"),
        }
        // A listing that nothing is known of yet when the time is over is unchanged as far as the client knows.
        if head.status != 304 || matches!(self.wish, Wish::WaitKey { .. }) {
            let end = env.checks.next_tick();
            load.spans.push(Span { call: self.call, end, revision, is_logged: false });
        }
    }
}

fn draw_subject(rng: &mut Rng, plan: &Plan) -> Subject {
    match rng.u32(..7) {
        0 => Subject::Key(format!("k{}", rng.u32(..plan.keys))),
        1 => Subject::Key(rich_key(rng.usize(..plan.rich_keys))),
        2 => Subject::Prefix(String::new()),
        3 => Subject::Prefix("k".to_owned()),
        4 => Subject::Prefix("r/1".to_owned()),
        _ => Subject::Prefix("r".to_owned()),
    }
}

/// Moves what whole chunks hold. Says whether the last one has come.
fn take_chunks(input: &mut Vec<u8>, text: &mut Vec<u8>) -> bool {
    let mut used = 0;
    let mut is_over = false;
    while let Some(line) = input[used..].windows(2).position(|window| window == b"\r\n") {
        let digits = std::str::from_utf8(&input[used..used + line]).expect("a size is text");
        let size = usize::from_str_radix(digits, 16).expect("a chunk has a size");
        let begin = used + line + 2;
        let Some(chunk) = input.get(begin..begin + size + 2) else { break };
        assert!(chunk.ends_with(b"\r\n"), "a chunk has an end");
        text.extend_from_slice(&chunk[..size]);
        used = begin + size + 2;
        is_over |= size == 0;
    }
    input.drain(..used);
    is_over
}

fn end_of_event(text: &[u8], is_json: bool) -> Option<usize> {
    if is_json {
        return text.iter().position(|byte| *byte == b'\n').map(|end| end + 1);
    }
    text.windows(2).position(|window| window == b"\n\n").map(|end| end + 2)
}

fn parse_event(text: &str) -> Told {
    let (mut name, mut id, mut data) = (String::new(), None, Value::Null);
    for line in text.lines().filter(|line| !line.is_empty()) {
        match line.split_once(": ") {
            Some(("event", value)) => name = value.to_owned(),
            Some(("id", value)) => id = Some(value.parse().expect("an id is a revision")),
            Some(("data", value)) => data = serde_json::from_str(value).expect("data is JSON"),
            _ => panic!("not a line of an event: {line}"),
        }
    }
    Told { name, id, data }
}

fn parse_line(text: &str) -> Told {
    let data: Value = serde_json::from_str(text).expect("a line is JSON");
    let name = data["event"].as_str().expect("an event has a name").to_owned();
    let has_more = data["more"].as_bool().unwrap_or(false);
    Told { name, id: data["revision"].as_u64().filter(|_| !has_more), data }
}
