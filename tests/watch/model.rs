//! Random commands, watchers, slow readers, broken connections, snapshots and short histories.

use keva::kv::command::{Command, Condition, Operation, Transaction};
use keva::limits::WATCH_COMMENT_MS;
use keva::net::watch::{Filter, Format};
use proptest::prelude::*;

use crate::reader::Reader;
use crate::world::World;

const KEYS: [&str; 8] = ["a", "a/1", "a/2", "a/2/x", "a/3", "b/\"1\"\n\nid: 7", "b/2", "c"];
const PREFIXES: [&str; 7] = ["", "a", "a/", "a/2", "b/", "c", "none"];

#[derive(Clone, Debug)]
enum Step {
    Apply(Command),
    Pass,
    Expire(u64),
    Install(Vec<Command>),
    Pump,
    /// A reader takes so many bytes.
    Read(usize, usize),
    /// A reader's connection breaks after so many bytes more, and it comes back.
    Break(usize, usize),
    /// A connection takes nothing, or takes again.
    Toggle(usize),
    Sleep(u64),
}

fn key() -> impl Strategy<Value = String> {
    prop::sample::select(&KEYS[..]).prop_map(str::to_owned)
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..8),
        3 => "[a-z\n\"]{0,12}".prop_map(String::into_bytes),
        2 => (1_000usize..30_000).prop_map(|length| vec![b'x'; length]),
        1 => (60_000usize..90_000).prop_map(|length| vec![0xff; length]),
    ]
}

fn put() -> impl Strategy<Value = Command> {
    let ttl_ms = prop::option::weighted(0.2, 1u64..5_000);
    (key(), value(), ttl_ms).prop_map(|(key, value, ttl_ms)| Command::Put {
        key,
        value,
        content_type: None,
        condition: Condition::default(),
        ttl_ms,
    })
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        3 => (key(), value())
            .prop_map(|(key, value)| Operation::Put { key, value, content_type: None, ttl_ms: None }),
        2 => key().prop_map(|key| Operation::Delete { key }),
    ]
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        6 => put(),
        2 => key().prop_map(|key| Command::Delete { key, condition: Condition::default() }),
        3 => prop::collection::vec(operation(), 1..8)
            .prop_map(|then| Command::Transaction(Transaction { then, ..Transaction::default() })),
        1 => prop::sample::select(&PREFIXES[..])
            .prop_map(|prefix| Command::DeletePrefix { prefix: prefix.into() }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let bytes = || prop_oneof![0usize..200, 0usize..70_000, Just(usize::MAX)];
    prop_oneof![
        20 => command().prop_map(Step::Apply),
        2 => Just(Step::Pass),
        2 => (1u64..4_000).prop_map(Step::Expire),
        1 => prop::collection::vec(command(), 1..4).prop_map(Step::Install),
        14 => Just(Step::Pump),
        14 => (0usize..4, bytes()).prop_map(|(reader, count)| Step::Read(reader, count)),
        4 => (0usize..4, bytes()).prop_map(|(reader, count)| Step::Break(reader, count)),
        2 => (0usize..4).prop_map(Step::Toggle),
        3 => (1u64..2 * WATCH_COMMENT_MS).prop_map(Step::Sleep),
    ]
}

fn reader() -> impl Strategy<Value = Reader> {
    let format = prop_oneof![Just(Format::ServerSentEvents), Just(Format::JsonLines)];
    let name = prop_oneof![
        1 => (prop::sample::select(&KEYS[..]), Just(true)),
        2 => (prop::sample::select(&PREFIXES[..]), Just(false)),
    ];
    (name, format, any::<bool>())
        .prop_map(|((name, is_exact), format, all)| Reader::new(name, is_exact, format, all.then_some(0)))
}

struct Run {
    world: World,
    readers: Vec<(u64, Reader)>,
}

impl Run {
    fn filter(reader: &Reader) -> Filter {
        if reader.is_exact { Filter::key(&reader.prefix) } else { Filter::prefix(&reader.prefix) }
    }

    /// Everybody may be told that it does not know what has happened.
    fn note_gap(&mut self) {
        if self.world.has_gap() {
            self.readers.iter_mut().for_each(|(_, reader)| reader.resets_allowed += 1);
        }
    }

    fn connect(&mut self, at: usize) {
        self.note_gap();
        let (id, reader) = &mut self.readers[at];
        *id = self.world.watch(Run::filter(reader), reader);
    }

    fn pump(&mut self) {
        self.note_gap();
        self.world.pump();
        for at in 0..self.readers.len() {
            let (id, reader) = &mut self.readers[at];
            if self.world.pipes.0[id].is_closed {
                assert!(self.world.history.first_number() > 1, "K4: closed, though nothing was forgotten");
                self.world.read(*id, usize::MAX, reader);
                self.connect(at);
            }
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Apply(command) => self.world.apply(command),
            Step::Pass => self.world.pass(),
            Step::Expire(ms) => {
                self.world.now = self.world.now.after(ms);
                self.world.expire();
            }
            Step::Install(commands) => self.world.install(commands),
            Step::Pump => self.pump(),
            Step::Read(at, count) => {
                if let Some((id, reader)) = self.readers.get_mut(at) {
                    self.world.read(*id, count, reader);
                }
            }
            Step::Break(at, count) => {
                if let Some((id, reader)) = self.readers.get_mut(at) {
                    self.world.read(*id, count, reader);
                    self.world.hub.remove(*id);
                    self.connect(at);
                }
            }
            Step::Toggle(at) => {
                if let Some((id, _)) = self.readers.get(at) {
                    let pipe = self.world.pipes.0.get_mut(id).expect("a pipe");
                    pipe.is_open = !pipe.is_open && !pipe.is_closed;
                    if pipe.is_open {
                        self.world.hub.drained(*id);
                    }
                }
            }
            Step::Sleep(ms) => self.world.now = self.world.now.after(ms),
        }
    }

    /// Everybody reads all that there is.
    fn settle(&mut self) {
        for _ in 0..2_000 {
            self.pump();
            let mut is_quiet = !self.world.hub.has_work(&self.world.history);
            for (id, reader) in &mut self.readers {
                let pipe = self.world.pipes.0.get_mut(id).expect("a pipe");
                is_quiet &= pipe.unsent.is_empty() && pipe.is_open;
                pipe.is_open = true;
                self.world.hub.drained(*id);
                self.world.read(*id, usize::MAX, reader);
            }
            if is_quiet {
                return;
            }
        }
        panic!("the hub has always something to do");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    /// K1 to K8, for every order of events.
    #[test]
    fn every_watcher_learns_everything(
        history_bytes in prop_oneof![200usize..4_000, 4_000usize..400_000],
        readers in prop::collection::vec(reader(), 1..4),
        before in prop::collection::vec(command(), 0..6),
        steps in prop::collection::vec(step(), 1..150),
    ) {
        let mut run = Run { world: World::new(history_bytes), readers: Vec::new() };
        for command in before {
            run.world.apply(command);
        }
        for reader in readers {
            run.readers.push((0, reader));
            run.connect(run.readers.len() - 1);
        }
        for step in steps {
            run.step(step);
        }
        run.settle();
        run.world.now = run.world.now.after(2 * WATCH_COMMENT_MS);
        run.settle();
        for (_, reader) in &run.readers {
            reader.check_complete(&run.world.truth);
        }
        prop_assert!(run.world.hub.len() == run.readers.len(), "watchers that ended are forgotten");
    }
}
