//! Rare things that must have happened somewhere in a long run: a simulator that never sees them tests little.

macro_rules! marks {
    ($($name:ident: $text:literal,)*) => {
        /// Something rare.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(usize)]
        pub(crate) enum Mark { $($name,)* }

        /// What each mark means, in their order.
        pub(crate) const MARKS: &[&str] = &[$($text,)*];
    };
}

marks! {
    LeaderElected: "leader elected",
    LeaderLostOffice: "leader lost office",
    SecondLeaderInOldTerm: "deposed leader did not know it yet",
    ElectionRepeated: "election without a winner",
    SuffixTruncated: "suffix truncated",
    SuffixTruncatedDeep: "suffix of several entries truncated",
    PromiseWithdrawn: "promise withdrawn by term change",
    ReadOverLeaderChange: "read confirmed after leader change",
    ReadOnFollower: "read answered by a follower",
    ReadTimedOut: "read not answered in time",
    WriteResent: "write re-sent",
    WriteSkipped: "repeated write skipped",
    WriteUnknown: "outcome of a write unknown",
    WriteNotApplied: "write surely not applied",
    ConditionFailed: "condition failed",
    OldTermCommitted: "entry of an old term committed",
    TornTailCut: "torn tail cut",
    SlotLost: "hard state slot lost",
    SegmentBegun: "log in several segments",
    TailRewritten: "tail written again at recovery",
    StartCutShort: "first start cut short",
    RecoveryCutShort: "recovery cut short",
    RecoveryClean: "start after a clean stop",
    CrashAtDisk: "crash at a disk operation",
    CrashAtSend: "crash at a message",
    SyncFailed: "process ended by a failed sync",
    DiskFilled: "start cut short by a full disk",
    RotRefused: "damaged disk refused",
    RotHarmless: "damage that recovery overcame",
    RotFoundInUse: "damage found in use",
    DamageSetAside: "damaged files set aside",
    DamageRepaired: "damaged node repaired",
    DiskEmptied: "disk emptied",
    EmptiedAdmitted: "node with an emptied disk admitted",
    RefusedEmptied: "refused disk emptied",
    DiskRolledBack: "disk rolled back",
    RolledBackAdmitted: "rolled-back disk admitted",
    RolledBackNoticed: "rolled-back disk noticed",
    DiskSetBack: "disk rolled back to a copy of the same start",
    SetBackNoticed: "lost entries noticed by the leader",
    WriteRefusedFull: "write refused because the disk is full",
    RefusedNotReady: "request refused by a node that is not ready",
    FullTold: "peer told that its disk is full",
    SpaceCameBack: "space came back",
    FullRestart: "restart on a full disk",
    ReserveUsed: "reserve used",
    FullHandedOver: "leader handed over because its disk was full",
    HandedOver: "leadership handed over",
    PauseInTurn: "pause between two steps of a turn",
    LongPauseOfLeader: "leader paused for longer than its office",
    PartitionHealed: "partition healed",
    LinkResetInFrame: "link reset in the middle of a frame",
    LinkStalledOut: "link given up after silence",
    PeerLost: "peer known to be gone",
    HungUp: "user hung up with a request waiting",
    Pipelined: "pipelined requests on one connection",
    ProbeRejected: "AppendEntries rejected",
    PreVoteRefused: "pre-vote refused",
    VoteRefused: "vote refused",
    StaleLeaderTold: "stale leader was told",
    SocketFull: "socket full",
    Busy: "turn with messages of several peers",
    AnswersHeldBack: "answers to a leader held back over an election",
    CampaignHeldUp: "process stood still while it campaigned",
    ClockStoodStill: "clock stood still",
    MisplacedSetAside: "files with a misplaced block set aside",
    MisplacedHarmless: "misplaced block that recovery overcame",
    AllRecover: "end with a node inside that does not vote yet",
    SnapshotTaken: "snapshot taken",
    SnapshotWhileChanging: "snapshot taken while keys changed",
    SnapshotInstalled: "snapshot installed",
    SnapshotSentInParts: "snapshot sent in several parts",
    SnapshotResumed: "snapshot resumed on another link",
    SnapshotRefused: "snapshot refused",
    SnapshotCutShort: "crash while a snapshot was written",
    InstallCutShort: "crash while a snapshot was installed",
    RestoredFromSnapshot: "start from a snapshot",
    InstalledOverConflict: "snapshot installed over a conflicting log",
    LogCompacted: "log's beginning removed",
    CompactedWithMargin: "log's beginning removed but for a margin",
    FileReused: "file of a segment used again",
    Counted: "number added",
    NotANumber: "number added to something else",
    Overflow: "number not added because of its size",
    TooLong: "value not made longer",
    PrefixDeleted: "all keys with a prefix deleted",
    TransactionDone: "transaction done",
    TransactionElse: "transaction's other branch done",
    TransactionFailed: "transaction failed",
    Expired: "key expired",
    ExpiryOvertaken: "key written while it expired",
    Ticked: "time written down for its own sake",
    Renewed: "life renewed",
    RenewedTooLate: "life not renewed because it was over",
    Repeated: "request repeated",
    RepeatedElsewhere: "request repeated after an unknown outcome",
    InFlight: "request refused while the same one waits",
    KeyReused: "idempotency key used for something else",
    Listed: "listing",
    PageContinued: "page continued",
    StaleRead: "stale read",
    WatchStarted: "watch started",
    WatchResumed: "watch resumed",
    WatchReset: "watch reset",
    WatchElsewhere: "watch resumed on another node",
    WatchSynced: "watch in step after a reset",
    WatchBookmark: "watch told how far it is",
    WatchCut: "watch ended in the middle of an event",
    WatchLagged: "watcher was slow",
    WatchOfMany: "watch saw several changes of one revision",
    PollAnswered: "long poll answered when something changed",
    PollTimedOut: "long poll timed out",
    RemovalInParts: "removal of many keys took several turns",
}

/// How often each was seen.
#[derive(Clone, Debug)]
pub(crate) struct Marks(pub(crate) Vec<u64>);

impl Default for Marks {
    fn default() -> Marks {
        Marks(vec![0; MARKS.len()])
    }
}

impl Marks {
    pub(crate) fn hit(&mut self, mark: Mark) {
        self.0[mark as usize] += 1;
    }

    /// Adds up two runs: in how many runs each was seen.
    pub(crate) fn add_run(&mut self, run: &Marks) {
        for (sum, count) in self.0.iter_mut().zip(&run.0) {
            *sum += u64::from(*count > 0);
        }
    }

    pub(crate) fn add(&mut self, other: &Marks) {
        for (sum, count) in self.0.iter_mut().zip(&other.0) {
            *sum += count;
        }
    }
}
