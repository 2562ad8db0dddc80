//! Faults around elections, aimed at whoever leads or campaigns: what chance alone hardly ever brings together.

use crate::env::{Env, Event};
use crate::faults::{Death, Faults, Order};
use crate::marks::Mark;
use crate::node::Node;
use crate::plan::{Class, exponential};
use crate::support::sim_disk::SimDisk;
use keva::raft::types::RoleName;

/// What is going on.
#[derive(Debug)]
pub(crate) struct Storms {
    /// Whose answers are held back, until the others elect another leader.
    held_back: Option<usize>,
    /// Who is cut off since then, until another leader has been there for a while.
    cut_off: Option<usize>,
    /// Who is cut off until so many entries are committed.
    lags: Option<(usize, u64)>,
    /// What each node was when it was looked at last.
    roles: Vec<Option<RoleName>>,
}

impl Storms {
    pub(crate) fn new(nodes: usize) -> Storms {
        Storms { held_back: None, cut_off: None, lags: None, roles: vec![None; nodes] }
    }
}

impl Faults {
    /// What brings out several leaders at a time, and logs with many different ends.
    pub(crate) fn storm(
        &mut self,
        env: &mut Env,
        leader: Option<usize>,
        nodes: &mut [Node],
        orders: &mut Vec<Order>,
    ) {
        let rng = self.rng(Class::Storm);
        let Some(leader) = leader else {
            return if rng.bool() {
                env.network.heal();
            };
        };
        let (kind, friend) = (rng.u32(..8), rng.usize(..nodes.len()));
        let others = (0..nodes.len()).filter(|other| *other != leader);
        for other in others {
            let (out, back) = match kind {
                0 | 1 => (true, true),
                2 => (true, false),
                3 => (false, true),
                4 | 5 => (other != friend, other != friend),
                _ => (false, false),
            };
            if out {
                env.network.block(leader, other);
            }
            if back {
                env.network.block(other, leader);
            }
            if kind < 6 && rng.u32(..4) > 0 {
                nodes[other].clock.leap(env.plan.unit() * 2);
                env.checks.record.lives.leapt += env.plan.unit() * 2;
                nodes[other].wake(env, env.now);
            }
        }
        match kind {
            6 => orders.push(Order::Die(leader, if rng.bool() { Death::Kill } else { Death::PowerCut })),
            7 => env.network.heal(),
            _ => {}
        }
        let after = exponential(self.rng(Class::Storm), env.plan.unit());
        self.heal_after(env, after);
    }

    /// The first half of [`Class::Echo`]: what the others send to the leader stays on its way, answers to heartbeats
    /// too. The leader goes on for as long as it thinks that it is followed.
    pub(crate) fn hold_answers(&mut self, env: &mut Env, leader: Option<usize>) {
        let Some(leader) = leader.filter(|_| self.storms.held_back.is_none()) else { return };
        self.storms.held_back = Some(leader);
        for other in (0..env.plan.nodes).filter(|other| *other != leader) {
            env.network.block(other, leader);
        }
        let beat = env.plan.heartbeat_ms * 1000;
        let after = self.rng(Class::Echo).u64(beat / 4..beat * 3 / 2);
        env.schedule(env.now + after, Event::Depose);
    }

    /// The second half: the others lose the leader and elect another one. Then the old answers come.
    pub(crate) fn depose(&mut self, env: &mut Env, nodes: &mut [Node]) {
        let Some(leader) = self.storms.held_back.take().filter(|_| !env.checks.is_calm) else { return };
        env.trace(|| format!("node{} is cut off, its answers come later", leader + 1));
        env.mark(Mark::AnswersHeldBack);
        for other in (0..nodes.len()).filter(|other| *other != leader) {
            env.network.block(leader, other);
            nodes[other].clock.leap(env.plan.unit() * 2);
            env.checks.record.lives.leapt += env.plan.unit() * 2;
            nodes[other].wake(env, env.now);
        }
        let unit = env.plan.unit();
        self.storms.cut_off = Some(leader);
        env.rush_until = env.now + unit;
        self.heal_after(env, unit);
    }

    /// [`Class::Lag`]
    pub(crate) fn cut_off_for_long(&mut self, env: &mut Env, node: usize) {
        if self.storms.lags.is_some() {
            return;
        }
        let unit = env.plan.unit();
        let more = self.rng(Class::Lag).u64(5..120);
        env.trace(|| format!("node{} is cut off until {more} more entries are committed", node + 1));
        self.storms.lags = Some((node, env.checks.record.len() + more));
        for other in (0..env.plan.nodes).filter(|other| *other != node) {
            env.network.block(node, other);
            env.network.block(other, node);
        }
        env.rush_until = env.now + unit * 6;
        self.heal_after(env, unit * 12);
    }

    fn maybe_end_lag(&mut self, env: &mut Env, disks: &[SimDisk]) {
        let Some((node, until)) = self.storms.lags else { return };
        if env.checks.record.len() < until && env.now < env.rush_until {
            return;
        }
        self.storms.lags = None;
        // What it does with the snapshot that it gets is worth a crash.
        let rng = self.rng(Class::Lag);
        let (kind, crash_after) = (rng.u32(..4), rng.bool());
        let (soon, later) = (disks[node].operations() + rng.u64(..60), rng.u64(..10));
        disks[node].update_faults(|faults| {
            faults.crash_after = crash_after;
            match kind {
                0 => faults.crash_at = Some(soon),
                1 | 2 => faults.crash_behind_snapshot = Some(later),
                _ => {}
            }
        });
        self.heal_after(env, 0);
    }

    /// Looks whether the node has just been elected, or has just begun to campaign.
    pub(crate) fn after_turn(&mut self, env: &mut Env, nodes: &mut [Node], disks: &[SimDisk], node: usize) {
        if !env.checks.is_calm {
            self.maybe_end_lag(env, disks);
            self.maybe_disturb_installation(env, nodes, node);
        }
        let role = nodes[node].process.as_ref().map(|process| process.replica.raft().role());
        let before = std::mem::replace(&mut self.storms.roles[node], role);
        if before == role || env.checks.is_calm {
            return;
        }
        match role {
            Some(RoleName::Leader) if self.storms.cut_off.is_some_and(|cut_off| cut_off != node) => {
                self.storms.cut_off = None;
                let unit = env.plan.unit();
                let after = self.rng(Class::Echo).u64(unit / 20..unit * 3 / 4);
                self.heal_after(env, after);
            }
            Some(RoleName::PreCandidate) if env.plan.classes.has(Class::Falter) => {
                self.hold_up_campaign(env, nodes, node);
            }
            _ => {}
        }
    }

    /// A snapshot that comes in parts does so in a short time: few faults would hit it by chance.
    fn maybe_disturb_installation(&mut self, env: &mut Env, nodes: &mut [Node], node: usize) {
        let classes = env.plan.classes;
        let Some(process) = &nodes[node].process else { return };
        if !process.replica.raft().is_receiving_snapshot() {
            return;
        }
        if classes.has(Class::Reset)
            && self.rng(Class::Reset).u32(..4) == 0
            && let Some(socket) = env.network.random_connection_of(node)
        {
            env.trace(|| format!("node{} loses a connection while it gets a snapshot", node + 1));
            env.network.break_connection(socket);
        }
        if classes.has(Class::CrashPoint) && self.rng(Class::CrashPoint).u32(..16) == 0 {
            nodes[node].die_at_send = Some(0);
        }
    }

    /// [`Class::Falter`]
    fn hold_up_campaign(&mut self, env: &mut Env, nodes: &mut [Node], node: usize) {
        let unit = env.plan.unit();
        let rng = self.rng(Class::Falter);
        if rng.u32(..3) > 0 {
            return;
        }
        let until = env.now + rng.u64(unit / 50..unit);
        let others_campaign = rng.u32(..3) > 0;
        env.mark(Mark::CampaignHeldUp);
        env.trace(|| format!("node{} stands still in its campaign", node + 1));
        nodes[node].stand_still(env, until);
        if others_campaign {
            for other in (0..nodes.len()).filter(|other| *other != node) {
                nodes[other].clock.leap(unit * 2);
                env.checks.record.lives.leapt += unit * 2;
                nodes[other].wake(env, env.now);
            }
        }
    }
}
