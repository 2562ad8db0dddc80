//! A response and how it is written. The headers Keva sends are few and known, so they are fields, not a map.

use std::io::Write as _;
use std::rc::Rc;
use std::sync::Arc;

use crate::net::http::date::HttpDate;
use crate::net::http::status::Status;
use crate::raft::types::Index;

/// JSON that Keva itself wrote.
pub const JSON: &str = "application/json; charset=utf-8";
/// Text, and values that are UTF-8.
pub const TEXT: &str = "text/plain; charset=utf-8";

/// A response before it is bytes. Framing headers (`Content-Length`, `Connection`, `Date`) are added when it is
/// written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Response {
    /// The status code.
    pub status: Status,
    /// `Content-Type`. Only sent with a body.
    pub content_type: ContentType,
    /// The body. Not sent for `HEAD`, 204 and 304.
    pub body: Body,
    /// `ETag`: the revision in double quotes.
    pub etag: Option<Index>,
    /// The tag is shared by answers that differ in their bytes (RFC 9110, section 8.8.1).
    pub is_etag_weak: bool,
    /// `Keva-Revision`.
    pub revision: Option<Index>,
    /// `Keva-TTL`: whole seconds that the key has left.
    pub ttl_s: Option<u64>,
    /// `Keva-Next`: the last key of a page that is not the last one, percent-encoded.
    pub next: Option<String>,
    /// `Keva-Node`: the identity of the node that answers.
    pub node: Option<Rc<str>>,
    /// `Keva-Leader`: the identity of the leader, as far as the answering node knows it.
    pub leader: Option<Rc<str>>,
    /// `Allow`, with 405.
    pub allow: Option<&'static str>,
    /// `Retry-After`, in seconds, where the reason is a passing one.
    pub retry_after_s: Option<u32>,
    /// The body was written by a client: it must not be run as a script, nor guessed to be anything else.
    pub is_foreign: bool,
    /// `Content-Security-Policy` of a page that Keva itself wrote. Of no meaning with a foreign body.
    pub policy: Option<&'static str>,
    /// The form of the body was chosen by `Accept`: caches must keep the forms apart.
    pub is_negotiated: bool,
    /// The answer depends on the state of the store: caches must ask again.
    pub is_live: bool,
}

/// The value of `Content-Type`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ContentType {
    /// One of Keva's own.
    Known(&'static str),
    /// What the writer of a value called it.
    Stored(Arc<str>),
}

/// The bytes of a response's body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Body {
    /// Text that is part of the program. Empty means no body, with `Content-Length: 0`.
    Static(&'static str),
    /// Made for this response.
    Owned(Vec<u8>),
    /// A value of the store, shared with it.
    Value(Arc<[u8]>),
    /// Pieces that follow one by one, of a number and length that is not known. The connection ends with them.
    Stream {
        /// Each piece is a chunk (RFC 9112, section 7.1). Otherwise, for HTTP/1.0, the end of the connection is the end
        /// of the body.
        is_chunked: bool,
    },
}

/// What is said about the connection in a response's head.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Persistence {
    /// HTTP/1.1 without a word: the connection stays.
    Implied,
    /// HTTP/1.0 with `Connection: keep-alive`: the answer must say so too.
    KeepAlive,
    /// This is the last response.
    Close,
}

impl Response {
    /// A response with a body that is part of the program.
    #[must_use]
    pub fn new(status: Status, content_type: &'static str, body: Body) -> Response {
        Response {
            status,
            content_type: ContentType::Known(content_type),
            body,
            etag: None,
            is_etag_weak: false,
            revision: None,
            ttl_s: None,
            next: None,
            node: None,
            leader: None,
            allow: None,
            retry_after_s: None,
            is_foreign: false,
            policy: None,
            is_negotiated: false,
            is_live: false,
        }
    }

    /// A response without a body.
    #[must_use]
    pub fn empty(status: Status) -> Response {
        Response::new(status, TEXT, Body::Static(""))
    }

    /// Writes everything up to the empty line before the body.
    pub fn write_head(&self, persistence: Persistence, date: &HttpDate, out: &mut Vec<u8>) {
        out.extend_from_slice(self.status.line().as_bytes());
        date.write_to(out);
        if !self.status.is_bodiless() {
            self.write_content_headers(out);
        }
        if let Some(etag) = self.etag {
            let weak = if self.is_etag_weak { "W/" } else { "" };
            write!(out, "ETag: {weak}\"{etag}\"\r\n").expect(WRITE_TO_MEMORY);
        }
        if let Some(revision) = self.revision {
            write!(out, "Keva-Revision: {revision}\r\n").expect(WRITE_TO_MEMORY);
        }
        if let Some(seconds) = self.ttl_s {
            write!(out, "Keva-TTL: {seconds}\r\n").expect(WRITE_TO_MEMORY);
        }
        if let Some(next) = &self.next {
            write!(out, "Keva-Next: {next}\r\n").expect(WRITE_TO_MEMORY);
        }
        write_identity(b"Keva-Node: ", self.node.as_deref(), out);
        write_identity(b"Keva-Leader: ", self.leader.as_deref(), out);
        if self.is_live {
            out.extend_from_slice(b"Cache-Control: no-cache\r\n");
        }
        if self.is_negotiated {
            out.extend_from_slice(b"Vary: Accept\r\n");
        }
        if let Some(allow) = self.allow {
            write!(out, "Allow: {allow}\r\n").expect(WRITE_TO_MEMORY);
        }
        if let Some(seconds) = self.retry_after_s {
            write!(out, "Retry-After: {seconds}\r\n").expect(WRITE_TO_MEMORY);
        }
        match persistence {
            Persistence::Implied => {}
            Persistence::KeepAlive => out.extend_from_slice(b"Connection: keep-alive\r\n"),
            Persistence::Close => out.extend_from_slice(b"Connection: close\r\n"),
        }
        out.extend_from_slice(b"\r\n");
    }

    fn write_content_headers(&self, out: &mut Vec<u8>) {
        let length = self.body.as_slice().len();
        // An empty value and a stream have a type, too; a response that only has no body does not.
        if length > 0 || self.is_foreign {
            out.extend_from_slice(b"Content-Type: ");
            out.extend_from_slice(self.content_type.as_str().as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        match self.body {
            // Proxies must pass every piece on at once.
            Body::Stream { is_chunked: true } => {
                out.extend_from_slice(b"Transfer-Encoding: chunked\r\nX-Accel-Buffering: no\r\n");
            }
            Body::Stream { is_chunked: false } => out.extend_from_slice(b"X-Accel-Buffering: no\r\n"),
            _ => write!(out, "Content-Length: {length}\r\n").expect(WRITE_TO_MEMORY),
        }
        let policy = if self.is_foreign { Some("sandbox") } else { self.policy };
        if let Some(policy) = policy {
            write!(out, "X-Content-Type-Options: nosniff\r\nContent-Security-Policy: {policy}\r\n")
                .expect(WRITE_TO_MEMORY);
        }
    }
}

const WRITE_TO_MEMORY: &str = "writing to a Vec cannot fail";

/// Identities come from the configuration. Whatever is not visible ASCII is shown as `?`, so that none can end the
/// header.
fn write_identity(name: &[u8], identity: Option<&str>, out: &mut Vec<u8>) {
    let Some(identity) = identity else { return };
    out.extend_from_slice(name);
    out.extend(identity.bytes().map(|byte| if byte.is_ascii_graphic() { byte } else { b'?' }));
    out.extend_from_slice(b"\r\n");
}

impl ContentType {
    /// The header's value.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            ContentType::Known(name) => name,
            ContentType::Stored(name) => name,
        }
    }
}

impl Body {
    /// Memory that would be free without this body, in bytes. Of a value that others hold too, this one's share.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        match self {
            Body::Static(_) | Body::Stream { .. } => 0,
            Body::Owned(bytes) => bytes.capacity(),
            Body::Value(bytes) => bytes.len().div_ceil(Arc::strong_count(bytes)),
        }
    }

    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Body::Static(text) => text.as_bytes(),
            Body::Owned(bytes) => bytes,
            Body::Value(bytes) => bytes,
            Body::Stream { .. } => &[],
        }
    }
}
