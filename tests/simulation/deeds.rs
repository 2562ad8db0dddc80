//! Requests on rich keys and what became of them, over all the times that a user has sent them: one with an idempotency
//! key is sent again, through the same node or another one, until its outcome is known, and sometimes after that.

use std::collections::VecDeque;

use fastrand::Rng;
use keva::kv::command::{Command, Operation, Write};

use crate::answer::Answer;
use crate::asks::{Ask, Chooser, Verdict};
use crate::checks::Record;
use crate::checks::model::Decision;
use crate::checks::order::Span;
use crate::env::Env;
use crate::listings::List;
use crate::marks::Mark;
use crate::plan::{Class, Plan, exponential, stream};
use crate::users::{Load, User, What};

/// One request.
#[derive(Debug)]
pub(crate) struct Deed {
    ask: Ask,
    /// The number by which the log knows it.
    tag: u64,
    /// When it was sent first.
    call: u64,
    /// The first definite answer: the revision, the status and the body.
    told: Option<(u64, u16, Vec<u8>)>,
    /// It was sent, and no answer said what became of it.
    is_doubtful: bool,
    attempts: u32,
}

/// What a user has to do with rich keys.
#[derive(Debug)]
pub(crate) struct Rich {
    rng: Rng,
    /// The revisions of the keys, as far as known.
    known: Vec<Option<u64>>,
    /// To be sent again, and when.
    again: VecDeque<(u64, usize)>,
    page: Option<List>,
    /// The last request with an idempotency key.
    last: Option<Write>,
}

impl Rich {
    pub(crate) fn new(index: usize, plan: &Plan) -> Rich {
        Rich {
            rng: stream(plan.seed, 4000 + index as u64),
            known: vec![None; plan.rich_keys],
            again: VecDeque::new(),
            page: None,
            last: None,
        }
    }
}

impl Deed {
    /// What the log says must agree with everything that the user was told.
    pub(crate) fn settle(&self, record: &Record) {
        let Ask::Write(write) = &self.ask else { return };
        let executed = record.executed(self.tag);
        let is_known_by_number =
            !matches!(write.command, Command::Delete { .. } | Command::DeletePrefix { .. });
        match &self.told {
            None if !self.is_doubtful => {
                assert_eq!(executed, None, "said to be surely not applied, and yet it was: {self:?}");
            }
            Some((revision, ..)) if is_known_by_number => {
                let is_done = matches!(
                    record.get(*revision).decision,
                    Decision::Written | Decision::Counted(_) | Decision::Transaction(..)
                );
                let expected = is_done.then_some(*revision);
                assert_eq!(executed, expected, "not what the user was told: {self:?}");
            }
            None | Some(_) => {}
        }
    }
}

impl User {
    /// Asks something of the rich keys, now and then. Says whether it did.
    pub(crate) fn begin_rich(&mut self, env: &mut Env, load: &mut Load) -> bool {
        if env.plan.rich == 0 || self.rich.rng.u32(..100) >= env.plan.rich {
            return false;
        }
        let due = self.rich.again.front().is_some_and(|(at, _)| *at <= env.now);
        let number = match self.rich.again.pop_front_if(|_| due) {
            Some((_, number)) => {
                env.mark(Mark::RepeatedElsewhere);
                number
            }
            None => self.new_deed(env, load),
        };
        self.count(env, load);
        self.expect(env, What::Rich(number));
        let deed = &mut load.deeds[number];
        deed.attempts += 1;
        deed.ask.write(&mut self.rich.rng, env.plan.timeout_ms, &mut self.output);
        env.trace(|| format!("user{} asks, time {}: {:?}", self.index + 1, deed.attempts, deed.ask));
        self.maybe_hang_up(env, load);
        true
    }

    fn new_deed(&mut self, env: &mut Env, load: &mut Load) -> usize {
        load.next_value += 1;
        let tag = load.next_value;
        let rich = &mut self.rich;
        let mut ask = match rich.page.take() {
            Some(page) => {
                env.mark(Mark::PageContinued);
                Ask::List(page)
            }
            None => Chooser { rng: &mut rich.rng, plan: &env.plan, tag, known: &rich.known }.choose(),
        };
        if let Ask::Write(write) = &mut ask {
            env.checks.record.lives.on_ask(tag);
            if env.plan.classes.has(Class::Repeats) && rich.rng.u32(..10) < 7 {
                // The same key for something else: a mistake that must be noticed.
                let last =
                    rich.last.take().filter(|last| rich.rng.u32(..10) == 0 && last.command != write.command);
                let is_new = last.is_none();
                let key = last.and_then(|last| last.idempotency_key);
                write.idempotency_key = Some(key.unwrap_or_else(|| format!("u{}-{tag}", self.index)));
                // Once only, so that it is never the first request again.
                rich.last = is_new.then(|| write.clone());
            }
        }
        let call = env.checks.next_tick();
        load.deeds.push(Deed { ask, tag, call, told: None, is_doubtful: false, attempts: 0 });
        load.deeds.len() - 1
    }

    /// There is an answer.
    pub(crate) fn finish_rich(
        &mut self,
        env: &mut Env,
        load: &mut Load,
        call: u64,
        number: usize,
        answer: &Answer,
    ) {
        let deed = &mut load.deeds[number];
        let verdict = deed.ask.check(&env.checks.record, answer);
        env.trace(|| {
            format!("user{} is told {verdict:?}, {}, for {:?}", self.index + 1, answer.head.status, deed.ask)
        });
        let revision = match verdict {
            Verdict::Placed(revision) => revision,
            Verdict::NotApplied => return self.try_again(env, load, number, 7),
            Verdict::InFlight => {
                env.mark(Mark::InFlight);
                return self.try_again(env, load, number, 9);
            }
            Verdict::Unknown => return self.despair(env, load, number),
        };
        self.owed = self.owed.saturating_sub(1);
        let end = env.checks.next_tick();
        note_answer(env, &deed.ask, answer);
        let told = (revision, answer.head.status, answer.body.clone());
        let is_stale = match &deed.ask {
            Ask::Write(_) => false,
            Ask::Read { is_stale, .. } => *is_stale,
            Ask::List(list) => list.is_stale,
        };
        let is_reused = answer.head.status == 422;
        match &deed.told {
            _ if is_stale => {}
            // Every refusal is an entry of its own.
            _ if is_reused => load.spans.push(Span { call, end, revision, is_logged: true }),
            Some(first) => assert_eq!(*first, told, "two answers to {:?}", deed.ask),
            None => {
                let is_logged = deed.ask.is_write();
                load.spans.push(Span { call: deed.call, end, revision, is_logged });
            }
        }
        if !is_reused || deed.told.is_none() {
            deed.told = Some(told);
        }
        self.learn(number, load, answer);
        if let Ask::List(list) = &load.deeds[number].ask {
            self.rich.page = list.next_page(answer);
        }
        if self.rich.rng.u32(..4) == 0 {
            self.try_again(env, load, number, 10);
        }
    }

    /// Remembers the key's revision.
    fn learn(&mut self, number: usize, load: &Load, answer: &Answer) {
        let (key, revision) = match &load.deeds[number].ask {
            Ask::Read { key, .. } => (key.as_str(), answer.head.etag),
            Ask::Write(Write { command: Command::Transaction(transaction), .. }) => {
                let put = transaction.then.last().map(Operation::key);
                (put.unwrap_or_default(), answer.head.revision)
            }
            Ask::Write(Write { command, .. }) => {
                (command.key().unwrap_or_default(), answer.head.etag.or(answer.head.revision))
            }
            Ask::List(_) => return,
        };
        let place = (0..self.rich.known.len()).find(|place| crate::asks::rich_key(*place) == key);
        if let Some(place) = place {
            self.rich.known[place] = revision;
        }
    }

    /// The user gives the request up, or was told that nobody knows.
    pub(crate) fn despair(&mut self, env: &mut Env, load: &mut Load, number: usize) {
        load.deeds[number].is_doubtful = true;
        env.trace(|| {
            format!("user{} does not know what became of {:?}", self.index + 1, load.deeds[number].ask)
        });
        self.try_again(env, load, number, 9);
    }

    /// Sends it again later, in some of ten cases.
    fn try_again(&mut self, env: &mut Env, load: &mut Load, number: usize, of_ten: u32) {
        let Ask::Write(Write { idempotency_key: Some(_), .. }) = &load.deeds[number].ask else { return };
        if self.rich.rng.u32(..10) >= of_ten {
            return;
        }
        let at = env.now + exponential(&mut self.rich.rng, env.plan.unit());
        self.rich.again.push_back((at, number));
        if self.pending.is_empty() && self.rich.rng.bool() {
            self.give_up(env, load);
        }
    }
}

fn note_answer(env: &mut Env, ask: &Ask, answer: &Answer) {
    match ask {
        Ask::List(_) => env.mark(Mark::Listed),
        Ask::Read { is_stale: true, .. } => env.mark(Mark::StaleRead),
        Ask::Write(Write { command: Command::Put { ttl_ms: Some(_), condition, .. }, .. })
            if condition.if_match.is_some() =>
        {
            let mark = if answer.head.status == 200 { Mark::Renewed } else { Mark::RenewedTooLate };
            env.mark(mark);
        }
        Ask::Read { .. } | Ask::Write(_) => {}
    }
}
