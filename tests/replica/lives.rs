//! Keys with lives while nodes crash, lose touch and stand still at random: no life is ever short.

use std::collections::BTreeMap;

use keva::raft::types::NodeId;
use keva::replica::io::{ChangeKind, Ticket};
use keva::util::rng::Rng;
use keva::util::time::Millis;

use crate::cluster::{Cluster, PATIENCE_MS, put_with_life, write_of};

/// What the clients know, and how far each node's history was looked at.
struct Story {
    cluster: Cluster,
    rng: Rng,
    /// When a client asked for each key, and for how long.
    asked: BTreeMap<String, (Millis, u64)>,
    seen: BTreeMap<NodeId, u64>,
    ended: usize,
}

impl Story {
    fn new(seed: u64) -> Story {
        let (mut cluster, _) = Cluster::with_snapshots(3, seed, 3_000, 500);
        // So that whoever forgets the time starts far behind.
        cluster.run(5_000);
        Story { cluster, rng: Rng::new(seed), asked: BTreeMap::new(), seen: BTreeMap::new(), ended: 0 }
    }

    fn any_node(&mut self) -> NodeId {
        let ids = self.cluster.ids();
        ids[self.rng.range(0, ids.len() as u64) as usize]
    }

    fn write(&mut self) -> Option<Ticket> {
        let id = self.any_node();
        if !self.cluster.up().contains(&id) {
            return None;
        }
        let (key, ttl_ms) = (format!("k{}", self.asked.len()), self.rng.range(1, 2_500));
        self.asked.insert(key.clone(), (self.cluster.now, ttl_ms));
        Some(self.cluster.submit(id, write_of(put_with_life(&key, "v", Some(ttl_ms))), PATIENCE_MS))
    }

    fn disturb(&mut self) {
        let id = self.any_node();
        let is_up = self.cluster.up().contains(&id);
        match self.rng.range(0, 8) {
            0 | 1 if is_up => {
                self.cluster.crash(id);
                self.seen.remove(&id);
            }
            2 if is_up => self.cluster.isolate(id),
            3 if is_up => self.cluster.isolate_as_lost(id),
            4 => self.cluster.pause(id),
            _ => self.mend(),
        }
    }

    fn mend(&mut self) {
        self.cluster.heal();
        for id in self.cluster.ids() {
            if !self.cluster.up().contains(&id) {
                self.cluster.start(id);
            }
        }
    }

    fn run(&mut self, millis: u64) {
        for _ in 0..millis {
            self.cluster.run(1);
            self.look();
        }
    }

    /// J3: what has ended was asked for at least its life ago.
    fn look(&mut self) {
        for id in self.cluster.up() {
            let history = self.cluster.replica(id).history();
            let next = self.seen.entry(id).or_insert(1);
            *next = history.first_number().max(*next);
            while let Some(change) = history.get(*next) {
                *next += 1;
                if change.kind != ChangeKind::Expire {
                    continue;
                }
                let (asked_at, ttl_ms) = self.asked[change.key.as_ref()];
                let life = self.cluster.now - asked_at;
                assert!(life > ttl_ms, "{} lived for {life} ms instead of {ttl_ms} by {id}", change.key);
                self.ended += 1;
            }
        }
    }
}

/// J3
#[test]
fn lives_are_never_short() {
    let mut ended = 0;
    for seed in 0..25 {
        let mut story = Story::new(seed);
        for _ in 0..60 {
            for _ in 0..story.rng.range(0, 4) {
                story.write();
            }
            if story.rng.range(0, 3) == 0 {
                story.disturb();
            }
            let pause = story.rng.range(1, 150);
            story.run(pause);
        }
        story.mend();
        story.cluster.await_leader();
        // A life is longer by what the cluster stood still, and that is bounded by how long the story was.
        story.run(10_000);
        story.cluster.settle();
        assert_eq!(story.cluster.replica(story.cluster.ids()[0]).store().key_count(), 0, "seed {seed}");
        ended += story.ended;
    }
    assert!(ended > 1_000, "only {ended} ends were seen");
}
