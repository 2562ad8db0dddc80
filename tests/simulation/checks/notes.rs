//! Which rare things a committed entry did.

use keva::kv::command::Command;

use super::model::Decision;
use super::record::Record;
use crate::marks::{Mark, Marks};

/// Notes what the newest entry did.
pub(crate) fn note(marks: &mut Marks, record: &mut Record) {
    let entry = record.log.last().expect("an entry was added");
    note_decision(marks, &entry.decision);
    if entry.write.as_ref().is_some_and(|write| write.command == Command::Tick) {
        marks.hit(Mark::Ticked);
    }
    if std::mem::take(&mut record.model.overtaken) > 0 {
        marks.hit(Mark::ExpiryOvertaken);
    }
    for _ in 0..record.model.expired.len() {
        marks.hit(Mark::Expired);
    }
}

fn note_decision(marks: &mut Marks, decision: &Decision) {
    let mark = match decision {
        Decision::Skipped => Mark::WriteSkipped,
        Decision::Counted(_) => Mark::Counted,
        Decision::Deleted(1..) => Mark::PrefixDeleted,
        Decision::Transaction(true, _) => Mark::TransactionDone,
        Decision::Transaction(false, _) => Mark::TransactionElse,
        Decision::RequirementFailed(_) => Mark::TransactionFailed,
        Decision::Refused("not-a-number") => Mark::NotANumber,
        Decision::Refused("overflow") => Mark::Overflow,
        Decision::Refused(_) => Mark::TooLong,
        Decision::Repeated(_) => Mark::Repeated,
        Decision::KeyReused => Mark::KeyReused,
        Decision::NoOp
        | Decision::Internal
        | Decision::Written
        | Decision::Deleted(0)
        | Decision::Failed(_) => return,
    };
    marks.hit(mark);
}
