//! What one seed decides: the cluster's shape, the load, which kinds of faults happen and how often.
//!
//! Every draw that belongs to a kind of fault comes from a stream of its own, so switching one kind off leaves the
//! others as they were. That is what makes shrinking work.

use std::fmt;

use fastrand::Rng;
use keva::limits::{
    HEARTBEAT_INTERVAL_MS_MAX, HEARTBEATS_PER_ELECTION_TIMEOUT, SNAPSHOT_SLICE_BYTES, VALUE_BYTES_DEFAULT,
};

/// A kind of fault that a seed may have.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub(crate) enum Class {
    /// Messages take long, by an exponential law.
    Delay,
    /// Packets are lost: a stream stalls until it is sent again.
    Loss,
    /// Connections are reset, also in the middle of a frame.
    Reset,
    /// Streams are cut into pieces at any byte.
    Cut,
    /// Sockets take few bytes at a time.
    Narrow,
    /// Groups of nodes cannot reach one another.
    Partition,
    /// Bytes get through in one direction only.
    OneWay,
    /// Clocks run at different rates.
    Drift,
    /// Clocks leap forward.
    Leap,
    /// A process stands still between any two steps of a turn.
    Pause,
    /// A process is killed; what it wrote stays in the kernel's cache.
    Kill,
    /// A host loses its power: what was not synced survives block by block, or does not.
    PowerCut,
    /// Death at the k-th operation on the disk or the k-th message.
    CrashPoint,
    /// All nodes at once.
    CrashAll,
    /// Death again during recovery.
    RecoveryCrash,
    /// Unsynced blocks may also survive in part.
    Torn,
    /// A sync fails once and would succeed when repeated.
    SyncError,
    /// No space for new files.
    DiskFull,
    /// Bits change in files, at rest or in use, on a minority of the nodes.
    Rot,
    /// Syncs take long.
    SlowDisk,
    /// A node is asked to stop, and hands leadership over.
    Stop,
    /// Users hang up, and give up.
    HangUp,
    /// Some values are large.
    Large,
    /// Leaders are cut off, or nearly so, as soon as they are elected, while the others' clocks leap: several leaders
    /// at a time, and logs that differ over several terms.
    Storm,
    /// Disks are emptied, never so many at a time that something could be lost.
    Wipe,
    /// A leader's answers are held back while the others elect another one, and then they come.
    Echo,
    /// A process stands still when it has just begun to campaign, and others campaign meanwhile.
    Falter,
    /// A clock stands still for a while: with the whole host, as when it is suspended, or on its own.
    Freeze,
    /// A block was written to a wrong place of a file at rest, on a minority of the nodes.
    Misdirect,
    /// An older copy of a disk takes its place, while all others have reason to notice.
    RollBack,
    /// So much data that a snapshot is sent in several parts.
    Bulk,
    /// A node is cut off until the others have committed so much that it may need a snapshot.
    Lag,
    /// Load, from here on: counters, appends, transactions, prefixes that are deleted.
    Rich,
    /// Keys with a life.
    Lives,
    /// Requests with an idempotency key, that are repeated.
    Repeats,
    /// Listings.
    Lists,
    /// Users that follow changes.
    Follow,
}

/// All kinds, in the order of their bits.
pub(crate) const CLASSES: [Class; 37] = [
    Class::Delay,
    Class::Loss,
    Class::Reset,
    Class::Cut,
    Class::Narrow,
    Class::Partition,
    Class::OneWay,
    Class::Drift,
    Class::Leap,
    Class::Pause,
    Class::Kill,
    Class::PowerCut,
    Class::CrashPoint,
    Class::CrashAll,
    Class::RecoveryCrash,
    Class::Torn,
    Class::SyncError,
    Class::DiskFull,
    Class::Rot,
    Class::SlowDisk,
    Class::Stop,
    Class::HangUp,
    Class::Large,
    Class::Storm,
    Class::Wipe,
    Class::Echo,
    Class::Falter,
    Class::Freeze,
    Class::Misdirect,
    Class::RollBack,
    Class::Bulk,
    Class::Lag,
    Class::Rich,
    Class::Lives,
    Class::Repeats,
    Class::Lists,
    Class::Follow,
];

impl Class {
    /// The class with this name, in any case.
    pub(crate) fn parse(name: &str) -> Option<Class> {
        CLASSES.into_iter().find(|class| class.to_string().eq_ignore_ascii_case(name))
    }

    /// How many of a hundred seeds have it.
    fn percent(self) -> u32 {
        match self {
            Class::Bulk => 8,
            Class::SyncError | Class::Misdirect | Class::RollBack => 8,
            Class::DiskFull | Class::Rot | Class::Wipe => 14,
            Class::Stop | Class::CrashAll | Class::Leap | Class::Freeze => 20,
            Class::Torn => 70,
            Class::Rich | Class::Lives | Class::Repeats | Class::Lists | Class::Follow => 50,
            _ => 35,
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The kinds of faults of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Classes(u64);

impl Classes {
    pub(crate) fn has(self, class: Class) -> bool {
        self.0 & (1 << class as u64) != 0
    }

    pub(crate) fn with(self, class: Class) -> Classes {
        Classes(self.0 | (1 << class as u64))
    }

    pub(crate) fn without(self, class: Class) -> Classes {
        Classes(self.0 & !(1 << class as u64))
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = Class> {
        CLASSES.into_iter().filter(move |class| self.has(*class))
    }
}

/// What the command line changes in a plan.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Overrides {
    pub(crate) without: Vec<Class>,
    pub(crate) with: Vec<Class>,
    pub(crate) nodes: Option<usize>,
    pub(crate) users: Option<usize>,
    pub(crate) keys: Option<u32>,
    pub(crate) operations: Option<u32>,
}

impl fmt::Display for Overrides {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for class in &self.with {
            write!(f, " --with {class}")?;
        }
        for class in &self.without {
            write!(f, " --without {class}")?;
        }
        if let Some(nodes) = self.nodes {
            write!(f, " --nodes {nodes}")?;
        }
        if let Some(users) = self.users {
            write!(f, " --users {users}")?;
        }
        if let Some(keys) = self.keys {
            write!(f, " --keys {keys}")?;
        }
        if let Some(operations) = self.operations {
            write!(f, " --operations {operations}")?;
        }
        Ok(())
    }
}

/// One run. Times are in microseconds unless they say otherwise.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) nodes: usize,
    pub(crate) users: usize,
    pub(crate) keys: u32,
    /// Operations of all users together, at most.
    pub(crate) operations: u32,
    pub(crate) classes: Classes,
    pub(crate) election_ms: u64,
    pub(crate) heartbeat_ms: u64,
    /// What users grant a request.
    pub(crate) timeout_ms: u64,
    /// Requests of one user that may wait for their answers.
    pub(crate) pipeline: usize,
    /// Between two requests of a user, on average.
    pub(crate) think: u64,
    /// The end of the time with faults.
    pub(crate) duration: u64,
    /// One way, at least and on average.
    pub(crate) delay_min: u64,
    pub(crate) delay_mean: u64,
    /// Of 65,536 chunks.
    pub(crate) loss: u32,
    pub(crate) reset: u32,
    pub(crate) cut: u32,
    /// Bytes that a socket holds.
    pub(crate) capacity: usize,
    /// Average time between two faults of a kind.
    pub(crate) fault_interval: u64,
    /// How long a sync takes, on average.
    pub(crate) sync_mean: u64,
    pub(crate) segment_bytes: usize,
    /// Bytes of the log behind which a snapshot is taken at the earliest.
    pub(crate) snapshot_log_bytes: u64,
    pub(crate) log_margin_bytes: u64,
    /// Bytes of a snapshot that are written in one turn.
    pub(crate) slice_bytes: usize,
    /// Of 100 operations: reads, then writes without condition; the rest has conditions or deletes.
    pub(crate) reads: u32,
    pub(crate) puts: u32,
    /// Of 100 operations: those on rich keys.
    pub(crate) rich: u32,
    pub(crate) rich_keys: usize,
    /// Users that follow changes.
    pub(crate) followers: usize,
    /// Bytes that their sockets hold, at most.
    pub(crate) follower_capacity: usize,
    /// Bytes of past changes that a node keeps for them.
    pub(crate) history_bytes: usize,
    /// Longest value.
    pub(crate) value_bytes_max: usize,
}

/// A stream of draws: another one for every pair of seed and purpose.
pub(crate) fn stream(seed: u64, purpose: u64) -> Rng {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ purpose.wrapping_mul(0xd1b5_4a32_d192_ed03);
    for _ in 0..2 {
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^= x >> 31;
    }
    Rng::with_seed(x)
}

/// An exponentially distributed number with this mean, by integers only, so that it is the same everywhere.
pub(crate) fn exponential(rng: &mut Rng, mean: u64) -> u64 {
    // -log2 of a number in (0, 1], in units of 1/65536: exact for powers of two, linear between them.
    let draw = rng.u64(1..=1 << 16);
    let log = u64::from(draw.ilog2());
    let fraction = ((draw << 16) >> log) - (1 << 16);
    let negative_log2 = ((16 - log) << 16) - fraction;
    // Times ln 2.
    (((mean * negative_log2) >> 16) * 45_426) >> 16
}

impl Plan {
    /// The plan of a seed.
    pub(crate) fn new(seed: u64, overrides: &Overrides) -> Plan {
        let mut rng = stream(seed, 1);
        let nodes = [1, 2, 3, 3, 3, 3, 4, 5, 5, 7][rng.usize(..10)];
        let users = rng.usize(1..=8);
        let keys = [1, 2, 3, 5, 10, 20, 50][rng.usize(..7)];
        let operations = rng.u32(60..=500);
        let election_ms = [50, 100, 100, 150, 300][rng.usize(..5)];
        let unit = election_ms * 1000;
        let mut classes = Classes::default();
        // Some seeds have hardly any fault, most a handful, some nearly all.
        let density = rng.u32(20..=180);
        for class in CLASSES {
            if stream(seed, 100 + class as u64).u32(..100) * 100 < class.percent() * density {
                classes = classes.with(class);
            }
        }
        for class in &overrides.with {
            classes = classes.with(*class);
        }
        for class in &overrides.without {
            classes = classes.without(*class);
        }
        let duration = unit * rng.u64(25..=120);
        let delay_mean = if classes.has(Class::Delay) { rng.u64(unit / 100..=unit / 4) } else { unit / 400 };
        let rate = |class, rng: &mut Rng, high: u32| {
            let rate = rng.u32(high / 20..=high);
            if classes.has(class) { rate } else { 0 }
        };
        let reads = rng.u32(10..=70);
        let (users_final, operations_final) =
            (overrides.users.unwrap_or(users), overrides.operations.unwrap_or(operations));
        let mut plan = Plan {
            seed,
            nodes: overrides.nodes.unwrap_or(nodes),
            users: users_final,
            keys: overrides.keys.unwrap_or(keys),
            operations: operations_final,
            classes,
            election_ms,
            heartbeat_ms: (election_ms / HEARTBEATS_PER_ELECTION_TIMEOUT).clamp(1, HEARTBEAT_INTERVAL_MS_MAX),
            timeout_ms: election_ms * rng.u64(1..=20),
            pipeline: [1, 1, 2, 4, 8][rng.usize(..5)],
            think: 0,
            duration,
            delay_min: delay_mean / 4,
            delay_mean,
            loss: rate(Class::Loss, &mut rng, 2000),
            reset: rate(Class::Reset, &mut rng, 400),
            cut: rate(Class::Cut, &mut rng, 30_000),
            capacity: 1 << 20,
            fault_interval: unit * rng.u64(1..=25),
            sync_mean: unit / 2000,
            segment_bytes: [8192, 12_288, 16_384, 32_768][rng.usize(..4)],
            snapshot_log_bytes: 0,
            log_margin_bytes: 0,
            slice_bytes: 0,
            reads,
            puts: rng.u32(10..=100 - reads),
            rich: 0,
            rich_keys: 0,
            followers: 0,
            follower_capacity: 0,
            history_bytes: 0,
            value_bytes_max: VALUE_BYTES_DEFAULT,
        };
        plan.think = duration * plan.users as u64 / u64::from(plan.operations.max(1)) * 3 / 4;
        // Some users are in a hurry.
        plan.think /= [1, 1, 3, 10][rng.usize(..4)];
        let capacity = rng.usize(64..4096);
        if classes.has(Class::Narrow) {
            plan.capacity = capacity;
        }
        let sync_mean = rng.u64(unit / 200..=unit / 4);
        if classes.has(Class::SlowDisk) {
            plan.sync_mean = sync_mean;
        }
        plan.draw_snapshots();
        plan.draw_load();
        plan
    }

    fn draw_load(&mut self) {
        let mut rng = stream(self.seed, 7);
        let kinds = [Class::Rich, Class::Lives, Class::Repeats, Class::Lists];
        let rich = rng.u32(15..=70);
        if kinds.into_iter().any(|kind| self.classes.has(kind)) {
            self.rich = rich;
        }
        self.rich_keys = [1, 2, 4, 4, 8][rng.usize(..5)];
        let followers = rng.usize(1..=4);
        if self.classes.has(Class::Follow) {
            self.followers = followers;
        }
        self.follower_capacity = [500, 4 << 10, 1 << 20][rng.usize(..3)];
        self.history_bytes = [200, 1000, 4000, 1 << 20][rng.usize(..4)];
        // Appending comes to an end, where values are not large for other reasons.
        self.value_bytes_max = match self.classes.has(Class::Bulk) || self.classes.has(Class::Large) {
            true => 80_000,
            false => 24,
        };
    }

    fn draw_snapshots(&mut self) {
        let mut rng = stream(self.seed, 6);
        self.snapshot_log_bytes = match rng.u32(..8) {
            // None at all.
            0 => 1 << 40,
            1..=4 => rng.u64(1 << 10..8 << 10),
            _ => rng.u64(8 << 10..64 << 10),
        };
        self.log_margin_bytes = if rng.u32(..3) > 0 { 0 } else { rng.u64(..24 << 10) };
        if rng.bool() {
            self.segment_bytes = 8192;
        }
        self.slice_bytes = [200, 1000, 5000, SNAPSHOT_SLICE_BYTES][rng.usize(..4)];
        if self.classes.has(Class::Bulk) {
            self.segment_bytes = 32_768;
            self.slice_bytes = self.slice_bytes.max(5000);
            // Large values through the smallest sockets would leave no room for anything else.
            self.capacity = self.capacity.max(256 << 10);
        }
    }

    /// An election timeout.
    pub(crate) fn unit(&self) -> u64 {
        self.election_ms * 1000
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let classes: Vec<String> = self.classes.iter().map(|class| class.to_string()).collect();
        write!(
            f,
            "{} nodes, {} users, {} keys, {} operations, T {} ms, timeout {} ms, delay {} us, snapshots behind {} bytes, \
             {} ms of faults: {}",
            self.nodes,
            self.users,
            self.keys,
            self.operations,
            self.election_ms,
            self.timeout_ms,
            self.delay_mean,
            self.snapshot_log_bytes,
            self.duration / 1000,
            classes.join(" ")
        )
    }
}
