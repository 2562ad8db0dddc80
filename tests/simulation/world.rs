//! One run: the nodes, the users, the faults, and how it ends.

use keva::raft::storage::StorageError;
use keva::storage::RecoveryReport;

use crate::env::{Env, Event};
use crate::faults::{Death, Faults, Order};
use crate::marks::{Mark, Marks};
use crate::node::{Clock, Halt, Node};
use crate::plan::{CLASSES, Class, Plan, exponential, stream};
use crate::support::sim_region::SimDisk;
use crate::support::{linearizability, witness};
use crate::users::{Load, User};

/// Events after which the faults end in any case.
const EVENTS_MAX: u64 = 150_000;
/// How long after the last fault everything must be well, besides many election timeouts: links that broke without a
/// sign are only given up after a while.
const RECOVERY_US: u64 = 25_000_000;

/// What a run was like.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    pub(crate) events: u64,
    pub(crate) operations: usize,
    pub(crate) commits: u64,
    pub(crate) hash: u64,
    pub(crate) marks: Marks,
}

struct World {
    env: Env,
    nodes: Vec<Node>,
    disks: Vec<SimDisk>,
    users: Vec<User>,
    load: Load,
    faults: Faults,
    orders: Vec<Order>,
}

/// Runs a plan to its end.
///
/// # Panics
/// When something is wrong that must never be.
pub(crate) fn run(plan: Plan, is_tracing: bool) -> Report {
    let mut world = World::new(plan, is_tracing);
    while world.env.now < world.env.plan.duration && !world.load.is_done() && world.env.events < EVENTS_MAX {
        world.do_next();
    }
    let core = world.calm_down();
    world.await_recovery(&core);
    world.check_history();
    let marks = world.env.marks.clone();
    Report {
        events: world.env.events,
        operations: world.load.history.operations.len(),
        commits: world.env.checks.record.len(),
        hash: world.env.trace_hash(),
        marks,
    }
}

impl World {
    fn new(plan: Plan, is_tracing: bool) -> World {
        let mut env = Env::new(plan.clone(), is_tracing);
        let mut rng = stream(plan.seed, 3);
        for node in 0..plan.nodes {
            env.schedule(rng.u64(..plan.unit()), Event::Start { node });
        }
        let mut users: Vec<User> = (0..plan.users).map(|user| User::new(user, &plan)).collect();
        for user in &mut users {
            user.wake(&mut env, 1);
        }
        World {
            nodes: (0..plan.nodes).map(|node| Node::new(node, &plan)).collect(),
            disks: (0..plan.nodes).map(|_| SimDisk::default()).collect(),
            users,
            load: Load::new(&plan),
            faults: Faults::new(&mut env),
            orders: Vec::new(),
            env,
        }
    }

    fn do_next(&mut self) {
        let env = &mut self.env;
        let Some(event) = env.next() else { panic!("nothing will ever happen again") };
        match event {
            Event::Deliver { pipe } => env.network.deliver(pipe),
            Event::Silence { pipe, since } => env.network.handle_silence(pipe, since),
            Event::Turn { node } => self.take_turn(node),
            Event::User { user } => {
                if self.users[user].wake_at == Some(env.now) {
                    self.users[user].wake_at = None;
                    self.users[user].act(env, &mut self.load);
                }
            }
            Event::Start { node } => self.start(node),
            Event::Fault { class } => {
                let class = CLASSES[usize::from(class)];
                self.faults.strike(env, class, &mut self.nodes, &self.disks, &mut self.orders);
            }
            Event::Depose => {
                self.faults.depose(env, &mut self.nodes);
                for user in &mut self.users {
                    user.hurry(env);
                }
            }
            Event::Heal { number } => self.faults.heal(env, number),
        }
        for order in std::mem::take(&mut self.orders) {
            self.obey(order);
        }
        self.settle_network();
    }

    /// Wakes everybody whom the network has something for.
    fn settle_network(&mut self) {
        let env = &mut self.env;
        env.schedule_network();
        while let Some(host) = env.network.woken.pop() {
            let now = env.now;
            match host.checked_sub(env.plan.nodes) {
                None => self.nodes[host].wake(env, now),
                Some(user) => self.users[user].wake(env, now),
            }
        }
    }

    fn take_turn(&mut self, node: usize) {
        if self.nodes[node].wake_at != Some(self.env.now) {
            return;
        }
        self.nodes[node].wake_at = None;
        if self.nodes[node].process.is_none() {
            return;
        }
        if let Err(halt) = self.nodes[node].turn(&mut self.env, &self.disks) {
            return self.handle_halt(node, halt);
        }
        if self.nodes[node].is_done(self.env.now) {
            return self.finish(node);
        }
        self.faults.after_turn(&mut self.env, &mut self.nodes, node);
    }

    /// A node that was asked to stop is done.
    fn finish(&mut self, node: usize) {
        let process = self.nodes[node].process.take().expect("it has just finished a turn");
        let mut replica = process.replica;
        let result = replica.close().and_then(|()| replica.into_storage().close());
        match result {
            Ok(()) => self.handle_halt(node, Halt::Stopped),
            Err(error) => self.handle_halt(node, Halt::Storage(error)),
        }
    }

    fn handle_halt(&mut self, node: usize, halt: Halt) {
        let death = match &halt {
            Halt::Killed | Halt::Stopped => Death::Kill,
            Halt::Storage(error) => {
                self.explain(node, error).unwrap_or_else(|| panic!("node{}: {error}", node + 1))
            }
        };
        self.env.trace(|| format!("node{} ends: {halt:?}", node + 1));
        self.die(node, death);
    }

    /// Which fault made the storage fail, and how the process ends with it.
    fn explain(&mut self, node: usize, error: &StorageError) -> Option<Death> {
        let env = &mut self.env;
        if self.disks[node].is_dead() {
            env.mark(Mark::CrashAtDisk);
            return Some(Death::PowerCut);
        }
        let StorageError::Io { source, .. } = error else { return None };
        if source.kind() == std::io::ErrorKind::StorageFull && self.nodes[node].is_disk_full {
            env.mark(Mark::DiskFilled);
            return Some(Death::Kill);
        }
        if source.to_string().contains("does not answer") {
            env.mark(Mark::SyncFailed);
            let is_power_cut = self.faults.rng(Class::SyncError).bool();
            return Some(if is_power_cut { Death::PowerCut } else { Death::Kill });
        }
        None
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Die(node, death) => {
                if self.nodes[node].process.is_some() {
                    self.env.trace(|| format!("node{} ends: {death:?}", node + 1));
                    self.die(node, death);
                }
            }
            Order::Stop(node) => {
                let node = &mut self.nodes[node];
                if node.process.as_ref().is_some_and(|process| process.step == crate::turn::Step::Read) {
                    node.start_shutdown();
                    node.wake(&mut self.env, 0);
                }
            }
            Order::Wipe(node) => {
                if self.nodes[node].process.is_some() {
                    self.die(node, Death::PowerCut);
                }
                self.disks[node] = SimDisk::default();
            }
        }
    }

    fn die(&mut self, node: usize, death: Death) {
        let host = &mut self.nodes[node];
        (host.process, host.wake_at, host.has_power) = (None, None, death == Death::Kill);
        self.env.checks.on_end(node);
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
    }

    fn start(&mut self, node: usize) {
        let host = &mut self.nodes[node];
        if host.process.is_some() || host.has_refused || host.is_outside {
            return;
        }
        let disk = &self.disks[node];
        if host.has_power {
            disk.end_process();
        } else {
            self.faults.crash_disk(&self.env.plan, disk);
            host.has_power = true;
            if host.is_misdirected {
                self.faults.misdirect(disk);
            } else if host.is_damaged {
                self.faults.rot_disk(disk);
            }
        }
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
            Ok(report) => self.started(node, &report),
            Err(error) => self.not_started(node, &error),
        }
    }

    fn started(&mut self, node: usize, report: &RecoveryReport) {
        let env = &mut self.env;
        env.trace(|| format!("node{} starts: {report}", node + 1));
        let rare = [
            (report.torn.is_some(), Mark::TornTailCut),
            (report.hard_state.is_some_and(|case| case.contains("only")), Mark::SlotLost),
            (report.segments > 1, Mark::SegmentBegun),
            (report.rewritten_bytes > 0, Mark::TailRewritten),
            (report.clean, Mark::RecoveryClean),
            (report.first_start && self.nodes[node].starts > 1, Mark::StartCutShort),
            (self.nodes[node].is_damaged && !self.nodes[node].is_misdirected, Mark::RotHarmless),
            (self.nodes[node].is_misdirected, Mark::MisplacedHarmless),
        ];
        for (_, mark) in rare.into_iter().filter(|(happened, _)| *happened) {
            env.mark(mark);
        }
        let process = self.nodes[node].process.as_ref().expect("just started");
        env.checks.on_start(&mut env.marks, node, &process.replica, &self.disks[node]);
        env.network.set_listening(node, true);
        self.nodes[node].wake(env, 0);
    }

    fn not_started(&mut self, node: usize, error: &StorageError) {
        self.env.trace(|| format!("node{} does not start: {error}", node + 1));
        if let Some(death) = self.explain(node, error) {
            self.env.mark(Mark::RecoveryCutShort);
            return self.die(node, death);
        }
        assert!(self.nodes[node].is_damaged, "node{} does not start, on a good disk: {error}", node + 1);
        let is_misdirected = self.nodes[node].is_misdirected;
        self.env.mark(if is_misdirected { Mark::MisplacedRefused } else { Mark::RotRefused });
        self.nodes[node].has_refused = true;
    }

    // ---- the end --------------------------------------------------------------------------------

    /// No more faults inside a majority; those outside of it last. Returns the majority.
    fn calm_down(&mut self) -> Vec<usize> {
        let mut rng = stream(self.env.plan.seed, 4);
        let mut core: Vec<usize> =
            (0..self.nodes.len()).filter(|node| !self.nodes[*node].is_damaged).collect();
        rng.shuffle(&mut core);
        let least = self.nodes.len() / 2 + 1;
        core.truncate(rng.usize(least..=core.len()));
        core.sort_unstable();
        self.env.trace(|| format!("the faults end inside of {core:?}"));
        self.env.checks.is_calm = true;
        let delay = self.env.plan.unit() / 400;
        self.env.network.calm_down(delay);
        for node in 0..self.nodes.len() {
            self.disks[node].update_faults(|faults| *faults = Default::default());
            let host = &mut self.nodes[node];
            host.is_disk_full = false;
            host.clock.thaw(self.env.now);
            (host.pause, host.die_at_send, host.busy_until) = (None, None, self.env.now);
            host.wake_at = None;
            if core.contains(&node) {
                host.wake(&mut self.env, 0);
                self.env.schedule(self.env.now, Event::Start { node });
            } else {
                self.leave_outside(node, rng.bool());
            }
        }
        self.env.plan.sync_mean = self.env.plan.sync_mean.min(self.env.plan.unit() / 200);
        self.load.targets = core.clone();
        for user in &mut self.users {
            user.start_final(&mut self.env, &mut self.load);
        }
        self.settle_network();
        core
    }

    /// A node outside of the majority is down, or cut off, for good.
    fn leave_outside(&mut self, node: usize, stays_up: bool) {
        self.nodes[node].is_outside = true;
        if stays_up {
            for other in 0..self.nodes.len() {
                self.env.network.block(node, other);
                self.env.network.block(other, node);
            }
            self.nodes[node].wake(&mut self.env, 0);
        } else if self.nodes[node].process.is_some() {
            self.die(node, Death::PowerCut);
        }
    }

    fn await_recovery(&mut self, core: &[usize]) {
        let until = self.env.now + self.env.plan.unit() * 100 + RECOVERY_US + self.env.plan.timeout_ms * 3000;
        loop {
            for _ in 0..32 {
                self.do_next();
            }
            match self.what_is_missing(core) {
                None => return,
                Some(missing) => assert!(self.env.now < until, "long after the last fault: {missing}"),
            }
        }
    }

    fn what_is_missing(&self, core: &[usize]) -> Option<String> {
        if let Some(user) = self.users.iter().position(|user| !user.is_satisfied()) {
            return Some(format!("user{} waits in vain", user + 1));
        }
        let mut leaders = 0;
        let mut places = Vec::new();
        for node in core {
            let Some(process) = &self.nodes[*node].process else {
                return Some(format!("node{} is down", node + 1));
            };
            let status = process.replica.status();
            leaders += usize::from(process.replica.raft().is_leader());
            places.push((status.last_index, status.commit_index, status.applied_index));
            let waiting = process.replica.in_flight();
            if waiting.writes + waiting.reads + waiting.held_bytes + waiting.uncommitted_bytes > 0 {
                return Some(format!("node{} has work left: {waiting:?}", node + 1));
            }
        }
        let (last, commit, applied) = places[0];
        let is_even = last == commit && commit == applied && places.iter().all(|place| *place == places[0]);
        if leaders != 1 || !is_even {
            return Some(format!("{leaders} leaders; last, commit, applied: {places:?}"));
        }
        None
    }

    fn check_history(&mut self) {
        let history = &mut self.load.history;
        self.env.checks.record.settle(history);
        if self.env.is_tracing {
            println!("{}", history.summary());
        }
        if let Err(error) = witness::check(history) {
            panic!("the history is not what the revisions say: {error}");
        }
        if let Err(error) = linearizability::check(history) {
            panic!("the history is not linearizable: {error}");
        }
        if self.env.network.stalled_out > 0 {
            self.env.mark(Mark::LinkStalledOut);
        }
        if self.env.network.full > 0 {
            self.env.mark(Mark::SocketFull);
        }
    }
}
