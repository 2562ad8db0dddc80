//! Numbers as values: decimal text that can be added to.

use crate::kv::items::Item;
use crate::kv::outcome::Refusal;
use crate::util::mutation::mutant;

/// A key's number plus `by`. An absent key is 0. White space around the number does not count: a shell's `echo 5` ends
/// with a line feed.
pub(crate) fn sum(key: &str, current: Option<&Item>, by: i64) -> Result<i64, Refusal> {
    let number = match current {
        None => 0,
        Some(item) => {
            let text = std::str::from_utf8(item.value.trim_ascii()).ok();
            let number = text.and_then(|text| text.parse::<i64>().ok());
            number.ok_or_else(|| Refusal::NotANumber { key: key.to_owned() })?
        }
    };
    if mutant("add-wraps") {
        return Ok(number.wrapping_add(by));
    }
    number.checked_add(by).ok_or_else(|| Refusal::Overflow { key: key.to_owned() })
}
