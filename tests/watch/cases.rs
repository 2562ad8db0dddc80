//! Single promises of the hub: what a stream looks like, what it costs, and how watchers share.

use std::collections::BTreeMap;
use std::sync::Arc;

use keva::kv::command::{Command, Condition, Operation, Transaction};
use keva::limits::{WATCH_BYTES_PER_TURN_MAX, WATCH_COMMENT_MS};
use keva::net::watch::{Filter, Format, Outlets};
use keva::raft::types::Index;
use keva::util::time::Millis;

use crate::reader::Reader;
use crate::world::World;

fn put(key: &str, value: &[u8]) -> Command {
    Command::Put {
        key: key.into(),
        value: value.into(),
        content_type: None,
        condition: Condition::default(),
        ttl_ms: None,
    }
}

fn put_all(keys: &[&str]) -> Command {
    let operation = |key: &&str| Operation::Put {
        key: (*key).to_owned(),
        value: b"t".to_vec(),
        content_type: None,
        ttl_ms: None,
    };
    let then = keys.iter().map(operation).collect();
    Command::Transaction(Transaction { then, ..Transaction::default() })
}

impl World {
    fn stream(&mut self, filter: Filter, format: Format, since: Option<u64>) -> u64 {
        let mut reader = Reader::new("", false, format, since);
        self.watch(filter, &mut reader)
    }

    /// What a stream sent since the last time.
    fn text(&mut self, id: u64) -> String {
        self.pump();
        let unsent = std::mem::take(&mut self.pipes.0.get_mut(&id).expect("a pipe").unsent);
        String::from_utf8(unsent).expect("events are text")
    }
}

/// A stream from the beginning on, as it is on the wire.
#[test]
fn from_everything_to_changes() {
    let mut world = World::new(100_000);
    world.apply(put("a/1", b"one\n\"two\""));
    world.apply(put("b", b"other"));
    world.apply(put("a/2", &[0xff, 0x00]));
    let id = world.stream(Filter::prefix("a/"), Format::ServerSentEvents, Some(0));
    assert_eq!(
        world.text(id),
        "event: reset\ndata: {\"revision\":3}\n\n\
         event: put\ndata: {\"key\":\"a/1\",\"revision\":1,\"value\":\"one\\n\\\"two\\\"\"}\n\n\
         event: put\ndata: {\"key\":\"a/2\",\"revision\":3,\"value_base64\":\"/wA=\"}\n\n\
         id: 3\nevent: sync\ndata: {\"revision\":3}\n\n"
    );
    // K5: only the last event of the transaction that this stream sees has an id.
    world.apply(put_all(&["a/1", "a/3", "b"]));
    world.apply(Command::DeletePrefix { prefix: "a/".into() });
    assert_eq!(
        world.text(id),
        "event: put\ndata: {\"key\":\"a/1\",\"revision\":4,\"value\":\"t\"}\n\n\
         id: 4\nevent: put\ndata: {\"key\":\"a/3\",\"revision\":4,\"value\":\"t\"}\n\n\
         event: delete\ndata: {\"key\":\"a/1\",\"revision\":5}\n\n\
         event: delete\ndata: {\"key\":\"a/2\",\"revision\":5}\n\n\
         id: 5\nevent: delete\ndata: {\"key\":\"a/3\",\"revision\":5}\n\n"
    );
}

#[test]
fn from_a_revision_on_as_lines() {
    let mut world = World::new(100_000);
    world.apply(put("a", b"1"));
    world.apply(put_all(&["a", "b", "c"]));
    world.apply(put("c", b"3"));
    let all = world.stream(Filter::prefix(""), Format::JsonLines, Some(1));
    let one = world.stream(Filter::key("a"), Format::JsonLines, Some(1));
    let none = world.stream(Filter::key("a"), Format::JsonLines, None);
    let bookmark = "{\"event\":\"bookmark\",\"revision\":3}\n";
    assert_eq!(
        world.text(all),
        format!(
            "{{\"event\":\"put\",\"key\":\"a\",\"revision\":2,\"value\":\"t\",\"more\":true}}\n\
             {{\"event\":\"put\",\"key\":\"b\",\"revision\":2,\"value\":\"t\",\"more\":true}}\n\
             {{\"event\":\"put\",\"key\":\"c\",\"revision\":2,\"value\":\"t\"}}\n\
             {{\"event\":\"put\",\"key\":\"c\",\"revision\":3,\"value\":\"3\"}}\n{bookmark}"
        )
    );
    let line = "{\"event\":\"put\",\"key\":\"a\",\"revision\":2,\"value\":\"t\"}\n";
    assert_eq!((world.text(one), world.text(none)), (format!("{line}{bookmark}"), bookmark.to_owned()));
}

/// K6: an idle stream says every now and then how far it is, a busy one does not have to.
#[test]
fn idle_streams_tell_the_revision() {
    let mut world = World::new(100_000);
    world.apply(put("a", b""));
    let id = world.stream(Filter::key("a"), Format::ServerSentEvents, None);
    assert_eq!(world.text(id), ": 1\n\n");
    world.apply(put("b", b""));
    world.now = world.now.after(WATCH_COMMENT_MS - 1);
    assert_eq!(world.text(id), "");
    world.now = world.now.after(1);
    assert_eq!(world.text(id), ": 2\n\n");
    world.now = world.now.after(WATCH_COMMENT_MS / 2);
    world.apply(put("a", b""));
    assert!(world.text(id).starts_with("id: 3\n"));
    world.now = world.now.after(WATCH_COMMENT_MS - 1);
    assert_eq!(world.text(id), "", "it was told by the event");
    world.now = world.now.after(1);
    assert_eq!(world.text(id), ": 3\n\n");
}

/// K4: an entry with more changes than are kept is a gap, also for those who had everything before it.
#[test]
fn too_many_changes_reset_streams() {
    let mut world = World::new(500);
    for n in 0..10 {
        world.apply(put(&format!("a/{n}"), b""));
    }
    world.apply(put("b", b"1"));
    let id = world.stream(Filter::prefix(""), Format::ServerSentEvents, Some(0));
    assert!(world.text(id).ends_with("event: sync\ndata: {\"revision\":11}\n\n"));
    world.apply(Command::DeletePrefix { prefix: "a/".into() });
    assert_eq!(
        world.text(id),
        "event: reset\ndata: {\"revision\":12}\n\n\
         event: put\ndata: {\"key\":\"b\",\"revision\":11,\"value\":\"1\"}\n\n\
         id: 12\nevent: sync\ndata: {\"revision\":12}\n\n"
    );
}

/// K7, K4: a snapshot in the place of entries makes every stream begin again, without an end of the connection.
#[test]
fn a_snapshot_resets_streams() {
    let mut world = World::new(100_000);
    world.apply(put("a", b""));
    let id = world.stream(Filter::prefix("a"), Format::ServerSentEvents, None);
    assert_eq!(world.text(id), ": 1\n\n");
    world.install(vec![Command::DeletePrefix { prefix: String::new() }, put("a2", b"")]);
    assert_eq!(
        world.text(id),
        "event: reset\ndata: {\"revision\":3}\n\n\
         event: put\ndata: {\"key\":\"a2\",\"revision\":3,\"value\":\"\"}\n\n\
         id: 3\nevent: sync\ndata: {\"revision\":3}\n\n"
    );
}

/// Keeps the events as they are handed over.
#[derive(Default)]
struct Taker {
    events: BTreeMap<u64, Vec<Arc<[u8]>>>,
    bytes: usize,
    asked: std::cell::Cell<usize>,
}

impl Outlets<u64> for Taker {
    fn unsent_bytes(&self, _id: u64) -> Option<usize> {
        self.asked.set(self.asked.get() + 1);
        Some(0)
    }

    fn send(&mut self, _now: Millis, id: u64, event: &Arc<[u8]>) {
        self.bytes += event.len();
        self.events.entry(id).or_default().push(Arc::clone(event));
    }

    fn close(&mut self, id: u64) {
        panic!("{id} was quick");
    }
}

impl World {
    fn pump_to(&mut self, taker: &mut Taker) {
        self.hub.pump(self.now, &self.history, &self.store, taker);
    }

    fn add(&mut self, filter: Filter, format: Format) -> u64 {
        let id = self.new_id();
        self.hub
            .watch(self.now, id, filter, format, None, &self.history, &self.store)
            .expect("there is room");
        id
    }
}

/// A change is encoded once for all who get it the same way, and nobody else is looked at.
#[test]
fn events_are_shared_and_others_left_alone() {
    let mut world = World::new(100_000);
    for number in 0..1_000 {
        world.add(Filter::key(&format!("other/{number}")), Format::ServerSentEvents);
    }
    let one = world.add(Filter::key("a/1"), Format::ServerSentEvents);
    let two = world.add(Filter::prefix("a/"), Format::ServerSentEvents);
    let three = world.add(Filter::prefix(""), Format::ServerSentEvents);
    let mut taker = Taker::default();
    world.pump_to(&mut taker);
    taker = Taker::default();
    world.apply(put("a/1", &[b'x'; 100]));
    world.pump_to(&mut taker);
    assert_eq!(taker.asked.get(), 3);
    let event = |id| &taker.events[&id][0];
    assert!(Arc::ptr_eq(event(one), event(two)) && Arc::ptr_eq(event(two), event(three)));
    assert!(!world.hub.has_work(&world.history));
}

/// A turn hands out a bounded number of bytes, everybody gets a share, and nobody loses anything.
#[test]
fn turns_are_bounded_and_fair() {
    let mut world = World::new(64 << 20);
    let watchers: Vec<u64> =
        (0..50).map(|_| world.add(Filter::prefix("k/"), Format::ServerSentEvents)).collect();
    let mut taker = Taker::default();
    world.pump_to(&mut taker);
    taker = Taker::default();
    for _ in 0..20 {
        world.apply(put("k/1", &[b'x'; 20_000]));
    }
    let mut turns = 0;
    while world.hub.has_work(&world.history) {
        let before = taker.bytes;
        world.pump_to(&mut taker);
        turns += 1;
        assert!(taker.bytes - before <= WATCH_BYTES_PER_TURN_MAX + 40_000, "{} bytes", taker.bytes - before);
        let counts: Vec<usize> = watchers.iter().map(|id| taker.events.get(id).map_or(0, Vec::len)).collect();
        let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
        assert!(turns < 3 || *least > 0, "some get nothing: {least} to {most}");
        assert!(turns < 100, "it comes to an end");
    }
    assert!(turns >= 4, "{turns}");
    for id in watchers {
        assert_eq!(taker.events[&id].len(), 20);
    }
}

/// What a watcher that nothing happens to costs in the hub.
#[test]
fn idle_watchers_are_small() {
    const COUNT: usize = 10_000;
    let mut world = World::new(100_000);
    let mut taker = Taker::default();
    let info = allocation_counter::measure(|| {
        for number in 0..COUNT {
            world.add(Filter::key(&format!("application/service/{number}")), Format::ServerSentEvents);
        }
        world.pump_to(&mut taker);
        taker = Taker::default();
    });
    let bytes = info.bytes_current / COUNT as i64;
    println!("{bytes} bytes in the hub for each watcher");
    assert!(bytes <= 700, "{bytes}");
    // And nothing in a turn.
    world.apply(put("something", b""));
    let info = allocation_counter::measure(|| world.pump_to(&mut taker));
    assert_eq!((taker.asked.get(), info.bytes_total), (0, 0));
    assert_eq!(world.hub.revision(), Index(1));
}
