//! Requests that wait for a change.

use keva::kv::command::{Command, Condition};
use keva::net::watch::{Filter, Fired, WaitFor};
use keva::raft::types::Index;
use keva::util::time::Millis;

use crate::world::World;

fn put(key: &str) -> Command {
    Command::Put {
        key: key.into(),
        value: b"x".to_vec(),
        content_type: None,
        condition: Condition::default(),
        ttl_ms: None,
    }
}

fn delete(key: &str) -> Command {
    Command::Delete { key: key.into(), condition: Condition::default() }
}

impl World {
    fn wait(&mut self, filter: Filter, wait_for: WaitFor, since: Option<u64>, until: u64) -> u64 {
        let id = self.new_id();
        self.hub
            .wait(self.now, id, filter, wait_for, since.map(Index), Millis(until), &self.history, &self.store)
            .expect("there is room");
        self.pump();
        id
    }

    /// Who waits no more, and the revision of the news.
    fn ended(&mut self) -> Vec<(u64, u64)> {
        self.pump();
        let news = |(id, fired)| match fired {
            Fired::News(change) => (id, change.revision.0),
            other => panic!("{id}: {other:?}"),
        };
        std::mem::take(&mut self.fired).into_iter().map(news).collect()
    }
}

#[test]
fn a_change_ends_those_who_wait_for_it() {
    let mut world = World::new(100_000);
    world.apply(put("a"));
    let change = world.wait(Filter::key("a"), WaitFor::Change, Some(1), 99_000);
    let presence = world.wait(Filter::key("b"), WaitFor::Presence, Some(1), 99_000);
    let absence = world.wait(Filter::key("a"), WaitFor::Absence, Some(1), 99_000);
    let range = world.wait(Filter::prefix("b"), WaitFor::Change, Some(1), 99_000);
    assert_eq!(world.ended(), []);
    world.apply(put("c"));
    world.apply(delete("b"));
    assert_eq!(world.ended(), [], "the deletion of an absent key is no change");
    world.apply(put("b"));
    assert_eq!(world.ended(), [(presence, 4), (range, 4)]);
    world.apply(put("a"));
    assert_eq!(world.ended(), [(change, 5)]);
    world.apply(delete("a"));
    assert_eq!(world.ended(), [(absence, 6)]);
    assert!(world.hub.is_empty());
}

/// What happened before the request was taken counts, and only what its client does not know.
#[test]
fn changes_since_a_revision_count() {
    let mut world = World::new(100_000);
    for key in ["a/1", "b", "a/2", "b"] {
        world.apply(put(key));
    }
    let old = world.wait(Filter::prefix("a/"), WaitFor::Change, Some(2), 99_000);
    let newest = world.wait(Filter::prefix("a/"), WaitFor::Change, Some(3), 99_000);
    assert_eq!(world.ended(), [(old, 3)]);
    world.apply(put("a/1"));
    assert_eq!(world.ended(), [(newest, 5)]);
}

#[test]
fn a_wait_has_an_end() {
    let mut world = World::new(100_000);
    world.apply(put("a"));
    let id = world.wait(Filter::key("a"), WaitFor::Change, None, 5_000);
    world.apply(put("b"));
    world.pump();
    assert_eq!((world.hub.next_deadline(), world.hub.has_work(&world.history)), (Some(Millis(5_000)), false));
    world.now = Millis(4_999);
    assert_eq!(world.ended(), []);
    world.now = Millis(5_000);
    world.pump();
    assert_eq!(std::mem::take(&mut world.fired), [(id, Fired::TimeUp { seen: Some(Index(2)) })]);
    assert_eq!(world.hub.next_deadline(), None);
    // A stop ends all.
    let id = world.wait(Filter::key("a"), WaitFor::Change, None, 50_000);
    world.hub.end_waits();
    world.pump();
    assert_eq!(world.fired, [(id, Fired::TimeUp { seen: Some(Index(2)) })]);
}

/// Whose time is over before it has looked at everything does not hear that nothing has happened.
#[test]
fn a_late_look_is_no_look() {
    let mut world = World::new(100_000);
    world.apply(put("a"));
    world.apply(put("b"));
    let at_once = world.now.0;
    for (since, seen) in [(1, None), (2, Some(Index(2)))] {
        let id = world.wait(Filter::prefix(""), WaitFor::Change, Some(since), at_once);
        assert_eq!(std::mem::take(&mut world.fired), [(id, Fired::TimeUp { seen })], "since {since}");
    }
}

/// K4, K7: whoever waits is not left waiting for what may have happened.
#[test]
fn a_gap_ends_the_wait() {
    let mut world = World::new(1);
    world.apply(put("a"));
    let id = world.wait(Filter::prefix(""), WaitFor::Change, Some(0), 50_000);
    assert_eq!(std::mem::take(&mut world.fired), [(id, Fired::Unknown)], "the history is too short");
    let mut world = World::new(100_000);
    world.apply(put("a"));
    let id = world.wait(Filter::key("a"), WaitFor::Change, None, 50_000);
    world.install(vec![put("b")]);
    world.pump();
    assert_eq!(world.fired, [(id, Fired::Unknown)], "a snapshot came");
    assert!(world.hub.is_empty());
}
