//! Events of a watch, out of the bytes of its stream.

#![allow(unreachable_pub, reason = "several test programs share it")]

use std::fmt;

use keva::net::watch::Format;
use serde_json::Value;

/// An event as a client reads it.
#[derive(Clone, PartialEq, Eq)]
pub struct Event {
    /// `put`, `delete`, `expire`, `reset`, `sync`; `bookmark` for a comment.
    pub name: String,
    /// Of a change.
    pub key: Option<String>,
    /// The entry that made the change, or up to which everything was sent.
    pub revision: u64,
    /// Of a `put`.
    pub value: Option<Vec<u8>>,
    /// A client may go on from here.
    pub is_resumable: bool,
}

/// Without the bytes of long values.
impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Event { name, key, revision, value, is_resumable } = self;
        let bytes = value.as_ref().map_or(0, Vec::len);
        write!(f, "{name} of {key:?} at {revision} with {bytes} bytes, the end of a revision: {is_resumable}")
    }
}

/// Reads an event, with the line ends behind it.
///
/// # Panics
/// When it is none.
pub fn parse(format: Format, bytes: &[u8]) -> Event {
    let text = std::str::from_utf8(bytes).expect("events are text");
    match format {
        Format::JsonLines => {
            let json: Value = serde_json::from_str(text).expect("a line of JSON");
            let is_resumable = json.get("more").is_none();
            event(json["event"].as_str().expect("a name"), &json, is_resumable)
        }
        Format::ServerSentEvents => {
            let mut lines = text.strip_suffix("\n\n").expect("an empty line").split('\n').peekable();
            if let Some(revision) = lines.peek().and_then(|line| line.strip_prefix(": ")) {
                let revision = revision.parse().expect("a revision");
                let name = String::from("bookmark");
                return Event { name, key: None, revision, value: None, is_resumable: true };
            }
            let id =
                lines.next_if(|line| line.starts_with("id: ")).map(|line| line["id: ".len()..].to_owned());
            let name = lines.next().and_then(|line| line.strip_prefix("event: ")).expect("a name").to_owned();
            let data = lines.next().and_then(|line| line.strip_prefix("data: ")).expect("data");
            assert_eq!(lines.next(), None, "one line of data");
            let event = event(&name, &serde_json::from_str(data).expect("JSON"), id.is_some());
            assert!(id.is_none_or(|id| id == event.revision.to_string()), "{event:?}");
            event
        }
    }
}

fn event(name: &str, json: &Value, is_resumable: bool) -> Event {
    let text = json.get("value").map(|value| value.as_str().expect("text").as_bytes().to_vec());
    let binary = json.get("value_base64").map(|value| decode_base64(value.as_str().expect("text")));
    assert!(binary.as_ref().is_none_or(|value| std::str::from_utf8(value).is_err()), "text is sent as text");
    Event {
        name: name.into(),
        key: json.get("key").map(|key| key.as_str().expect("text").to_owned()),
        revision: json["revision"].as_u64().expect("a number"),
        value: text.or(binary),
        is_resumable,
    }
}

fn decode_base64(text: &str) -> Vec<u8> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => panic!("{byte} is no digit"),
    };
    let digits: Vec<u8> = text.trim_end_matches('=').bytes().map(digit).collect();
    let bytes = digits.chunks(4).flat_map(|group| {
        let bits =
            group.iter().enumerate().fold(0, |bits, (at, digit)| bits | u32::from(*digit) << (18 - 6 * at));
        (0..group.len() - 1).map(move |at| (bits >> (16 - 8 * at)) as u8)
    });
    bytes.collect()
}
