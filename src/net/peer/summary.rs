//! A message as one line of the debug log, without anybody's values in it.

use std::fmt;

use crate::raft::message::{Envelope, Message};

/// Shows an envelope. Forwarded payloads and parts of a snapshot are only counted: they hold what clients wrote.
pub(super) struct Summary<'a>(pub(super) &'a Envelope);

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Envelope { from, to, term, message } = self.0;
        write!(f, "{from} to {to} in term {term}: ")?;
        match message {
            Message::Forward { payloads } => {
                let bytes: usize = payloads.iter().map(Vec::len).sum();
                write!(f, "Forward {{ {} payloads, {bytes} bytes }}", payloads.len())
            }
            Message::InstallSnapshot { snapshot, offset, chunk } => {
                let bytes = chunk.len();
                write!(f, "InstallSnapshot {{ {bytes} bytes from {offset} on, of {snapshot:?} }}")
            }
            other => write!(f, "{other:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::types::{NodeId, Term};
    use crate::replica::io::SnapshotMeta;

    #[test]
    fn payloads_are_not_shown() {
        let message = Message::Forward { payloads: vec![b"secret".to_vec(), b"more".to_vec()] };
        let envelope = Envelope { from: NodeId(1), to: NodeId(2), term: Term(3), message };
        assert_eq!(Summary(&envelope).to_string(), "n1 to n2 in term 3: Forward { 2 payloads, 10 bytes }");
        let snapshot = SnapshotMeta::default();
        let message = Message::InstallSnapshot { snapshot, offset: 7, chunk: vec![123; 9] };
        let shown = Summary(&Envelope { message, ..envelope }).to_string();
        assert!(shown.contains("9 bytes from 7 on") && !shown.contains("123"), "{shown}");
    }
}
