//! Users with HTTP clients: they read and write a few shared keys through changing nodes, keep connections alive,
//! send requests without waiting for answers, hang up, and write down what they were told.

use std::collections::VecDeque;

use fastrand::Rng;

use crate::answer::Answer;
use crate::asks::check_read;
use crate::checks::order::Span;
use crate::checks::record::value_number;
use crate::deeds::{Deed, Rich};
use crate::env::{Env, Event};
use crate::marks::Mark;
use crate::network::{ReadEnd, Socket, Status};
use crate::plan::{Class, Plan, exponential, stream};
use crate::support::history::{Action, History, Operation, Outcome, Version};

/// Operations at a time on one key. With more, the search for a linearization gets hard.
const OPERATIONS_PER_KEY_MAX: u32 = 5;

/// What all users share.
#[derive(Debug)]
pub(crate) struct Load {
    /// Operations still to begin.
    left: u32,
    pub(crate) next_value: u64,
    in_flight: Vec<u32>,
    pub(crate) history: History,
    /// Requests on rich keys.
    pub(crate) deeds: Vec<Deed>,
    /// Everything that has a place in the order of the log.
    pub(crate) spans: Vec<Span>,
    /// Nodes that users talk to.
    pub(crate) targets: Vec<usize>,
    /// At the end every user wants some more operations to succeed.
    pub(crate) is_final: bool,
}

/// What was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum What {
    /// Of a plain key.
    Plain(u32, Action),
    /// The deed with this number.
    Rich(usize),
}

/// A request without an answer.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) what: What,
    pub(crate) call: u64,
    give_up_at: u64,
}

/// One user.
#[derive(Debug)]
pub(crate) struct User {
    pub(crate) index: usize,
    host: usize,
    rng: Rng,
    socket: Option<Socket>,
    pub(crate) output: Vec<u8>,
    input: Vec<u8>,
    pub(crate) pending: VecDeque<Pending>,
    versions: Vec<Option<Version>>,
    next_at: u64,
    pub(crate) wake_at: Option<u64>,
    pub(crate) owed: u32,
    pub(crate) rich: Rich,
}

impl Load {
    pub(crate) fn new(plan: &Plan) -> Load {
        Load {
            left: plan.operations,
            next_value: 0,
            in_flight: vec![0; plan.keys as usize],
            history: History::default(),
            deeds: Vec::new(),
            spans: Vec::new(),
            targets: (0..plan.nodes).collect(),
            is_final: false,
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.left == 0
    }
}

impl User {
    pub(crate) fn new(index: usize, plan: &Plan) -> User {
        let mut rng = stream(plan.seed, 2000 + index as u64);
        User {
            index,
            host: plan.nodes + index,
            next_at: rng.u64(..=plan.unit() * 2),
            rng,
            socket: None,
            output: Vec::new(),
            input: Vec::new(),
            pending: VecDeque::new(),
            versions: vec![None; plan.keys as usize],
            wake_at: None,
            owed: 0,
            rich: Rich::new(index, plan),
        }
    }

    pub(crate) fn wake(&mut self, env: &mut Env, at: u64) {
        if self.wake_at.is_none_or(|wake| at < wake) {
            self.wake_at = Some(at);
            env.schedule(at, Event::User { user: self.index });
        }
    }

    /// No more faults: a few more operations have to succeed.
    pub(crate) fn start_final(&mut self, env: &mut Env, load: &mut Load) {
        load.is_final = true;
        load.left = 0;
        self.owed = 3;
        let is_outside =
            self.socket.is_some_and(|socket| !load.targets.contains(&env.network.host_of(socket ^ 1)));
        if is_outside {
            self.give_up(env, load);
        }
        self.next_at = env.now;
        self.wake(env, env.now);
    }

    /// Something is wrong with the cluster, and users want to know.
    pub(crate) fn hurry(&mut self, env: &mut Env) {
        if env.now < env.rush_until {
            let soon = env.now + 1 + exponential(&mut self.rng, env.plan.unit() / 10);
            self.next_at = self.next_at.min(soon);
            self.wake(env, soon);
        }
    }

    pub(crate) fn is_satisfied(&self) -> bool {
        self.owed == 0 && self.pending.is_empty()
    }

    /// Does whatever is to be done at the moment.
    pub(crate) fn act(&mut self, env: &mut Env, load: &mut Load) {
        drop(env.network.take_ready(self.host));
        self.receive(env, load);
        if self.pending.front().is_some_and(|oldest| oldest.give_up_at <= env.now) {
            self.give_up(env, load);
        }
        let wants_more = if load.is_final { self.owed > self.pending.len() as u32 } else { load.left > 0 };
        if wants_more && self.next_at <= env.now {
            self.begin(env, load);
        }
        self.flush(env);
        let give_up_at = self.pending.front().map_or(u64::MAX, |oldest| oldest.give_up_at);
        let next_at = if wants_more { self.next_at } else { u64::MAX };
        let at = give_up_at.min(next_at);
        if at < u64::MAX {
            self.wake(env, at.max(env.now + 1));
        }
    }

    fn begin(&mut self, env: &mut Env, load: &mut Load) {
        let Some(socket) = self.socket else {
            let target = load.targets[self.rng.usize(..load.targets.len())];
            self.socket = Some(env.network.dial(self.host, target));
            self.next_at = env.now;
            // A dial that nobody answers is given up too.
            self.next_at += env.plan.unit();
            return;
        };
        match env.network.status(socket) {
            Status::Open => {}
            _ => return self.give_up(env, load),
        }
        let think = match load.is_final {
            true => env.plan.unit() / 10,
            false if env.now < env.rush_until => env.plan.think.min(env.plan.unit() / 10),
            false => env.plan.think,
        };
        self.next_at = env.now + 1 + exponential(&mut self.rng, think);
        if self.pending.len() >= env.plan.pipeline {
            return;
        }
        if self.begin_rich(env, load) {
            return;
        }
        let key = self.rng.u32(..env.plan.keys);
        if load.in_flight[key as usize] >= OPERATIONS_PER_KEY_MAX {
            return;
        }
        load.in_flight[key as usize] += 1;
        self.count(env, load);
        let action = self.choose(env, load, key);
        self.expect(env, What::Plain(key, action));
        self.write_request(env, key, action);
        env.trace(|| format!("user{} asks: {action:?} of k{key}", self.index + 1));
        self.maybe_hang_up(env, load);
    }

    /// A request is sent.
    pub(crate) fn expect(&mut self, env: &mut Env, what: What) {
        let call = env.checks.next_tick();
        let patience = env.plan.timeout_ms * 1500 + env.plan.unit() * 2;
        self.pending.push_back(Pending { what, call, give_up_at: env.now + patience });
    }

    pub(crate) fn maybe_hang_up(&mut self, env: &mut Env, load: &mut Load) {
        if env.plan.classes.has(Class::HangUp) && !load.is_final && self.rng.u32(..40) == 0 {
            // Half of the request, or all of it and no wait.
            let half = self.rng.usize(..=self.output.len());
            self.output.truncate(half);
            self.flush(env);
            self.give_up(env, load);
        }
        if self.rng.u32(..60) == 0 && self.pending.is_empty() {
            self.give_up(env, load);
        }
    }

    /// An operation begins.
    pub(crate) fn count(&mut self, env: &mut Env, load: &mut Load) {
        load.left = load.left.saturating_sub(1);
        if !self.pending.is_empty() {
            env.mark(Mark::Pipelined);
        }
    }

    fn choose(&mut self, env: &Env, load: &mut Load, key: u32) -> Action {
        load.next_value += 1;
        let value = load.next_value;
        let draw = self.rng.u32(..100);
        let (reads, puts) = (env.plan.reads, env.plan.puts);
        match (draw, self.versions[key as usize]) {
            (draw, _) if draw < reads => Action::Get,
            (draw, _) if draw < reads + puts => Action::Put { value },
            (draw, _) if draw % 8 == 0 => Action::Delete,
            (_, Some(expected)) => Action::CompareAndSet { expected, value },
            (_, None) => Action::Create { value },
        }
    }

    fn write_request(&mut self, env: &Env, key: u32, action: Action) {
        use std::io::Write;
        let method = match action {
            Action::Get => "GET",
            Action::Delete => "DELETE",
            Action::Put { .. } | Action::Create { .. } | Action::CompareAndSet { .. } => "PUT",
        };
        let out = &mut self.output;
        let timeout = env.plan.timeout_ms;
        write!(out, "{method} /v1/storage/key/k{key}?timeout={timeout}ms HTTP/1.1\r\nHost: n\r\n")
            .expect("memory");
        match action {
            Action::Create { .. } => out.extend_from_slice(b"If-None-Match: *\r\n"),
            Action::CompareAndSet { expected, .. } => {
                write!(out, "If-Match: \"{}\"\r\n", expected.revision).expect("memory");
            }
            _ => {}
        }
        let Some(value) = action.value() else {
            out.extend_from_slice(b"\r\n");
            return;
        };
        let mut body = value.to_string();
        if env.plan.classes.has(Class::Bulk) && key.is_multiple_of(2) {
            let padding = self.rng.usize(20_000..60_000);
            body.extend(std::iter::repeat_n('y', padding));
        } else if env.plan.classes.has(Class::Large) {
            let padding =
                if self.rng.u32(..20) == 0 { self.rng.usize(..12_000) } else { self.rng.usize(..300) };
            body.extend(std::iter::repeat_n('x', padding));
        }
        write!(out, "Content-Length: {}\r\n\r\n{body}", body.len()).expect("memory");
    }

    fn flush(&mut self, env: &mut Env) {
        if let Some(socket) = self.socket
            && !self.output.is_empty()
        {
            let count = env.network.write(socket, &self.output);
            self.output.drain(..count);
        }
    }

    fn receive(&mut self, env: &mut Env, load: &mut Load) {
        let Some(socket) = self.socket else { return };
        let end = env.network.read(socket, &mut self.input);
        while let Some(answer) = Answer::take(&mut self.input) {
            let pending = self.pending.pop_front().expect("an answer answers a request");
            self.finish(env, load, &pending, &answer);
            if answer.head.is_last {
                return self.give_up(env, load);
            }
        }
        if end != ReadEnd::Empty {
            self.give_up(env, load);
        }
    }

    fn finish(&mut self, env: &mut Env, load: &mut Load, pending: &Pending, answer: &Answer) {
        let (key, action) = match pending.what {
            What::Plain(key, action) => (key, action),
            What::Rich(deed) => return self.finish_rich(env, load, pending.call, deed, answer),
        };
        let head = &answer.head;
        if action == Action::Get && matches!(head.status, 200 | 204) {
            let revision = head.revision.expect("an answer has a revision");
            let content = env.checks.record.model.at(&format!("k{key}"), revision);
            if let Err(complaint) = check_read(content, answer) {
                panic!("{complaint}: k{key} was read at {revision} as {answer:?}");
            }
        }
        let outcome = match (head.status, action) {
            (200, Action::Get) => Outcome::Found(Version {
                value: value_number(&answer.body).expect("values are numbers"),
                revision: head.etag.expect("a value has a revision"),
            }),
            (204, Action::Get) => Outcome::Missing,
            (200, _) => Outcome::Done,
            (412, Action::Create { .. } | Action::CompareAndSet { .. }) => {
                Outcome::ConditionFailed(head.etag)
            }
            // A clock that leapt may cut a request off.
            (408 | 503 | 507, _) => Outcome::NotApplied,
            (504, action) if action != Action::Get => Outcome::Unknown,
            (status, action) => panic!("{action:?} must not be answered by {status}"),
        };
        let is_success = !matches!(outcome, Outcome::NotApplied | Outcome::Unknown);
        if is_success {
            self.owed = self.owed.saturating_sub(1);
        } else if action == Action::Get {
            env.mark(Mark::ReadTimedOut);
        }
        self.versions[key as usize] = match (outcome, action.value(), head.revision) {
            (Outcome::Found(version), ..) => Some(version),
            (Outcome::Done, Some(value), Some(revision)) => Some(Version { value, revision }),
            _ => None,
        };
        env.trace(|| format!("user{} is told: {outcome:?} for {action:?} of k{key}", self.index + 1));
        self.record(env, load, pending.call, (key, action), outcome, head.revision);
    }

    fn record(
        &self,
        env: &mut Env,
        load: &mut Load,
        call: u64,
        (key, action): (u32, Action),
        outcome: Outcome,
        revision: Option<u64>,
    ) {
        load.in_flight[key as usize] -= 1;
        let failed = matches!(outcome, Outcome::NotApplied | Outcome::Unknown);
        if failed && action == Action::Get {
            return;
        }
        let (end, revision) = (env.checks.next_tick(), revision.filter(|_| !failed));
        if let Some(revision) = revision {
            load.spans.push(Span { call, end, revision, is_logged: action != Action::Get });
        }
        let client = self.index as u32;
        load.history.operations.push(Operation { client, key, call, end, action, outcome, revision });
    }

    /// Leaves the node. What was asked may have happened, or may still happen.
    pub(crate) fn give_up(&mut self, env: &mut Env, load: &mut Load) {
        if let Some(socket) = self.socket.take() {
            env.network.close(socket);
        }
        for pending in std::mem::take(&mut self.pending) {
            match pending.what {
                What::Plain(key, action) => {
                    self.record(env, load, pending.call, (key, action), Outcome::Unknown, None);
                }
                What::Rich(deed) => self.despair(env, load, deed),
            }
        }
        self.output.clear();
        self.input.clear();
        self.next_at = self.next_at.max(env.now + 1 + exponential(&mut self.rng, env.plan.unit() / 20));
    }
}
