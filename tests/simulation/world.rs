//! One run: the nodes, the users, the faults, and how it ends.

use keva::raft::storage::StorageError;
use keva::raft::types::{Incarnation, Standing};

use crate::asks::ttl_ms_max;
use crate::checks::{Harm, order};
use crate::env::{Env, Event};
use crate::faults::{Death, Faults, Order};
use crate::followers::Follower;
use crate::marks::{Mark, Marks};
use crate::node::{Halt, Node};
use crate::plan::{CLASSES, Class, Plan, stream};
use crate::support::sim_disk::SimDisk;
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

/// See the module's text.
pub(crate) struct World {
    pub(crate) env: Env,
    pub(crate) nodes: Vec<Node>,
    pub(crate) disks: Vec<SimDisk>,
    /// Of each disk: as it was before some start, and with which incarnation the process began.
    pub(crate) copies: Vec<Vec<(Incarnation, SimDisk)>>,
    /// Of each disk: as it was at some time since the last start.
    pub(crate) recent: Vec<Option<SimDisk>>,
    /// Whose disk goes back to that as soon as nothing can be lost with it.
    pub(crate) set_back_due: Option<usize>,
    pub(crate) users: Vec<User>,
    pub(crate) followers: Vec<Follower>,
    pub(crate) load: Load,
    pub(crate) faults: Faults,
    pub(crate) orders: Vec<Order>,
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
        operations: world.load.history.operations.len() + world.load.deeds.len(),
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
        let mut followers: Vec<Follower> =
            (0..plan.followers).map(|number| Follower::new(number, &plan)).collect();
        for follower in &mut followers {
            follower.wake(&mut env, 1);
        }
        World {
            nodes: (0..plan.nodes).map(|node| Node::new(node, &plan)).collect(),
            disks: (0..plan.nodes).map(|_| SimDisk::default()).collect(),
            copies: vec![Vec::new(); plan.nodes],
            recent: vec![None; plan.nodes],
            set_back_due: None,
            users,
            followers,
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
            Event::User { user } if user >= self.users.len() => {
                let follower = &mut self.followers[user - self.users.len()];
                if follower.wake_at == Some(env.now) {
                    follower.wake_at = None;
                    follower.act(env, &mut self.load);
                }
            }
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
                Some(user) if user >= self.users.len() => {
                    self.followers[user - self.users.len()].wake(env, now);
                }
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
            Some(Harm::Renounced) => self.env.mark(Mark::RolledBackAdmitted),
            Some(Harm::Rotten | Harm::RolledBack | Harm::SetBack) | None => {}
        }
        self.check_space(node);
        self.faults.after_turn(&mut self.env, &mut self.nodes, &self.disks, node);
        self.keep_recent_copy(node);
        self.maybe_set_back();
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
    pub(crate) fn explain(&mut self, node: usize, error: &StorageError) -> Option<Death> {
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
        for follower in &mut self.followers {
            follower.start_final(&mut self.env, &self.load);
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

    fn what_is_missing(&mut self, core: &[usize]) -> Option<String> {
        if let Some(user) = self.users.iter().position(|user| !user.is_satisfied()) {
            return Some(format!("user{} waits in vain", user + 1));
        }
        let env = &self.env;
        if let Some(follower) =
            self.followers.iter_mut().find_map(|follower| (!follower.is_satisfied(env)).then_some(follower))
        {
            return Some(format!("a follower waits in vain: {follower:?}"));
        }
        if let Some((key, ttl_ms)) = env.checks.record.model.mortal(ttl_ms_max(&env.plan)) {
            return Some(format!("{key} outlives its {ttl_ms} ms"));
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
        if let Some((node, suspect)) = self.env.checks.atlas.suspicion(core) {
            return Some(format!("node{} still distrusts node{}", node + 1, suspect + 1));
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
        for deed in &self.load.deeds {
            deed.settle(&self.env.checks.record);
        }
        order::check(&self.load.spans);
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
