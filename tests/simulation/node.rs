//! A simulated host with its disk and clock, and the process that may run on it.

use std::rc::Rc;

use fastrand::Rng;
use keva::limits::{HOUSEKEEPING_PAUSE_MS, SNAPSHOT_DEBT_BYTES_MAX};
use keva::net::api::{Health, NodeView};
use keva::net::peer::greeting::Identity;
use keva::net::watch::Hub;
use keva::raft::message::Envelope;
use keva::raft::storage::{Housekeeping, StorageError};
use keva::raft::types::NodeId;
use keva::replica::io::{Ticket, TurnOutput};
use keva::replica::replica::{Replica, ReplicaConfig};
use keva::storage::{LogStorage, Membership, RecoveryReport, StorageOptions};
use keva::util::hash::fnv1a_64;
use keva::util::time::Millis;

use crate::env::Env;
use crate::links::Links;
use crate::plan::{Class, Plan, stream};
use crate::sessions::Sessions;
use crate::support::sim_disk::SimDisk;
use crate::support::storage_fixture::SimStorage;
use crate::turn::Step;

/// How long a turn takes at least.
pub(crate) const TURN_US: u64 = 30;

/// Why a process ends in the middle of a turn.
#[derive(Debug)]
pub(crate) enum Halt {
    /// The storage failed: nothing else may leave.
    Storage(StorageError),
    /// It was killed there.
    Killed,
    /// It stopped because it was asked to.
    Stopped,
}

impl From<StorageError> for Halt {
    fn from(error: StorageError) -> Halt {
        Halt::Storage(error)
    }
}

/// A host's monotonic clock: its own rate, its own start, leaps, and times when it stands still.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// It runs from here on, possibly in the future.
    started: u64,
    offset_us: u64,
    /// Thousandths of true time.
    rate: u64,
}

impl Clock {
    pub(crate) fn new(now: u64, rng: &mut Rng, plan: &Plan, is_calm: bool) -> Clock {
        let drifts = plan.classes.has(Class::Drift) && !is_calm;
        let rate = if drifts { rng.u64(800..=1200) } else { 1000 };
        Clock { started: now, offset_us: rng.u64(..2_000), rate }
    }

    pub(crate) fn read(&self, now: u64) -> Millis {
        Millis(self.micros(now) / 1000)
    }

    fn micros(&self, now: u64) -> u64 {
        self.offset_us + now.saturating_sub(self.started) * self.rate / 1000
    }

    /// When the clock will show this.
    fn when(&self, at: Millis) -> u64 {
        let local = at.0.saturating_mul(1000).saturating_sub(self.offset_us);
        self.started + local.saturating_mul(1000).div_ceil(self.rate)
    }

    pub(crate) fn leap(&mut self, micros: u64) {
        self.offset_us += micros;
    }

    /// Stands still until then.
    pub(crate) fn freeze(&mut self, now: u64, until: u64) {
        self.offset_us = self.micros(now);
        self.started = until.max(self.started);
    }

    /// Goes on at once.
    pub(crate) fn thaw(&mut self, now: u64) {
        self.started = self.started.min(now);
    }
}

/// What runs on a host: everything that is lost when it ends.
pub(crate) struct Process {
    pub(crate) replica: Replica<SimStorage>,
    pub(crate) links: Links,
    pub(crate) sessions: Sessions,
    pub(crate) hub: Hub<Ticket>,
    pub(crate) step: Step,
    pub(crate) now: Millis,
    pub(crate) messages: Vec<Envelope>,
    pub(crate) output: TurnOutput,
    pub(crate) view: NodeView,
    pub(crate) names: Vec<(NodeId, Rc<str>)>,
    /// When there is housekeeping that need not be done at once.
    house_after: Option<Millis>,
    house_last: Millis,
    slice_bytes: usize,
    pub(crate) stop_by: Option<Millis>,
    pub(crate) spins: u32,
}

/// A host.
pub(crate) struct Node {
    pub(crate) index: usize,
    pub(crate) id: NodeId,
    pub(crate) rng: Rng,
    pub(crate) clock: Clock,
    pub(crate) process: Option<Process>,
    pub(crate) wake_at: Option<u64>,
    /// The process does not go on before this.
    pub(crate) busy_until: u64,
    /// After this many steps the process stands still for this long.
    pub(crate) pause: Option<(u32, u64)>,
    /// The process dies after this many messages.
    pub(crate) die_at_send: Option<u32>,
    /// Its disk will be damaged in this way when the process starts the next time.
    pub(crate) rot: Option<Class>,
    /// How it was damaged last.
    pub(crate) rotted_by: Option<Class>,
    /// Its disk is damaged so that it refuses to start. Somebody will empty it.
    pub(crate) has_refused: bool,
    pub(crate) starts: u64,
    pub(crate) is_disk_full: bool,
    /// Since its last process ended.
    pub(crate) has_power: bool,
    /// At the end of a run: not in the majority that has to recover.
    pub(crate) is_outside: bool,
}

pub(crate) fn name_of(node: usize) -> String {
    format!("node{}", node + 1)
}

pub(crate) fn id_of(node: usize) -> NodeId {
    NodeId(node as u64 + 1)
}

impl Node {
    pub(crate) fn new(index: usize, plan: &Plan) -> Node {
        let mut rng = stream(plan.seed, 1000 + index as u64);
        Node {
            index,
            id: id_of(index),
            clock: Clock::new(0, &mut rng, plan, false),
            rng,
            process: None,
            wake_at: None,
            busy_until: 0,
            pause: None,
            die_at_send: None,
            rot: None,
            rotted_by: None,
            has_refused: false,
            starts: 0,
            is_disk_full: false,
            has_power: true,
            is_outside: false,
        }
    }

    /// Opens the storage and begins, as the program does.
    pub(crate) fn start(
        &mut self,
        now: u64,
        plan: &Plan,
        disk: &SimDisk,
    ) -> Result<RecoveryReport, StorageError> {
        self.starts += 1;
        let members = (0..plan.nodes).map(name_of).collect();
        let membership =
            Membership { node: self.id, identity: name_of(self.index), members, cluster_name: None };
        let rng = keva::util::rng::Rng::new(self.rng.u64(..));
        let options = StorageOptions {
            membership,
            segment_bytes: plan.segment_bytes,
            log_margin_bytes: plan.log_margin_bytes,
            repair: plan.nodes > 1,
            rng,
        };
        let (storage, report) = LogStorage::open(disk.directory(), options)?;
        let voters: Vec<NodeId> = (0..plan.nodes).map(id_of).collect();
        let (incarnation, cluster, disk_id) =
            (storage.incarnation(), storage.cluster_id(), storage.disk_id());
        let config = ReplicaConfig {
            id: self.id,
            incarnation,
            voters: voters.clone(),
            election_timeout_ms: plan.election_ms,
            heartbeat_interval_ms: plan.heartbeat_ms,
            seed: self.rng.u64(..),
            snapshot_log_bytes: plan.snapshot_log_bytes,
            history_bytes: plan.history_bytes,
            // So that removals take several turns.
            keys_per_turn: 1 + plan.rich_keys / 4,
        };
        let identity = Identity {
            cluster,
            members_digest: fnv1a_64(b"all"),
            node: self.id,
            members: voters,
            incarnation,
            disk_id,
            process: config.seed,
            version: "0".into(),
        };
        let local = self.clock.read(now);
        let names: Vec<(NodeId, Rc<str>)> =
            (0..plan.nodes).map(|node| (id_of(node), Rc::from(name_of(node)))).collect();
        let replica = Replica::new(config, storage, local)?;
        let time = replica.logical_now(local);
        self.process = Some(Process {
            hub: Hub::new(replica.history(), replica.store()),
            replica,
            links: Links::new(self.index, identity, plan.heartbeat_ms, self.rng.u64(..)),
            sessions: Sessions::new(plan.value_bytes_max),
            step: Step::Read,
            now: local,
            messages: Vec::new(),
            output: TurnOutput::default(),
            view: NodeView {
                node: Rc::clone(&names[self.index].1),
                leader: None,
                health: Health::default(),
                time,
            },
            names,
            house_after: None,
            house_last: local,
            slice_bytes: plan.slice_bytes,
            stop_by: None,
            spins: 0,
        });
        (self.pause, self.die_at_send, self.busy_until) = (None, None, now);
        Ok(report)
    }

    /// Makes the process look for work at this time.
    pub(crate) fn wake(&mut self, env: &mut Env, at: u64) {
        let at = at.max(self.busy_until).max(env.now);
        if self.process.is_some() && self.wake_at.is_none_or(|wake| at < wake) {
            self.wake_at = Some(at);
            env.schedule(at, crate::env::Event::Turn { node: self.index });
        }
    }

    /// The process stands still between two turns.
    pub(crate) fn stand_still(&mut self, env: &mut Env, until: u64) {
        self.busy_until = self.busy_until.max(until);
        self.wake_at = None;
        self.wake(env, until);
    }

    /// The turn is over: sleeps until there is something to do, unless there is already, and keeps house meanwhile.
    pub(crate) fn sleep(&mut self, env: &mut Env) -> Result<(), Halt> {
        let process = self.process.as_mut().expect("it has just finished a turn");
        let now = self.clock.read(env.now);
        let deadline = process.next_deadline();
        let waiting = process.sessions.earliest_deadline();
        assert!(deadline <= waiting, "it would sleep until {deadline} with an answer due at {waiting}");
        let at_once = process.has_work() || deadline <= now || process.keep_house(now)?;
        let deadline = deadline.min(process.house_after.unwrap_or(Millis::NEVER));
        // Work that is left over takes more turns, but not any number of them.
        process.spins = if at_once && deadline <= now { process.spins + 1 } else { 0 };
        assert!(process.spins < 2_000, "turn after turn, and nothing gets done");
        self.busy_until = env.now + TURN_US;
        let at = if at_once { env.now } else { self.clock.when(deadline) };
        self.wake(env, at);
        Ok(())
    }
}

impl Process {
    fn has_work(&self) -> bool {
        self.links.has_work() || self.sessions.has_work() || self.hub.has_work(self.replica.history())
    }

    fn next_deadline(&self) -> Millis {
        let stop = self.stop_by.unwrap_or(Millis::NEVER);
        let tables = self.links.next_deadline().min(self.sessions.next_deadline());
        let events = self.hub.next_deadline().unwrap_or(Millis::NEVER);
        self.replica.next_deadline().min(tables).min(stop).min(events)
    }

    /// As in a turn with nothing else to do: `keva::net::event_loop::house`. Says whether there is more to do.
    fn keep_house(&mut self, now: Millis) -> Result<bool, StorageError> {
        let is_owed = self.replica.house_debt() >= self.slice_bytes / 4;
        if self.house_after.is_some_and(|after| now < after) && !is_owed {
            return Ok(false);
        }
        Ok(self.work(now, self.slice_bytes)? == Housekeeping::More)
    }

    /// As at the end of a busy turn.
    pub(crate) fn pay(&mut self, now: Millis) -> Result<(), StorageError> {
        let debt = self.replica.house_debt();
        if debt >= self.slice_bytes / 4 {
            self.work(now, debt.min(SNAPSHOT_DEBT_BYTES_MAX))?;
        } else if now >= self.house_last.after(HOUSEKEEPING_PAUSE_MS) {
            self.keep_house(now)?;
        }
        Ok(())
    }

    fn work(&mut self, now: Millis, budget: usize) -> Result<Housekeeping, StorageError> {
        let left = self.replica.keep_house(budget)?;
        self.house_last = now;
        self.house_after = (left == Housekeeping::Later).then(|| now.after(HOUSEKEEPING_PAUSE_MS));
        Ok(left)
    }
}
