//! What went wrong with a request on its way through the cluster, as problems that say what to do.

use crate::net::http::problem::{Applied, Problem, RETRY_AFTER_S};
use crate::net::http::status::Status;
use crate::replica::io::{NotApplied, Refusal};

/// The request had no effect, and, but for one whose name is in use, nothing else that it stands for.
pub(crate) fn not_applied(reason: NotApplied) -> Problem {
    let (status, code, detail) = match reason {
        NotApplied::Overloaded => (
            Status::ServiceUnavailable,
            "overloaded",
            "this node has too many requests waiting; try again in a moment",
        ),
        NotApplied::NoLeader => (
            Status::ServiceUnavailable,
            "no-leader",
            "no leader could be reached in time, so the request had no effect; try again",
        ),
        NotApplied::Superseded => (
            Status::ServiceUnavailable,
            "superseded",
            "the write came too late to be ordered and can never take effect; try again",
        ),
        NotApplied::InFlight => return in_flight(),
        NotApplied::Stopping => (
            Status::ServiceUnavailable,
            "stopping",
            "this node is stopping; send the request to another node",
        ),
        NotApplied::DiskFull => (
            Status::InsufficientStorage,
            "disk-full",
            "the disk of this node or of the leader is full, so nothing was written: make space on it, or delete keys; \
             reads, deletions and values that do not grow still work",
        ),
        NotApplied::NotReady => (
            Status::ServiceUnavailable,
            "not-ready",
            "this node is being restored, or is new and waits for the other nodes; try again, or send the request to \
             another node; GET /readyz?verbose says how far it is",
        ),
    };
    Problem::new(status, code, detail)
}

/// The one that came first may have an effect, which is the one that was asked for.
fn in_flight() -> Problem {
    let detail = "a request with this Idempotency-Key is being carried out, and may have taken effect or still do so; send \
                  this one again in a moment, with the same Idempotency-Key: it will have the same outcome";
    let problem = Problem::new(Status::Conflict, "idempotency-key-in-flight", detail);
    Problem { applied: Applied::Unknown, retry_after_s: Some(RETRY_AFTER_S), ..problem }
}

/// The request may have had an effect.
pub(crate) fn outcome_unknown() -> Problem {
    let detail = "the write was handed to a leader, but its outcome was not learned in time: it may have taken effect \
                  or may still do so; if it has an Idempotency-Key, send it again with the same one, else read the \
                  key before you repeat it";
    Problem { applied: Applied::Unknown, ..Problem::new(Status::GatewayTimeout, "outcome-unknown", detail) }
}

/// The write was in order, and what it met in the store was not.
pub(crate) fn refused(refusal: &Refusal) -> Problem {
    match refusal {
        Refusal::NotANumber { key } => Problem::new(
            Status::Conflict,
            "not-a-number",
            format!(
                "the value of key {} is not a whole number of 64 bits, so nothing can be added to it; read it, and \
                 write a number or delete it",
                quoted(key)
            ),
        ),
        Refusal::Overflow { key } => Problem::new(
            Status::Conflict,
            "overflow",
            format!("the sum at key {} would not fit in 64 bits; nothing was changed", quoted(key)),
        ),
        Refusal::ValueTooLong { bytes, bytes_max } => Problem::new(
            Status::ContentTooLarge,
            "value-too-large",
            format!(
                "the value would have {bytes} bytes; at most {bytes_max} are allowed; go on in another key, or replace \
                 the value"
            ),
        ),
        Refusal::ResultTooLong => Problem::new(
            Status::ContentTooLarge,
            "result-too-large",
            "the transaction would read more than an answer may have, so nothing was changed; read fewer keys in it, or \
             read them outside; with an Idempotency-Key less can be read",
        ),
    }
}

/// The same name for something else.
pub(crate) fn key_reused() -> Problem {
    Problem::new(
        Status::UnprocessableContent,
        "idempotency-key-reused",
        "this Idempotency-Key was used before for another request, so nothing was changed; use a new one for every \
         write",
    )
}

/// In double quotes. The text becomes a JSON string later, which takes care of everything else.
pub(crate) fn quoted(key: &str) -> String {
    format!("\"{key}\"")
}
