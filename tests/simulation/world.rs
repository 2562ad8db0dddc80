//! One run: the nodes, the users, the faults, and how it ends.

use keva::raft::storage::{Storage, StorageError};
use keva::raft::types::{Incarnation, Standing};
use keva::storage::RecoveryReport;

use crate::checks::Harm;
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
/// Events after which everything must be well in any case: nodes that work without end get nowhere.
const RECOVERY_EVENTS_MAX: u64 = 1_500_000;

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
    /// Of each disk: as it was before some start, and with which incarnation the process began.
    copies: Vec<Vec<(Incarnation, SimDisk)>>,
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
            copies: vec![Vec::new(); plan.nodes],
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
                for user in &mut self.users {
                    user.hurry(env);
                }
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
        let process = self.nodes[node].process.as_ref().expect("it has just finished a turn");
        match self.env.checks.after_turn(node, &process.replica, &self.disks[node]) {
            Some(Harm::Wiped) => self.env.mark(Mark::EmptiedAdmitted),
            Some(Harm::Repairing) => self.env.mark(Mark::DamageRepaired),
            Some(Harm::RolledBack(_)) => self.env.mark(Mark::RolledBackHealed),
            Some(Harm::Rotten) | None => {}
        }
        self.check_space(node);
        self.faults.after_turn(&mut self.env, &mut self.nodes, &self.disks, node);
    }

    /// The disk never holds much more than the data.
    fn check_space(&mut self, node: usize) {
        let Env { plan, checks, .. } = &mut self.env;
        let process = self.nodes[node].process.as_ref().expect("it has just finished a turn");
        if process.step != crate::turn::Step::Read || plan.snapshot_log_bytes > 1 << 30 {
            return;
        }
        let live = process.replica.store().snapshot_bytes();
        checks.snapshots.check_space(plan, node, live, &self.disks[node]);
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
        if matches!(error, StorageError::Damaged { .. })
            && env.checks.atlas.harm(node) == Some(Harm::Rotten)
            && self.nodes[node].process.is_some()
        {
            env.mark(Mark::RotFoundInUse);
            return Some(Death::Kill);
        }
        let StorageError::Io { source, .. } = error else { return None };
        if error.is_disk_full() && self.nodes[node].is_disk_full {
            // Only what makes a disk ready for use cannot do without space.
            let is_ready = self.disks[node].names().iter().any(|name| name == "hard-state");
            let is_starting = self.nodes[node].process.is_none();
            assert!(
                is_starting && !(is_ready && env.checks.atlas.is_sound(node)),
                "node{}: {error}",
                node + 1
            );
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
                self.wipe(node);
            }
            Order::RollBack(node) => self.roll_back(node),
        }
    }

    fn wipe(&mut self, node: usize) {
        self.env.trace(|| format!("node{}'s disk is emptied", node + 1));
        self.env.mark(Mark::DiskEmptied);
        self.env.checks.on_harm(node, Harm::Wiped, &self.disks[node]);
        self.disks[node] = SimDisk::default();
        self.copies[node].clear();
        (self.nodes[node].has_refused, self.nodes[node].rot) = (false, None);
    }

    /// Puts an older copy in a disk's place, one so old that all others will notice.
    fn roll_back(&mut self, node: usize) {
        let Some(met) = self.env.checks.atlas.noticed_before(node) else { return };
        let copies = std::mem::take(&mut self.copies[node]);
        let old: Vec<&(Incarnation, SimDisk)> = copies.iter().filter(|copy| copy.0 < met).collect();
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
        self.env.checks.durable[node].refresh(disk);
        let term = self.env.checks.durable[node].term;
        self.env.checks.on_harm(node, Harm::RolledBack(term), disk);
        self.disks[node] = copy.fork();
        self.nodes[node].rot = None;
    }

    fn die(&mut self, node: usize, death: Death) {
        self.note_end(node);
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
        // Whoever forgets that another one's disk went back will not notice again, and a process that is not the first
        // one on such a disk may count its starts like one that is known. The operator empties the disk before that.
        for host in 0..self.nodes.len() {
            if matches!(self.env.checks.atlas.harm(host), Some(Harm::RolledBack(_))) {
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

    fn start(&mut self, node: usize) {
        if self.nodes[node].process.is_some() || self.nodes[node].is_outside {
            return;
        }
        if self.nodes[node].has_refused {
            self.env.mark(Mark::RefusedEmptied);
            self.wipe(node);
        }
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
        let is_rotten = self.env.checks.atlas.harm(node) == Some(Harm::Rotten);
        assert!(is_rotten, "node{} does not start, on a good disk: {error}", node + 1);
        // Everything else can be repaired.
        let text = error.to_string();
        let is_beyond_repair = ["keva.id", "hard-state"].iter().any(|name| text.contains(name));
        assert!(is_beyond_repair, "node{} refuses a disk that can be repaired: {error}", node + 1);
        self.env.mark(Mark::RotRefused);
        self.nodes[node].has_refused = true;
        let after = exponential(self.faults.rng(Class::Rot), self.env.plan.unit() * 4);
        self.env.schedule(self.env.now + 1 + after, Event::Start { node });
    }

    // ---- the end --------------------------------------------------------------------------------

    /// No more faults inside a majority; those outside of it last. Returns the majority.
    fn calm_down(&mut self) -> Vec<usize> {
        let mut rng = stream(self.env.plan.seed, 4);
        let mut core: Vec<usize> = (0..self.nodes.len()).collect();
        // A node that may not vote yet may need all others.
        let (least, atlas) = (self.nodes.len() / 2 + 1, &self.env.checks.atlas);
        let mut whole: Vec<usize> = core.iter().copied().filter(|node| atlas.is_whole(*node)).collect();
        if rng.bool() && whole.len() >= least {
            rng.shuffle(&mut whole);
            whole.truncate(rng.usize(least..=whole.len()));
            core = whole;
        } else if whole.len() < core.len() {
            self.env.mark(Mark::AllRecover);
        }
        core.sort_unstable();
        self.env.trace(|| format!("the faults end inside of {core:?}"));
        self.env.checks.is_calm = true;
        let delay = self.env.plan.unit() / 400;
        self.env.network.calm_down(delay);
        for node in 0..self.nodes.len() {
            self.disks[node].update_faults(|faults| *faults = Default::default());
            let host = &mut self.nodes[node];
            (host.is_disk_full, host.rot) = (false, None);
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
        let events_max = self.env.events + RECOVERY_EVENTS_MAX;
        loop {
            for _ in 0..32 {
                self.do_next();
            }
            match self.what_is_missing(core) {
                None => return,
                Some(missing) => {
                    assert!(self.env.now < until, "long after the last fault: {missing}");
                    assert!(self.env.events < events_max, "busy without end after the last fault: {missing}");
                }
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
            if status.standing != Standing::Voter {
                return Some(format!("node{} is {:?}", node + 1, status.standing));
            }
            leaders += usize::from(process.replica.raft().is_leader());
            let hash = process.replica.store().state_hash();
            places.push((status.last_index, status.commit_index, status.applied_index, hash));
            let waiting = process.replica.in_flight();
            if waiting.writes + waiting.reads + waiting.held_bytes + waiting.uncommitted_bytes > 0 {
                return Some(format!("node{} has work left: {waiting:?}", node + 1));
            }
        }
        let (last, commit, applied, _) = places[0];
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
        if self.disks.iter().any(|disk| disk.reuses() > 0) {
            self.env.mark(Mark::FileReused);
        }
        if self.env.network.full > 0 {
            self.env.mark(Mark::SocketFull);
        }
    }
}
