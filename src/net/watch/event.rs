//! Events as bytes: server-sent events (WHATWG HTML, section 9.2) or lines of JSON.
//!
//! ```text
//! id: 8421
//! event: put
//! data: {"key":"app/x","revision":8421,"value":"text"}
//!
//! {"event":"put","key":"app/x","revision":8421,"value":"text"}
//! ```
//!
//! Only an event up to which everything was sent has an id; a line before that has `"more":true`. JSON has no line ends
//! within strings, so that every event is one line of data.

use std::io::Write as _;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::raft::types::Index;
use crate::replica::io::{Change, ChangeKind, Item};

/// How events are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Format {
    /// `text/event-stream`.
    ServerSentEvents,
    /// `application/x-ndjson`.
    JsonLines,
}

/// Whether whoever has an event has everything up to its revision.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub(super) enum Resume {
    /// It can go on from here.
    Here,
    /// More of the same follows.
    Later,
}

const WRITE_TO_MEMORY: &str = "writing to a Vec cannot fail";

impl Format {
    /// The media type.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Format::ServerSentEvents => "text/event-stream; charset=utf-8",
            Format::JsonLines => "application/x-ndjson; charset=utf-8",
        }
    }

    /// A change.
    pub(super) fn change(self, change: &Change, resume: Resume) -> Arc<[u8]> {
        let (name, item) = match &change.kind {
            ChangeKind::Put(item) => ("put", Some(item)),
            ChangeKind::Delete => ("delete", None),
            ChangeKind::Expire => ("expire", None),
        };
        let value = item.map(|item| &*item.value);
        self.event(name, Some(&change.key), change.revision, value, resume)
    }

    /// A key that is there.
    pub(super) fn item(self, key: &str, item: &Item, resume: Resume) -> Arc<[u8]> {
        self.event("put", Some(key), item.revision, Some(&item.value), resume)
    }

    /// What is known of the keys is not to be relied on: all of them follow.
    pub(super) fn reset(self, revision: Index) -> Arc<[u8]> {
        self.event("reset", None, revision, None, Resume::Later)
    }

    /// All keys were shown.
    pub(super) fn sync(self, revision: Index) -> Arc<[u8]> {
        self.event("sync", None, revision, None, Resume::Here)
    }

    /// Everything up to `revision` was sent.
    pub(super) fn bookmark(self, revision: Index) -> Arc<[u8]> {
        match self {
            Format::ServerSentEvents => format!(": {revision}\n\n").into_bytes().into(),
            Format::JsonLines => self.event("bookmark", None, revision, None, Resume::Here),
        }
    }

    fn event(
        self,
        name: &str,
        key: Option<&str>,
        revision: Index,
        value: Option<&[u8]>,
        resume: Resume,
    ) -> Arc<[u8]> {
        let value_len = value.map_or(0, <[u8]>::len);
        let mut out = Vec::with_capacity(96 + key.map_or(0, str::len) + value_len + value_len / 2);
        match self {
            Format::ServerSentEvents => {
                if resume == Resume::Here {
                    writeln!(out, "id: {revision}").expect(WRITE_TO_MEMORY);
                }
                write!(out, "event: {name}\ndata: {{").expect(WRITE_TO_MEMORY);
            }
            Format::JsonLines => write!(out, "{{\"event\":\"{name}\",").expect(WRITE_TO_MEMORY),
        }
        if let Some(key) = key {
            out.extend_from_slice(b"\"key\":");
            write_string(key, &mut out);
            out.push(b',');
        }
        write!(out, "\"revision\":{revision}").expect(WRITE_TO_MEMORY);
        if let Some(value) = value {
            write_value(value, &mut out);
        }
        if self == Format::JsonLines && resume == Resume::Later {
            out.extend_from_slice(b",\"more\":true");
        }
        out.extend_from_slice(match self {
            Format::ServerSentEvents => b"}\n\n",
            Format::JsonLines => b"}\n",
        });
        out.into()
    }
}

fn write_value(value: &[u8], out: &mut Vec<u8>) {
    match std::str::from_utf8(value) {
        Ok(text) => {
            out.extend_from_slice(b",\"value\":");
            write_string(text, out);
        }
        Err(_) => {
            out.extend_from_slice(b",\"value_base64\":\"");
            out.extend_from_slice(BASE64.encode(value).as_bytes());
            out.push(b'"');
        }
    }
}

fn write_string(text: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(out, text).expect("a string can be written to memory");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &str, revision: u64, value: &[u8]) -> Change {
        let item =
            Item { value: value.into(), content_type: None, revision: Index(revision), expires_at: None };
        Change { revision: Index(revision), key: key.into(), kind: ChangeKind::Put(item), is_last: true }
    }

    fn text(bytes: &[u8]) -> &str {
        std::str::from_utf8(bytes).expect("events are text")
    }

    #[test]
    fn server_sent_events() {
        let format = Format::ServerSentEvents;
        let change = put("app/x", 8421, b"text");
        let data = "event: put\ndata: {\"key\":\"app/x\",\"revision\":8421,\"value\":\"text\"}\n\n";
        assert_eq!(text(&format.change(&change, Resume::Later)), data);
        assert_eq!(text(&format.change(&change, Resume::Here)), format!("id: 8421\n{data}"));
        let gone = Change { kind: ChangeKind::Delete, ..change.clone() };
        let data = "{\"key\":\"app/x\",\"revision\":8421}\n\n";
        assert_eq!(text(&format.change(&gone, Resume::Later)), format!("event: delete\ndata: {data}"));
        let over = Change { kind: ChangeKind::Expire, ..change };
        assert_eq!(text(&format.change(&over, Resume::Later)), format!("event: expire\ndata: {data}"));
        assert_eq!(text(&format.reset(Index(7))), "event: reset\ndata: {\"revision\":7}\n\n");
        assert_eq!(text(&format.sync(Index(7))), "id: 7\nevent: sync\ndata: {\"revision\":7}\n\n");
        assert_eq!(text(&format.bookmark(Index(7))), ": 7\n\n");
    }

    #[test]
    fn lines_of_json() {
        let format = Format::JsonLines;
        let change = put("app/x", 8421, b"text");
        let line = "{\"event\":\"put\",\"key\":\"app/x\",\"revision\":8421,\"value\":\"text\"";
        assert_eq!(text(&format.change(&change, Resume::Here)), format!("{line}}}\n"));
        assert_eq!(text(&format.change(&change, Resume::Later)), format!("{line},\"more\":true}}\n"));
        assert_eq!(text(&format.reset(Index(7))), "{\"event\":\"reset\",\"revision\":7,\"more\":true}\n");
        assert_eq!(text(&format.sync(Index(7))), "{\"event\":\"sync\",\"revision\":7}\n");
        assert_eq!(text(&format.bookmark(Index(7))), "{\"event\":\"bookmark\",\"revision\":7}\n");
    }

    /// No byte of a key or a value can end an event or a field, or be taken for one.
    #[test]
    fn every_event_is_one_line_of_data() {
        let values: [&[u8]; 5] =
            [b"a\nid: 9\n\nb\r\nc\rd", b"\"\\\x00\x1f\x7f", b"\xff\n\n", b"", "\u{2028}".as_bytes()];
        for value in values {
            let key = "k\n\"\r\n: 1\n\nid: 3";
            let change = put(key, 5, value);
            let event = Format::ServerSentEvents.change(&change, Resume::Here);
            let lines: Vec<&str> = text(&event).split(['\n', '\r']).collect();
            assert_eq!((lines.len(), lines[0], lines[1]), (5, "id: 5", "event: put"), "{lines:?}");
            let data = lines[2].strip_prefix("data: ").expect("a line of data");
            let line = Format::JsonLines.change(&change, Resume::Here);
            for json in [data, text(&line)] {
                let json: serde_json::Value = serde_json::from_str(json).expect("JSON");
                assert_eq!(json["key"], key);
                match std::str::from_utf8(value) {
                    Ok(value) => assert_eq!(json["value"], value),
                    Err(_) => assert_eq!(json["value_base64"], "/woK"),
                }
            }
        }
    }
}
