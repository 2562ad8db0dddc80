//! What a value is called: checked when it is written, guessed when it is read and nothing was said.

use serde::de::IgnoredAny;

use crate::limits::{CONTENT_SNIFF_BYTES_MAX, CONTENT_TYPE_BYTES_MAX};
use crate::net::http::head::RequestHead;
use crate::net::http::problem::Problem;
use crate::net::http::response::{JSON, TEXT};

/// What curl says about any `-d`: it means nothing.
const CURL_DEFAULT: &[u8] = b"application/x-www-form-urlencoded";

/// The content type that is to be kept with a value.
///
/// # Errors
/// The header is malformed, too long or given twice.
pub fn stored_content_type(head: &RequestHead<'_, '_>) -> Result<Option<String>, Problem> {
    let Some(value) = head.single("content-type")? else { return Ok(None) };
    let essence = value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii_end();
    if essence.is_empty() || essence.eq_ignore_ascii_case(CURL_DEFAULT) {
        return Ok(None);
    }
    if !is_storable(value) {
        let detail = format!(
            "the header Content-Type must be visible ASCII of at most {CONTENT_TYPE_BYTES_MAX} bytes"
        );
        return Err(Problem::bad_request("bad-content-type", detail));
    }
    Ok(Some(value.iter().copied().map(char::from).collect()))
}

/// Whether this can be kept with a value and be a header's value later.
#[must_use]
pub fn is_storable(name: &[u8]) -> bool {
    (1..=CONTENT_TYPE_BYTES_MAX).contains(&name.len()) && name.iter().all(|byte| matches!(byte, b' '..=b'~'))
}

/// The type of a value whose writer gave none: a JSON object or array, other text, or bytes.
#[must_use]
pub fn guessed_content_type(value: &[u8]) -> &'static str {
    match std::str::from_utf8(value) {
        Ok(text) if is_json_container(text) => JSON,
        Ok(_) => TEXT,
        Err(_) => "application/octet-stream",
    }
}

/// Long values are not parsed: this runs for every read, and nobody else is served meanwhile.
fn is_json_container(text: &str) -> bool {
    let trimmed = text.trim_ascii().as_bytes();
    let has_brackets =
        matches!((trimmed.first(), trimmed.last()), (Some(b'{'), Some(b'}')) | (Some(b'['), Some(b']')));
    has_brackets && (text.len() > CONTENT_SNIFF_BYTES_MAX || serde_json::from_str::<IgnoredAny>(text).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guesses() {
        for json in ["{}", "[]", " {\"a\": [1, 2]}\n", "[1]"] {
            assert_eq!(guessed_content_type(json.as_bytes()), JSON, "{json}");
        }
        for text in ["", "1", "\"s\"", "null", "{", "{a}", "[1]]", "{} {}", "hello", "[}", "{\"a\":1,}"] {
            assert_eq!(guessed_content_type(text.as_bytes()), TEXT, "{text}");
        }
        for bytes in [&b"\xff"[..], b"{\"a\":\"\xff\"}", b"[\xc3]"] {
            assert_eq!(guessed_content_type(bytes), "application/octet-stream", "{bytes:?}");
        }
        let mut long = vec![b' '; CONTENT_SNIFF_BYTES_MAX];
        long.splice(0..0, *b"{");
        long.push(b'}');
        assert_eq!(guessed_content_type(&long), JSON);
        let deep = "[".repeat(10_000) + &"]".repeat(10_000);
        assert_eq!(guessed_content_type(deep.as_bytes()), JSON, "depth costs no stack");
    }
}
