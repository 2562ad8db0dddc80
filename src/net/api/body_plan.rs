//! Requests whose body matters: what is known from their head, and what they become when the body is there.

use crate::kv::command::{Command, Condition, Write};
use crate::limits::TRANSACTION_BODY_BYTES_MIN;
use crate::net::api::action::{Action, Render, Wanted};
use crate::net::api::transaction_json::{check_transaction, parse_transaction};
use crate::net::api::transaction_route::wanted_by;
use crate::net::http::problem::Problem;
use crate::replica::io::Request;

/// A write without its body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BodyPlan {
    /// What the body is.
    pub(crate) kind: BodyKind,
    /// See [`Write::idempotency_key`].
    pub(crate) idempotency_key: Option<String>,
    /// See [`Action::Submit`].
    pub(crate) timeout_ms: Option<u64>,
}

/// What a body is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum BodyKind {
    /// A key's value.
    Put(ValuePlan),
    /// What is to be added behind a key's value.
    Append(ValuePlan),
    /// A transaction as JSON.
    Transaction,
}

/// Everything of a [`Command::Put`] or [`Command::Append`] but the bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ValuePlan {
    pub(crate) key: String,
    pub(crate) content_type: Option<String>,
    pub(crate) condition: Condition,
    pub(crate) ttl_ms: Option<u64>,
}

impl BodyPlan {
    /// Longest body, in bytes, where values have at most `value_bytes_max`.
    #[must_use]
    pub fn bytes_max(&self, value_bytes_max: usize) -> usize {
        match self.kind {
            BodyKind::Put(_) | BodyKind::Append(_) => value_bytes_max,
            BodyKind::Transaction => value_bytes_max.max(TRANSACTION_BODY_BYTES_MIN),
        }
    }

    /// The action, as soon as the body is there.
    ///
    /// # Errors
    /// The body is not what it is to be. Nothing was done.
    pub fn into_action(self, body: Vec<u8>, value_bytes_max: usize) -> Result<Action, Problem> {
        let BodyPlan { kind, idempotency_key, timeout_ms } = self;
        let (command, render) = match kind {
            BodyKind::Put(ValuePlan { key, content_type, condition, ttl_ms }) => {
                let render = Render::Write { is_put: true, wanted: wanted(&key, &condition) };
                (Command::Put { key, value: body, content_type, condition, ttl_ms }, render)
            }
            BodyKind::Append(ValuePlan { key, content_type, condition, ttl_ms }) => {
                let render = Render::Write { is_put: true, wanted: wanted(&key, &condition) };
                let bytes_max = value_bytes_max as u64;
                (Command::Append { key, value: body, content_type, condition, ttl_ms, bytes_max }, render)
            }
            BodyKind::Transaction => {
                let transaction = parse_transaction(&body, value_bytes_max)?;
                let render = Render::Write { is_put: false, wanted: wanted_by(&transaction) };
                let command = Command::Transaction(transaction);
                check_transaction(&command)?;
                (command, render)
            }
        };
        Ok(submit(Write { command, idempotency_key }, timeout_ms, render))
    }
}

/// The action of a write.
pub(crate) fn submit(write: Write, timeout_ms: Option<u64>, render: Render) -> Action {
    Action::Submit { request: Request::Write(write), timeout_ms, render }
}

/// What to remember of a condition, for the message when it does not hold.
pub(crate) fn wanted(key: &str, condition: &Condition) -> Option<Box<Wanted>> {
    let is_conditional = condition.if_match.is_some() || condition.if_none_match.is_some();
    is_conditional.then(|| Box::new(Wanted::Condition(key.to_owned(), condition.clone())))
}
