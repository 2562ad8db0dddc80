//! What a node must show after a power cut, and what it may show, derived from its notes up to the cut.

use keva::raft::types::HardState;

use crate::node::Found;
use crate::note::Note;

/// Everything that was ever promised and is still possible.
#[derive(Clone, Debug)]
pub(crate) struct Promises {
    /// Every state since the last one that is known to be durable. The first is durable, the last is what was written.
    states: Vec<State>,
    /// The last start that is known to be counted.
    incarnation: u64,
    /// Disk and cluster, once they are fixed.
    ids: Option<(u64, u128)>,
}

/// What the storage holds.
#[derive(Clone, Debug, Default)]
struct State {
    /// The digests of all entries from index 1 on, those included that a snapshot covers.
    log: Vec<u64>,
    /// How many entries the newest snapshot covers.
    covered: usize,
    /// How many entries of the durable log nothing has removed since.
    floor: usize,
    hard_state: HardState,
}

impl Promises {
    /// Of a node that was never started.
    pub(crate) fn none() -> Promises {
        Promises { states: vec![State::default()], incarnation: 0, ids: None }
    }

    /// Takes the next note.
    ///
    /// # Errors
    /// When the workload found its storage in a state that breaks a promise.
    pub(crate) fn apply(&mut self, note: &Note) -> Result<(), String> {
        match note {
            Note::Opened(found) => {
                self.check(found)?;
                self.settle_on(found);
            }
            Note::Append(digests) => self.change(|state| state.log.extend(digests)),
            Note::Remove(last_kept) => self.change(|state| {
                state.log.truncate(*last_kept as usize);
                state.floor = state.floor.min(state.log.len());
            }),
            Note::HardState(hard_state) => self.change(|state| state.hard_state = *hard_state),
            Note::Publish { keeps_log, covered } => self.change(|state| {
                state.covered = covered.len();
                if *keeps_log {
                    state.floor = state.floor.max(covered.len());
                } else {
                    state.log = covered.clone();
                    state.floor = covered.len();
                }
            }),
            // With all that was written before.
            Note::Published => self.states = vec![self.state().clone()],
            Note::Synced => {
                let mut state = self.state().clone();
                state.floor = state.log.len();
                self.states = vec![state];
            }
        }
        Ok(())
    }

    fn state(&self) -> &State {
        self.states.last().expect("there is always a state")
    }

    fn change(&mut self, change: impl FnOnce(&mut State)) {
        let mut state = self.state().clone();
        change(&mut state);
        self.states.push(state);
    }

    /// Whether a storage that shows this keeps every promise.
    ///
    /// # Errors
    /// With the promise that is broken.
    pub(crate) fn check(&self, found: &Found) -> Result<(), String> {
        if !self.states.iter().any(|state| state.allows_log(found)) {
            return Err(format!("the log is wrong: {}; {}", found.summary(), self.expected()));
        }
        if !self.states.iter().any(|state| state.allows_hard_state(found)) {
            return Err(format!("the hard state is wrong: {}; {}", found.summary(), self.expected()));
        }
        if found.hard_state.commit_index.0 > found.last_index() {
            return Err(format!("the commit index is behind the end of the log: {}", found.summary()));
        }
        if found.incarnation <= self.incarnation {
            return Err(format!("start {} was counted already", found.incarnation));
        }
        if self.ids.is_some_and(|ids| ids != (found.disk_id, found.cluster_id)) {
            return Err("the directory has another disk id or cluster id than before".into());
        }
        Ok(())
    }

    /// What was found is durable.
    fn settle_on(&mut self, found: &Found) {
        let log = found.whole_log().expect("just checked");
        let covered = found.covered.len();
        let state = State { floor: log.len(), log, covered, hard_state: found.hard_state };
        self.states = vec![state];
        self.incarnation = found.incarnation;
        self.ids = Some((found.disk_id, found.cluster_id));
    }

    fn expected(&self) -> String {
        let shapes: Vec<String> = self
            .states
            .iter()
            .map(|state| {
                let HardState { term, vote, commit_index } = state.hard_state;
                let vote = vote.map(|node| node.0);
                format!(
                    "snapshot up to {}, {} to {} entries, term {term}, vote {vote:?}, commit {commit_index}",
                    state.covered,
                    state.floor,
                    state.log.len()
                )
            })
            .collect();
        format!("allowed: [{}]", shapes.join("; "))
    }
}

impl State {
    /// Snapshot and log are a prefix of this log, with all that must be there; where both have an entry it is the same.
    fn allows_log(&self, found: &Found) -> bool {
        let is_prefix = found.whole_log().is_some_and(|log| self.log.starts_with(&log));
        found.last_index() >= self.floor as u64
            && found.last_index() >= found.covered.len() as u64
            && is_prefix
            && found.covered.len() == self.covered
            && self.log.starts_with(&found.covered)
    }

    /// The commit index may be ahead: the storage writes a smaller one as long as the log is shorter.
    fn allows_hard_state(&self, found: &Found) -> bool {
        let (promised, found) = (self.hard_state, found.hard_state);
        promised.term == found.term
            && promised.vote == found.vote
            && found.commit_index >= promised.commit_index
    }
}
