//! How processes begin and end, and what happens to their disks in between.

use keva::raft::raft::Raft;
use keva::raft::storage::{Storage, StorageError};
use keva::raft::types::{Incarnation, Standing};
use keva::storage::RecoveryReport;

use crate::checks::{Harm, place};
use crate::env::Event;
use crate::faults::{Death, Order};
use crate::marks::Mark;
use crate::node::Clock;
use crate::plan::{Class, exponential};
use crate::support::sim_disk::SimDisk;
use crate::world::World;

impl World {
    pub(crate) fn wipe(&mut self, node: usize) {
        self.env.trace(|| format!("node{}'s disk is emptied", node + 1));
        self.env.mark(Mark::DiskEmptied);
        self.env.checks.on_harm(node, Harm::Wiped, &self.disks[node]);
        self.disks[node] = SimDisk::default();
        self.copies[node].clear();
        self.recent[node] = None;
        (self.nodes[node].has_refused, self.nodes[node].rot) = (false, None);
    }

    /// Copies a disk now and then while its process runs.
    pub(crate) fn keep_recent_copy(&mut self, node: usize) {
        let is_due = self.env.plan.classes.has(Class::RollBack) && self.env.checks.atlas.is_sound(node);
        if is_due && self.faults.rng(Class::RollBack).u32(..100) == 0 {
            self.recent[node] = Some(self.disks[node].fork());
        }
    }

    /// Puts a copy in a disk's place that was made since the last start.
    pub(crate) fn maybe_set_back(&mut self) {
        let Some(node) = self.set_back_due.filter(|_| !self.env.checks.is_calm) else { return };
        let Some(copy) = &self.recent[node] else {
            self.set_back_due = None;
            return;
        };
        let rafts = self.nodes.iter().filter_map(|node| Some(node.process.as_ref()?.replica.raft()));
        let known = rafts.flat_map(Raft::peers).filter(|(peer, _)| place(*peer) == node);
        let matched = known.map(|(_, progress)| progress.match_index()).max().unwrap_or_default();
        if !self.env.checks.may_set_back(node, copy, matched, &self.disks) {
            return;
        }
        let copy = copy.fork();
        self.set_back_due = None;
        if self.nodes[node].process.is_some() {
            self.die(node, Death::Kill);
        }
        self.env.trace(|| format!("node{}'s disk goes back to an earlier time of the same start", node + 1));
        self.env.mark(Mark::DiskSetBack);
        self.env.checks.on_harm(node, Harm::SetBack, &self.disks[node]);
        self.disks[node] = copy;
        self.nodes[node].rot = None;
    }

    /// Puts an older copy in a disk's place, one so old that all others will notice.
    pub(crate) fn roll_back(&mut self, node: usize) {
        if self.recent[node].is_some() && self.faults.rng(Class::RollBack).bool() {
            self.set_back_due = Some(node);
            return;
        }
        let Some(met) = self.env.checks.atlas.noticed_before(node) else { return };
        let copies = std::mem::take(&mut self.copies[node]);
        let old: Vec<&(Incarnation, SimDisk)> = copies.iter().filter(|copy| copy.0 <= met).collect();
        if old.is_empty() {
            self.copies[node] = copies;
            return;
        }
        let (incarnation, copy) = old[self.faults.rng(Class::RollBack).usize(..old.len())];
        if self.nodes[node].process.is_some() {
            self.die(node, Death::Kill);
        }
        self.env.trace(|| format!("node{}'s disk goes back to before start {incarnation}", node + 1));
        self.env.mark(Mark::DiskRolledBack);
        let disk = &self.disks[node];
        self.env.checks.on_harm(node, Harm::RolledBack, disk);
        self.disks[node] = copy.fork();
        self.nodes[node].rot = None;
    }

    pub(crate) fn die(&mut self, node: usize, death: Death) {
        self.note_end(node);
        let host = &mut self.nodes[node];
        (host.process, host.wake_at, host.has_power) = (None, None, death == Death::Kill);
        self.env.checks.on_end(node);
        // What it was about to become, and had not synced, it may not be when it starts again.
        let durable = &mut self.env.checks.durable[node];
        durable.refresh(&self.disks[node]);
        if durable.standing != Standing::Voter {
            self.env.checks.atlas.set_standing(node, durable.standing);
        }
        match death {
            Death::Kill => self.env.network.end_process(node),
            Death::PowerCut => self.env.network.end_power(node),
        }
        if !self.env.checks.is_calm {
            let down = exponential(&mut host.rng, self.env.plan.unit() * 2);
            // Some come back at once.
            let down = if host.rng.u32(..3) == 0 { 200 } else { down };
            self.env.schedule(self.env.now + 1 + down, Event::Start { node });
        } else {
            self.env.schedule(self.env.now + 1, Event::Start { node });
        }
        // Whoever forgets that another one's disk went back will not notice again, and a process that is not the first
        // one on such a disk may count its starts like one that is known. The operator empties the disk before that, if
        // the node has not been told yet.
        for host in 0..self.nodes.len() {
            if matches!(self.env.checks.atlas.harm(host), Some(Harm::RolledBack)) {
                self.orders.push(Order::Wipe(host));
            }
        }
    }

    fn note_end(&mut self, node: usize) {
        let Some(process) = &self.nodes[node].process else { return };
        let raft = process.replica.raft();
        if raft.is_receiving_snapshot() {
            self.env.mark(Mark::InstallCutShort);
        } else if raft.storage().snapshot_draft().is_some() {
            self.env.mark(Mark::SnapshotCutShort);
        }
    }

    pub(crate) fn start(&mut self, node: usize) {
        if self.nodes[node].process.is_some() || self.nodes[node].is_outside {
            return;
        }
        if self.nodes[node].has_refused {
            self.env.mark(Mark::RefusedEmptied);
            self.wipe(node);
        }
        self.recent[node] = None;
        self.wake_disk(node);
        let (host, disk) = (&mut self.nodes[node], &self.disks[node]);
        let keeps_copies = self.env.plan.classes.has(Class::RollBack) && self.env.checks.atlas.is_sound(node);
        let copy = keeps_copies.then(|| disk.fork());
        let is_calm = self.env.checks.is_calm;
        if self.env.plan.classes.has(Class::RecoveryCrash) && !is_calm {
            let rng = self.faults.rng(Class::RecoveryCrash);
            if rng.u32(..3) == 0 {
                let (crash_at, crash_after) = (disk.operations() + rng.u64(..24), rng.bool());
                disk.update_faults(|faults| {
                    (faults.crash_at, faults.crash_after) = (Some(crash_at), crash_after);
                });
            }
        }
        if host.is_disk_full {
            let free = self.faults.rng(Class::DiskFull).usize(..self.env.plan.segment_bytes * 2);
            disk.update_faults(|faults| faults.free_bytes = Some(free));
        }
        host.clock = Clock::new(self.env.now, &mut host.rng, &self.env.plan, is_calm);
        match host.start(self.env.now, &self.env.plan, disk) {
            Ok(report) => {
                self.started(node, &report);
                self.keep_copy(node, copy);
            }
            Err(error) => self.not_started(node, &error),
        }
    }

    /// What the disk holds when a process looks at it.
    fn wake_disk(&mut self, node: usize) {
        let (host, disk) = (&mut self.nodes[node], &self.disks[node]);
        if host.has_power {
            disk.end_process();
        } else {
            self.faults.crash_disk(&self.env.plan, disk);
            host.has_power = true;
        }
        let Some(kind) = host.rot.take() else { return };
        if !self.env.checks.may_harm(node, &self.disks) {
            return;
        }
        self.env.checks.on_harm(node, Harm::Rotten, disk);
        host.rotted_by = Some(kind);
        match kind {
            Class::Misdirect => self.faults.misdirect(disk),
            _ => self.faults.rot_disk(disk),
        }
        self.env.trace(|| format!("node{}'s disk is damaged: {kind}", node + 1));
        let rng = self.faults.rng(kind);
        if rng.u32(..3) == 0 {
            // While it is put in order.
            let (crash_at, crash_after) = (disk.operations() + rng.u64(..24), rng.bool());
            disk.update_faults(|faults| {
                (faults.crash_at, faults.crash_after) = (Some(crash_at), crash_after);
            });
        }
    }

    fn keep_copy(&mut self, node: usize, copy: Option<SimDisk>) {
        let process = self.nodes[node].process.as_ref().expect("just started");
        let incarnation = process.replica.raft().storage().incarnation();
        let copies = &mut self.copies[node];
        copies.extend(copy.map(|copy| (incarnation, copy)));
        if copies.len() > 4 {
            copies.remove(0);
        }
    }

    fn started(&mut self, node: usize, report: &RecoveryReport) {
        let env = &mut self.env;
        env.trace(|| format!("node{} starts: {report}", node + 1));
        let raft = self.nodes[node].process.as_ref().expect("just started").replica.raft();
        let (standing, has_snapshot) = (raft.standing(), raft.storage().snapshot().is_some());
        let was_rotten = env.checks.atlas.harm(node) == Some(Harm::Rotten);
        let is_misplaced = self.nodes[node].rotted_by == Some(Class::Misdirect);
        let rare = [
            (report.torn.is_some(), Mark::TornTailCut),
            (report.hard_state.is_some_and(|case| case.contains("only")), Mark::SlotLost),
            (report.segments > 1, Mark::SegmentBegun),
            (report.rewritten_bytes > 0, Mark::TailRewritten),
            (report.clean, Mark::RecoveryClean),
            (report.first_start && self.nodes[node].starts > 1, Mark::StartCutShort),
            (self.nodes[node].is_disk_full && !report.first_start, Mark::FullRestart),
            (was_rotten && standing == Standing::Voter && !is_misplaced, Mark::RotHarmless),
            (was_rotten && standing == Standing::Voter && is_misplaced, Mark::MisplacedHarmless),
            (was_rotten && standing != Standing::Voter && !is_misplaced, Mark::DamageSetAside),
            (was_rotten && standing != Standing::Voter && is_misplaced, Mark::MisplacedSetAside),
            (has_snapshot, Mark::RestoredFromSnapshot),
        ];
        for (_, mark) in rare.into_iter().filter(|(happened, _)| *happened) {
            env.mark(mark);
        }
        let process = self.nodes[node].process.as_ref().expect("just started");
        let life = process.links.life();
        env.checks.on_start(&mut env.marks, node, (&process.replica, life), &self.disks[node]);
        env.network.set_listening(node, true);
        self.nodes[node].wake(env, 0);
    }

    fn not_started(&mut self, node: usize, error: &StorageError) {
        self.env.trace(|| format!("node{} does not start: {error}", node + 1));
        if let Some(death) = self.explain(node, error) {
            self.env.mark(Mark::RecoveryCutShort);
            return self.die(node, death);
        }
        let is_rotten = self.env.checks.atlas.harm(node) == Some(Harm::Rotten);
        assert!(is_rotten, "node{} does not start, on a good disk: {error}", node + 1);
        // Everything else can be repaired.
        let text = error.to_string();
        let has_begun = self.disks[node].names().iter().any(|name| name == "hard-state");
        let is_beyond_repair = ["keva.id", "hard-state"].iter().any(|name| text.contains(name)) || !has_begun;
        assert!(is_beyond_repair, "node{} refuses a disk that can be repaired: {error}", node + 1);
        self.env.mark(Mark::RotRefused);
        self.nodes[node].has_refused = true;
        let after = exponential(self.faults.rng(Class::Rot), self.env.plan.unit() * 4);
        self.env.schedule(self.env.now + 1 + after, Event::Start { node });
    }
}
