//! `Idempotency-Key`: the client's name for a write, so that a repetition is answered and not executed.

use crate::limits::IDEMPOTENCY_KEY_BYTES_MAX;
use crate::net::http::head::RequestHead;
use crate::net::http::problem::Problem;

/// The key of a write, if it has one.
///
/// # Errors
/// The header is given twice, empty, too long, or not visible ASCII: who sends one relies on it.
pub fn idempotency_key(head: &RequestHead<'_, '_>) -> Result<Option<String>, Problem> {
    let Some(value) = head.single("idempotency-key")? else { return Ok(None) };
    let is_good =
        (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&value.len()) && value.iter().all(u8::is_ascii_graphic);
    if !is_good {
        let detail = format!(
            "the header Idempotency-Key must be 1 to {IDEMPOTENCY_KEY_BYTES_MAX} visible ASCII characters without \
             spaces; a new UUID for every write is a good one"
        );
        return Err(Problem::bad_request("bad-idempotency-key", detail));
    }
    Ok(Some(value.iter().copied().map(char::from).collect()))
}
