//! Which disks were harmed and are not made good yet: so many that something could be lost are never harmed at a time.

use std::collections::{BTreeMap, BTreeSet};

use keva::raft::types::{Incarnation, Life, NodeId, Standing};

use super::durable::DurableView;
use crate::plan::Plan;

/// What was done to a disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Harm {
    /// Bits changed, or blocks were misplaced, and nobody has noticed yet.
    Rotten,
    /// The node has noticed, and gets back from the others what it lost.
    Repairing,
    /// It was emptied.
    Wiped,
    /// An older copy of it was put in its place.
    RolledBack,
    /// So it was, by a copy made during the last start: only a leader that knows what it had acknowledged notices.
    SetBack,
    /// An older copy was put in its place, and the node knows.
    Renounced,
}

/// A node's disk.
#[derive(Debug, Default)]
struct Disk {
    harm: Option<Harm>,
    /// Counts the harms: what a node has before one and behind it are different things.
    epoch: u64,
    /// What earlier disks held, as long as the harm lasts: acknowledgements of that may still be counted.
    lost: Vec<DurableView>,
    /// What it held when it began to rot.
    before_rot: Option<DurableView>,
    standing: Standing,
    /// Who the process says that it is.
    life: Option<Life>,
    /// An older copy was once put in its place: somebody may still say so late.
    ever_went_back: bool,
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Atlas {
    disks: Vec<Disk>,
    majority: usize,
    /// The last life of a peer that a node's process has met.
    met: BTreeMap<(usize, usize), Life>,
    /// Of which of a peer's harms a node's process knows.
    told: BTreeMap<(usize, usize), u64>,
    /// Peers that a node's process saw going back, and that have not answered that they know.
    suspects: BTreeSet<(usize, usize)>,
    /// How often a node's process was asked for admission by a peer.
    asks: BTreeMap<(usize, usize), u64>,
}

impl Atlas {
    pub(crate) fn new(plan: &Plan) -> Atlas {
        let disk = || Disk { standing: Standing::Virgin, ..Disk::default() };
        Atlas {
            disks: (0..plan.nodes).map(|_| disk()).collect(),
            majority: plan.nodes / 2 + 1,
            met: BTreeMap::new(),
            told: BTreeMap::new(),
            asks: BTreeMap::new(),
            suspects: BTreeSet::new(),
        }
    }

    pub(crate) fn harm(&self, node: usize) -> Option<Harm> {
        self.disks[node].harm
    }

    pub(crate) fn lost(&self, node: usize) -> impl Iterator<Item = &DurableView> {
        self.disks[node].lost.iter().chain(&self.disks[node].before_rot)
    }

    /// The node has promised what its disk holds, and goes on rotting.
    pub(crate) fn on_acknowledged(&mut self, node: usize, view: &DurableView) {
        let disk = &mut self.disks[node];
        if disk.harm == Some(Harm::Rotten) && disk.before_rot.is_some() {
            disk.before_rot = Some(view.clone());
        }
    }

    pub(crate) fn is_sound(&self, node: usize) -> bool {
        self.disks[node].harm.is_none()
    }

    /// Whether a node has a sound disk and votes.
    pub(crate) fn is_whole(&self, node: usize) -> bool {
        let is_trusted = self.suspects.iter().all(|(_, suspect)| *suspect != node);
        is_trusted && self.is_sound(node) && self.disks[node].standing == Standing::Voter
    }

    /// Whether the others can do without this node's disk: a majority of all nodes have sound disks with something on
    /// them, and vote.
    pub(crate) fn may_harm(&self, node: usize, views: &[DurableView]) -> bool {
        let is_good =
            |other: &usize| *other != node && self.is_whole(*other) && views[*other].last_index().0 > 0;
        // A disk that was rolled back is not to be confused any more. As long as nobody knows of one, all others count.
        let is_known = self.disks.iter().all(|disk| disk.harm != Some(Harm::SetBack));
        let is_free = self.disks[node].harm != Some(Harm::RolledBack) && is_known;
        is_free && (0..self.disks.len()).filter(is_good).count() >= self.majority
    }

    /// How old a copy of a node's disk may be put in its place: the others have to have met processes of it that started
    /// behind the copy, so that they notice. This is the earliest start that one of them has met last.
    pub(crate) fn noticed_before(&self, node: usize) -> Option<Incarnation> {
        let disk_id = self.disks[node].life?.disk_id;
        let others = (0..self.disks.len()).filter(|other| *other != node);
        let met = others.map(|other| {
            let met = self.met.get(&(other, node))?;
            (met.disk_id == disk_id).then_some(met.incarnation)
        });
        met.collect::<Option<Vec<Incarnation>>>()?.into_iter().min()
    }

    /// Something is done to a disk that holds what `view` shows.
    pub(crate) fn set_harm(&mut self, node: usize, harm: Harm, view: DurableView) {
        let disk = &mut self.disks[node];
        disk.harm = Some(harm);
        disk.ever_went_back |= matches!(harm, Harm::RolledBack | Harm::SetBack);
        if harm == Harm::Rotten {
            disk.before_rot = Some(view);
        } else {
            disk.epoch += 1;
            disk.life = None;
            disk.lost.push(view);
            disk.lost.extend(disk.before_rot.take());
        }
    }

    /// The harm did nothing.
    pub(crate) fn forgive(&mut self, node: usize) {
        let disk = &mut self.disks[node];
        disk.before_rot = None;
        // What was harmed before that is not good because of it.
        disk.harm = match disk.lost.is_empty() {
            true => None,
            false if disk.standing == Standing::Virgin => Some(Harm::Wiped),
            false => Some(Harm::Repairing),
        };
    }

    pub(crate) fn on_start(&mut self, node: usize, standing: Standing, life: Life) {
        self.disks[node].standing = standing;
        self.disks[node].life = Some(life);
    }

    /// What a node that is down may be when it starts again.
    pub(crate) fn set_standing(&mut self, node: usize, standing: Standing) {
        self.disks[node].standing = standing;
    }

    pub(crate) fn on_end(&mut self, node: usize) {
        self.met.retain(|(observer, _), _| *observer != node);
        self.told.retain(|(observer, _), _| *observer != node);
        self.suspects.retain(|(observer, _)| *observer != node);
    }

    /// A turn has ended. Says which harm is made good with it; `has_again`: all that the disk had is there, or was replaced.
    pub(crate) fn after_turn(&mut self, node: usize, standing: Standing, has_again: bool) -> Option<Harm> {
        let disk = &mut self.disks[node];
        disk.standing = standing;
        let is_good = match disk.harm? {
            Harm::Rotten => false,
            Harm::Repairing | Harm::Wiped | Harm::Renounced => standing == Standing::Voter,
            Harm::RolledBack | Harm::SetBack if standing != Standing::Voter => {
                disk.harm = Some(Harm::Renounced);
                false
            }
            Harm::RolledBack => false,
            Harm::SetBack => has_again,
        };
        if !is_good {
            return None;
        }
        disk.lost.clear();
        disk.harm.take()
    }

    /// A node's process handles a peer's greeting. Says whether the peer's disk went back.
    pub(crate) fn on_met(&mut self, observer: usize, peer: NodeId, life: Life) -> bool {
        let peer = place(peer);
        let before = self.met.insert((observer, peer), life);
        let went_back = before.is_some_and(|before| before != life && !life.is_later_than(before));
        let disk = &self.disks[peer];
        let shows = match disk.harm {
            Some(Harm::Wiped | Harm::RolledBack) => true,
            // When it has been started often enough since, nothing shows before it asks for admission.
            Some(Harm::Renounced) => went_back,
            Some(Harm::Rotten | Harm::Repairing | Harm::SetBack) | None => false,
        };
        if shows && disk.life == Some(life) {
            self.told.insert((observer, peer), disk.epoch);
        }
        if went_back {
            self.suspects.insert((observer, peer));
        }
        went_back
    }

    /// One of these nodes that does not trust the votes of another one, and that one.
    pub(crate) fn suspicion(&self, among: &[usize]) -> Option<(usize, usize)> {
        self.suspects.iter().copied().find(|(node, suspect)| among.contains(node) && among.contains(suspect))
    }

    /// A node's process tells a peer that its disk went back: only one whose disk did is told so. Says whether that is news.
    pub(crate) fn on_accused(&mut self, observer: usize, peer: NodeId) -> bool {
        let peer = place(peer);
        let disk = &self.disks[peer];
        assert!(disk.ever_went_back, "node {observer} says that the disk of node {peer} went back in time");
        if matches!(disk.harm, Some(Harm::SetBack | Harm::Renounced)) {
            self.told.insert((observer, peer), disk.epoch);
        }
        // One that knows may be told once more, in the same turn in which its answer is taken.
        disk.harm == Some(Harm::SetBack) && self.suspects.insert((observer, peer))
    }

    /// A node's process hears that a peer knows of its older disk.
    pub(crate) fn on_renounced(&mut self, observer: usize, peer: NodeId) {
        self.suspects.remove(&(observer, place(peer)));
    }

    /// A node's process handles a peer's question for admission.
    pub(crate) fn on_asked(&mut self, observer: usize, peer: NodeId) {
        let peer = place(peer);
        *self.asks.entry((observer, peer)).or_default() += 1;
        if self.met.get(&(observer, peer)).copied() == self.disks[peer].life {
            self.told.insert((observer, peer), self.disks[peer].epoch);
        }
    }

    /// Changes when a node has reason to forget what a peer had acknowledged.
    pub(crate) fn reasons(&self, observer: usize, peer: NodeId) -> (u64, u64) {
        let peer = place(peer);
        (self.disks[peer].epoch, self.asks.get(&(observer, peer)).copied().unwrap_or_default())
    }

    /// Whether a node's process knows of a peer's last harm.
    pub(crate) fn is_told(&self, observer: usize, peer: NodeId) -> bool {
        let peer = place(peer);
        // Nobody knows of this one.
        let is_hidden = self.disks[peer].harm == Some(Harm::Rotten);
        !is_hidden && self.told.get(&(observer, peer)).copied().unwrap_or_default() >= self.disks[peer].epoch
    }
}

/// A node's number.
pub(crate) fn place(id: NodeId) -> usize {
    usize::try_from(id.0 - 1).expect("few nodes")
}
