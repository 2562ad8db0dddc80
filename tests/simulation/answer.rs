//! What nodes answer, as a user reads it.

use std::ops::Range;

/// The head of an answer.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) etag: Option<u64>,
    pub(crate) revision: Option<u64>,
    pub(crate) ttl: Option<u64>,
    /// Of a listing as text: where the next page begins.
    pub(crate) next: Option<String>,
    pub(crate) is_last: bool,
    pub(crate) is_chunked: bool,
    pub(crate) body_len: usize,
    /// Bytes of the head itself.
    pub(crate) len: usize,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
}

impl Head {
    /// The head at the start of `input`, if it is whole.
    pub(crate) fn parse(input: &[u8]) -> Option<Head> {
        let len = input.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
        let text = std::str::from_utf8(&input[..len]).expect("a head is text");
        let mut lines = text.split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().expect("a status is a number");
        let mut head = Head {
            status,
            etag: None,
            revision: None,
            ttl: None,
            next: None,
            is_last: false,
            is_chunked: false,
            body_len: 0,
            len,
        };
        for line in lines {
            let Some((name, value)) = line.split_once(": ") else { continue };
            match name {
                "ETag" => head.etag = value.trim_start_matches("W/").trim_matches('"').parse().ok(),
                "Keva-Revision" => head.revision = Some(value.parse().expect("a revision is a number")),
                "Keva-TTL" => head.ttl = Some(value.parse().expect("a life is a number")),
                "Keva-Next" => head.next = Some(decode_percent(value)),
                "Content-Length" => head.body_len = value.parse().expect("a length is a number"),
                "Transfer-Encoding" => head.is_chunked = value == "chunked",
                "Connection" => head.is_last = value == "close",
                _ => {}
            }
        }
        Some(head)
    }

    fn body(&self) -> Range<usize> {
        self.len..self.len + self.body_len
    }
}

impl Answer {
    /// Takes the answer at the start of `input`, if it is whole.
    pub(crate) fn take(input: &mut Vec<u8>) -> Option<Answer> {
        let head = Head::parse(input)?;
        assert!(!head.is_chunked, "nobody asked for a stream: {head:?}");
        let body = input.get(head.body())?.to_vec();
        input.drain(..head.body().end);
        Some(Answer { head, body })
    }

    /// The machine-readable word of an answer that is no success.
    pub(crate) fn code(&self) -> String {
        let problem: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        problem["code"].as_str().unwrap_or_default().to_owned()
    }
}

/// The text that a percent-encoded one stands for.
pub(crate) fn decode_percent(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first == b'%' {
            let digits = std::str::from_utf8(&after[..2]).expect("two digits");
            bytes.push(u8::from_str_radix(digits, 16).expect("two hexadecimal digits"));
            rest = &after[2..];
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).expect("keys are text")
}

/// A key in a request's target.
pub(crate) fn encode_percent(text: &str) -> String {
    let encode = |byte: &u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' => char::from(*byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.as_bytes().iter().map(encode).collect()
}
