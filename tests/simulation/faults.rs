//! What goes wrong, and when.

use fastrand::Rng;
use keva::limits::{IDEMPOTENCY_MS_MIN, TIME_CHECKPOINT_MS};

use crate::checks::Harm;
use crate::env::{Env, Event};
use crate::marks::Mark;
use crate::node::Node;
use crate::plan::{CLASSES, Class, exponential, stream};
use crate::storms::Storms;
use crate::support::sim_disk::SimDisk;

/// How a process ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Death {
    /// The host goes on, with its cache, and closes the sockets.
    Kill,
    /// The host stops.
    PowerCut,
}

/// What the world has to do: everything else is done here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Order {
    Die(usize, Death),
    Stop(usize),
    Wipe(usize),
    RollBack(usize),
}

/// Draws the faults. Each kind has a stream of its own.
#[derive(Debug)]
pub(crate) struct Faults {
    streams: Vec<Rng>,
    partition: u64,
    pub(crate) storms: Storms,
}

impl Faults {
    pub(crate) fn new(env: &mut Env) -> Faults {
        let plan = &env.plan;
        let seed = plan.seed;
        let streams: Vec<Rng> = CLASSES.into_iter().map(|class| stream(seed, 300 + class as u64)).collect();
        let mut faults = Faults { streams, partition: 0, storms: Storms::new(plan.nodes) };
        for class in env.plan.classes.iter() {
            faults.schedule(env, class);
        }
        faults
    }

    /// The draws of a kind.
    pub(crate) fn rng(&mut self, class: Class) -> &mut Rng {
        &mut self.streams[class as usize]
    }

    fn schedule(&mut self, env: &mut Env, class: Class) {
        if matches!(class, Class::Storm | Class::Echo) {
            let unit = env.plan.unit();
            let at = env.now + self.rng(class).u64(unit / 4..unit * 4);
            if at < env.plan.duration && env.plan.nodes > 1 {
                env.schedule(at, Event::Fault { class: class as u8 });
            }
            return;
        }
        let factor = match class {
            Class::Lag
            | Class::Partition
            | Class::OneWay
            | Class::Pause
            | Class::CrashPoint
            | Class::Reset => 1,
            Class::Kill | Class::PowerCut | Class::Leap | Class::Stop | Class::Freeze => 2,
            Class::CrashAll
            | Class::SyncError
            | Class::DiskFull
            | Class::Rot
            | Class::Misdirect
            | Class::RollBack
            | Class::Wipe => 4,
            _ => return,
        };
        let at = env.now + 1 + exponential(self.rng(class), env.plan.fault_interval * factor);
        if at < env.plan.duration {
            env.schedule(at, Event::Fault { class: class as u8 });
        }
    }

    /// A fault is due.
    pub(crate) fn strike(
        &mut self,
        env: &mut Env,
        class: Class,
        nodes: &mut [Node],
        disks: &[SimDisk],
        orders: &mut Vec<Order>,
    ) {
        if env.checks.is_calm {
            return;
        }
        self.schedule(env, class);
        let leader = nodes
            .iter()
            .position(|node| node.process.as_ref().is_some_and(|process| process.replica.raft().is_leader()));
        let rng = self.rng(class);
        let any = rng.usize(..nodes.len());
        // Leaders are where it hurts.
        let node = leader.filter(|_| rng.u32(..3) == 0).unwrap_or(any);
        env.trace(|| format!("fault: {class} on node{}", node + 1));
        match class {
            Class::Partition => self.partition(env, leader),
            Class::OneWay => self.one_way(env, leader),
            Class::Reset => {
                if let Some(socket) = env.network.random_node_connection() {
                    env.network.break_connection(socket);
                }
            }
            Class::Pause => {
                let unit = env.plan.unit();
                let duration = match rng.u32(..4) {
                    0 => rng.u64(unit / 10..unit),
                    1 | 2 => rng.u64(unit..unit * 4),
                    _ => rng.u64(unit * 4..unit * 30),
                };
                nodes[node].pause = Some((rng.u32(..16), duration));
            }
            Class::Leap => {
                let mut leap = rng.u64(..env.plan.unit() * 10);
                // Outcomes are remembered for a while, and that may not pass by leaps.
                let may_be_long = env.checks.record.lives.leapt < IDEMPOTENCY_MS_MIN * 1000 / 2;
                let is_long = leap.is_multiple_of(2) && may_be_long;
                if is_long && env.plan.classes.has(Class::Lives) && nodes.len() == 1 {
                    // So long that the time is written down. With others, such a leader would be none any more.
                    leap += TIME_CHECKPOINT_MS * 1000;
                }
                nodes[node].clock.leap(leap);
                env.checks.record.lives.leapt += leap;
                nodes[node].wake(env, env.now);
            }
            Class::Freeze => {
                let until = env.now + rng.u64(..env.plan.unit() * 10);
                env.mark(Mark::ClockStoodStill);
                nodes[node].clock.freeze(env.now, until);
                // All other clocks leap, as seen from this one.
                env.checks.record.lives.leapt += until - env.now;
                if rng.bool() {
                    nodes[node].stand_still(env, until);
                }
            }
            Class::Kill => orders.push(Order::Die(node, Death::Kill)),
            Class::PowerCut => orders.push(Order::Die(node, Death::PowerCut)),
            Class::CrashAll => {
                let death = if rng.bool() { Death::Kill } else { Death::PowerCut };
                orders.extend((0..nodes.len()).map(|node| Order::Die(node, death)));
            }
            Class::CrashPoint if rng.u32(..4) == 0 => {
                let later = rng.u64(..10);
                let crash_after = rng.bool();
                disks[node].update_faults(|faults| {
                    (faults.crash_behind_snapshot, faults.crash_after) = (Some(later), crash_after);
                });
            }
            Class::CrashPoint if rng.bool() => {
                let crash_at = disks[node].operations() + rng.u64(..14);
                let crash_after = rng.bool();
                disks[node].update_faults(|faults| {
                    (faults.crash_at, faults.crash_after) = (Some(crash_at), crash_after);
                });
            }
            Class::CrashPoint => nodes[node].die_at_send = Some(rng.u32(..20)),
            Class::SyncError => {
                let at = disks[node].syncs() + rng.u64(..8);
                disks[node].update_faults(|faults| faults.sync_error_at = Some(at));
            }
            Class::DiskFull => {
                nodes[node].is_disk_full = !nodes[node].is_disk_full;
                let free = nodes[node].is_disk_full.then(|| rng.usize(..env.plan.segment_bytes * 3));
                disks[node].update_faults(|faults| faults.free_bytes = free);
            }
            Class::Rot if rng.bool() && env.checks.may_harm(node, disks) => {
                let is_rotten = self.rot_in_use(&disks[node]);
                if is_rotten {
                    env.checks.on_harm(node, Harm::Rotten, &disks[node]);
                }
            }
            Class::Rot | Class::Misdirect => {
                // At rest: it shows at the next start.
                nodes[node].rot = Some(class);
                orders.push(Order::Die(node, Death::PowerCut));
            }
            Class::Storm => self.storm(env, leader, nodes, orders),
            Class::Echo => self.hold_answers(env, leader),
            Class::Lag => self.cut_off_for_long(env, node),
            Class::Stop => orders.push(Order::Stop(node)),
            Class::Wipe if env.checks.may_harm(node, disks) => orders.push(Order::Wipe(node)),
            Class::RollBack if env.checks.may_harm(node, disks) => orders.push(Order::RollBack(node)),
            _ => {}
        }
    }

    fn partition(&mut self, env: &mut Env, leader: Option<usize>) {
        let nodes = env.plan.nodes;
        let rng = &mut self.streams[Class::Partition as usize];
        let mut order: Vec<usize> = (0..nodes).collect();
        rng.shuffle(&mut order);
        let kind = rng.u32(..6);
        let split = rng.usize(..=nodes);
        let place = |node: usize| order.iter().position(|other| *other == node).expect("all nodes are in it");
        let separates = |from: usize, to: usize| match kind {
            0 | 1 => (place(from) < split) != (place(to) < split),
            2 => from == order[0] || to == order[0],
            3 => leader.is_some_and(|leader| from == leader || to == leader),
            // A ring: everybody reaches two others.
            4 => {
                !matches!(place(from).abs_diff(place(to)), 1) && place(from).abs_diff(place(to)) != nodes - 1
            }
            // A bridge: one node reaches all, the halves do not reach one another.
            _ => {
                let half = |node: usize| (place(node) - 1) < (nodes - 1) / 2;
                place(from) > 0 && place(to) > 0 && half(from) != half(to)
            }
        };
        let pairs = (0..nodes).flat_map(|from| (0..nodes).map(move |to| (from, to)));
        let blocked: Vec<(usize, usize)> =
            pairs.filter(|(from, to)| from != to && separates(*from, *to)).collect();
        env.trace(|| format!("partition: no way for {blocked:?}"));
        for (from, to) in blocked {
            env.network.block(from, to);
        }
        self.plan_heal(env, Class::Partition);
    }

    fn one_way(&mut self, env: &mut Env, leader: Option<usize>) {
        let nodes = env.plan.nodes;
        let rng = self.rng(Class::OneWay);
        let from = leader.filter(|_| rng.bool()).unwrap_or(rng.usize(..nodes));
        let is_outgoing = rng.bool();
        let some = rng.bool();
        for other in (0..nodes).filter(|other| *other != from) {
            if some && self.rng(Class::OneWay).bool() {
                continue;
            }
            let (from, to) = if is_outgoing { (from, other) } else { (other, from) };
            env.network.block(from, to);
        }
        self.plan_heal(env, Class::OneWay);
    }

    fn plan_heal(&mut self, env: &mut Env, class: Class) {
        let after = exponential(self.rng(class), env.plan.unit() * 4);
        self.heal_after(env, after);
    }

    pub(crate) fn heal_after(&mut self, env: &mut Env, micros: u64) {
        self.partition += 1;
        env.schedule(env.now + 1 + micros, Event::Heal { number: self.partition });
    }

    pub(crate) fn heal(&mut self, env: &mut Env, number: u64) {
        if number == self.partition && !env.checks.is_calm {
            env.mark(Mark::PartitionHealed);
            env.trace(|| "the partition is healed".into());
            env.network.heal();
        }
    }
}
