//! What a request's headers say about its body and its connection (RFC 9112, sections 3.2, 6 and 9).

use crate::net::http::head::{RequestHead, malformed};
use crate::net::http::problem::Problem;
use crate::net::http::response::Persistence;
use crate::net::http::status::Status;

/// How the end of a body is found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BodyLength {
    /// Neither header is there: no body.
    None,
    /// `Content-Length`.
    Bytes(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// What the client expects before it sends the body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expectation {
    /// Nothing.
    None,
    /// `100 Continue`, or a final answer.
    Continue,
    /// Something this server does not know.
    Unknown,
}

/// What a request's headers say about how it is to be read and answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Framing {
    /// Where the body ends.
    pub length: BodyLength,
    /// What becomes of the connection.
    pub persistence: Persistence,
    /// `Expect`.
    pub expectation: Expectation,
}

impl BodyLength {
    /// Whether there is surely no byte of a body.
    #[must_use]
    pub fn is_empty(self) -> bool {
        matches!(self, BodyLength::None | BodyLength::Bytes(0))
    }
}

impl Framing {
    /// Reads the headers.
    ///
    /// # Errors
    /// Where the request ends is in doubt, or the headers that say it are malformed. The connection must be closed.
    pub fn of(head: &RequestHead<'_, '_>) -> Result<Framing, Problem> {
        check_host(head)?;
        let length = body_length(head)?;
        Ok(Framing { length, persistence: persistence(head), expectation: expectation(head) })
    }
}

/// RFC 9112, section 3.2: exactly one `Host` in HTTP/1.1, at most one in HTTP/1.0.
fn check_host(head: &RequestHead<'_, '_>) -> Result<(), Problem> {
    match head.single("host")? {
        Some(host) if host.iter().all(|byte| is_host_byte(*byte)) => Ok(()),
        Some(_) => {
            Err(malformed("the header Host is malformed; it is a name or an address, and perhaps :port"))
        }
        None if head.is_http_10 => Ok(()),
        None => Err(malformed("the header Host is missing; HTTP/1.1 asks for it")),
    }
}

/// Whether the byte may be part of a host and port (RFC 3986, section 3.2.2).
pub(crate) fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=:[]".contains(&byte)
}

/// RFC 9112, section 6.3, without its second chances: both headers, or one twice, is an error.
fn body_length(head: &RequestHead<'_, '_>) -> Result<BodyLength, Problem> {
    let content_length = head.single("content-length")?;
    let has_coding = head.values("transfer-encoding").next().is_some();
    match (content_length, has_coding) {
        (None, false) => Ok(BodyLength::None),
        (Some(value), false) => parse_content_length(value).map(BodyLength::Bytes),
        (None, true) => check_transfer_coding(head).map(|()| BodyLength::Chunked),
        (Some(_), true) => Err(malformed("Content-Length and Transfer-Encoding must not both be given")),
    }
}

fn parse_content_length(value: &[u8]) -> Result<u64, Problem> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(malformed("Content-Length is not a number"));
    }
    // A length beyond 64 bits is a number all the same: the body is too large.
    Ok(value.iter().fold(0u64, |sum, digit| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0'))))
}

/// Section 6.1: `chunked` must be the last coding and stand alone, as no other is known.
fn check_transfer_coding(head: &RequestHead<'_, '_>) -> Result<(), Problem> {
    if head.is_http_10 {
        return Err(malformed("Transfer-Encoding does not exist in HTTP/1.0"));
    }
    let is_chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
    let mut last = None;
    let mut chunked = 0;
    let mut count = 0;
    for coding in head.members("transfer-encoding") {
        chunked += usize::from(is_chunked(coding));
        count += 1;
        last = Some(coding);
    }
    if !last.is_some_and(is_chunked) {
        return Err(malformed("Transfer-Encoding does not end with chunked, so the body's end is unknown"));
    }
    if chunked > 1 {
        return Err(malformed("Transfer-Encoding says chunked more than once"));
    }
    if count > 1 {
        return Err(Problem::new(
            Status::NotImplemented,
            "unknown-transfer-coding",
            "the only Transfer-Encoding this server knows is chunked; send the body without compression",
        ));
    }
    Ok(())
}

/// Section 9.3: `close` wins; HTTP/1.0 connections stay only when asked for.
fn persistence(head: &RequestHead<'_, '_>) -> Persistence {
    let mut keep_alive = false;
    for option in head.members("connection") {
        if option.eq_ignore_ascii_case(b"close") {
            return Persistence::Close;
        }
        keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
    }
    match (head.is_http_10, keep_alive) {
        (false, _) => Persistence::Implied,
        (true, true) => Persistence::KeepAlive,
        (true, false) => Persistence::Close,
    }
}

/// RFC 9110, section 10.1.1. `100-continue` from an HTTP/1.0 client is ignored.
fn expectation(head: &RequestHead<'_, '_>) -> Expectation {
    let mut result = Expectation::None;
    for member in head.members("expect") {
        if !member.eq_ignore_ascii_case(b"100-continue") {
            return Expectation::Unknown;
        }
        if !head.is_http_10 {
            result = Expectation::Continue;
        }
    }
    result
}
