//! Errors as clients see them: problem details (RFC 9457).

use std::borrow::Cow;

use serde::Serialize;

use crate::net::http::response::{Body, Response};
use crate::net::http::status::Status;

/// The media type of problem details.
pub const PROBLEM_JSON: &str = "application/problem+json";
/// How long a client that was refused for a passing reason should wait, in seconds.
pub const RETRY_AFTER_S: u32 = 1;

/// An error answer. Without anything said, the request had no effect.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// The status code.
    pub status: Status,
    /// A short name of the case that never changes, for programs.
    pub code: &'static str,
    /// What is wrong and what to do about it, for people.
    pub detail: Cow<'static, str>,
    /// Whether the request may have had an effect.
    pub applied: Applied,
    /// `Allow`, with 405.
    pub allow: Option<&'static str>,
    /// `Retry-After`, in seconds: the reason is a passing one.
    pub retry_after_s: Option<u32>,
}

/// Whether a request that failed had an effect.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Applied {
    /// Surely not.
    No,
    /// It may have, or it may still come.
    Unknown,
}

/// The members of the JSON object, in this order. `error` is the original Keva's name of the message.
#[derive(Serialize)]
struct Fields<'a> {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: &'a str,
    code: &'static str,
    applied: Applied,
    error: &'a str,
}

impl Problem {
    /// A problem of a request that had no effect.
    pub fn new(status: Status, code: &'static str, detail: impl Into<Cow<'static, str>>) -> Problem {
        let retry_after_s = (status == Status::ServiceUnavailable).then_some(RETRY_AFTER_S);
        Problem { status, code, detail: detail.into(), applied: Applied::No, allow: None, retry_after_s }
    }

    /// A 400.
    pub fn bad_request(code: &'static str, detail: impl Into<Cow<'static, str>>) -> Problem {
        Problem::new(Status::BadRequest, code, detail)
    }

    /// The problem as a response.
    #[must_use]
    pub fn to_response(&self) -> Response {
        let fields = Fields {
            r#type: "about:blank",
            title: self.status.reason(),
            status: self.status.code(),
            detail: &self.detail,
            code: self.code,
            applied: self.applied,
            error: &self.detail,
        };
        let body = serde_json::to_vec(&fields).expect("a problem is plain strings and numbers");
        let mut response = Response::new(self.status, PROBLEM_JSON, Body::Owned(body));
        response.allow = self.allow;
        response.retry_after_s = self.retry_after_s;
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_the_documented_shape() {
        let detail = "key \"app/x\" is at revision 8425, not 8421";
        let problem = Problem::new(Status::PreconditionFailed, "precondition-failed", detail);
        let body = problem.to_response().body;
        let expected = concat!(
            r#"{"type":"about:blank","title":"Precondition Failed","status":412,"#,
            r#""detail":"key \"app/x\" is at revision 8425, not 8421","code":"precondition-failed","#,
            r#""applied":"no","error":"key \"app/x\" is at revision 8425, not 8421"}"#
        );
        assert_eq!(std::str::from_utf8(body.as_slice()).unwrap(), expected);
    }
}
