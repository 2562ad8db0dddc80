//! From the head of a request to what it asks for: the table of all paths.

use crate::limits::READY_TIMEOUT_MS_DEFAULT;
use crate::net::api::accept::preferred;
use crate::net::api::action::{Action, Render, StatusPage};
pub use crate::net::api::body_plan::BodyPlan;
use crate::net::api::origin::refuse_cross_site;
use crate::net::api::query::{Query, shortened};
use crate::net::api::target::Target;
use crate::net::api::{key_route, listing_route, page, transaction_route};
use crate::net::http::framing::BodyLength;
use crate::net::http::head::RequestHead;
use crate::net::http::problem::Problem;
use crate::net::http::response::{Body, JSON, Response, TEXT};
use crate::net::http::status::Status;
use crate::replica::io::Request;

const KEY_PREFIX: &str = "/v1/storage/key/";
const ALLOW_ANY: &str = "GET, HEAD, POST, PUT, DELETE";
const ALLOW_READ: &str = "GET, HEAD";
const ALLOW_LEADER: &str = "GET, HEAD, POST";
/// The forms of the first page, the one for shells first.
const ROOT_FORMS: [&str; 2] = ["text/plain", "text/html"];

/// What a request asks for, known before its body is read.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(clippy::large_enum_variant, reason = "almost every plan is a large one, and none is kept")]
pub enum Plan {
    /// Something of the node. The body, if any, means nothing.
    Call(Action),
    /// Something of the node, with the body.
    Body(BodyPlan),
    /// Something that is always the same.
    Answer(Response),
}

/// Finds out what a request asks for. `length` tells whether it has a body.
///
/// # Errors
/// It asks for nothing that there is, or in a wrong way. Nothing was done, and the connection is usable once the
/// body is out of the way.
pub fn route(head: &RequestHead<'_, '_>, length: BodyLength) -> Result<Plan, Problem> {
    if head.target == "*" && head.method == "OPTIONS" || head.method == "CONNECT" {
        return Err(method_not_allowed(head.method, ALLOW_ANY));
    }
    refuse_cross_site(head)?;
    let Target { path, query } = Target::parse(head.target)?;
    if let Some(key) = path.strip_prefix(KEY_PREFIX) {
        return key_route::route(head, key, query, length);
    }
    match path {
        "/v1/storage/keys" => listing_route::route(head, query),
        "/v1/storage/txn" => transaction_route::route(head, query, length),
        "/v1/cluster/leader" if head.method == "POST" => hand_over(query),
        "/v1/cluster/leader" => status(head, query, ALLOW_LEADER, StatusPage::Leader),
        "/v1/cluster" => status(head, query, ALLOW_READ, StatusPage::Cluster),
        "/v1/version" => fixed(head, query, JSON, page::VERSION),
        "/v1/openapi.json" => fixed(head, query, JSON, page::OPENAPI),
        "/livez" => fixed(head, query, TEXT, "ok\n"),
        "/readyz" => ready(head, query),
        "/metrics" => metrics(head, query),
        "/" => root(head, query),
        _ => Err(not_found(path)),
    }
}

/// Checks a request that reads something without parameters. A timeout is understood wherever one asks for an answer.
fn check_read(head: &RequestHead<'_, '_>, query: &str, allow: &'static str) -> Result<(), Problem> {
    if !matches!(head.method, "GET" | "HEAD") {
        return Err(method_not_allowed(head.method, allow));
    }
    Query::parse(query, &["timeout"])?.timeout_ms().map(|_| ())
}

fn fixed(
    head: &RequestHead<'_, '_>,
    query: &str,
    content_type: &'static str,
    body: &'static str,
) -> Result<Plan, Problem> {
    check_read(head, query, ALLOW_READ)?;
    Ok(Plan::Answer(Response::new(Status::Ok, content_type, Body::Static(body))))
}

fn status(
    head: &RequestHead<'_, '_>,
    query: &str,
    allow: &'static str,
    page: StatusPage,
) -> Result<Plan, Problem> {
    check_read(head, query, allow)?;
    Ok(Plan::Call(Action::Status(page)))
}

fn metrics(head: &RequestHead<'_, '_>, query: &str) -> Result<Plan, Problem> {
    check_read(head, query, ALLOW_READ)?;
    Ok(Plan::Call(Action::Metrics))
}

fn root(head: &RequestHead<'_, '_>, query: &str) -> Result<Plan, Problem> {
    if preferred(head, &ROOT_FORMS) == 1 {
        return status(head, query, ALLOW_READ, StatusPage::Html);
    }
    let plan = fixed(head, query, TEXT, page::ROOT)?;
    let Plan::Answer(mut response) = plan else { return Ok(plan) };
    response.is_negotiated = true;
    Ok(Plan::Answer(response))
}

fn ready(head: &RequestHead<'_, '_>, query: &str) -> Result<Plan, Problem> {
    if !matches!(head.method, "GET" | "HEAD") {
        return Err(method_not_allowed(head.method, ALLOW_READ));
    }
    let query = Query::parse(query, &["timeout", "verbose"])?;
    let timeout_ms = query.timeout_ms()?.or(Some(READY_TIMEOUT_MS_DEFAULT));
    let render = Render::Ready { verbose: query.flag("verbose")? };
    Ok(Plan::Call(Action::Submit { request: Request::Barrier, timeout_ms, render }))
}

fn hand_over(query: &str) -> Result<Plan, Problem> {
    let query = Query::parse(query, &["timeout", "to"])?;
    let to = query.get("to").filter(|to| !to.is_empty()).map(String::from);
    Ok(Plan::Call(Action::HandOver { to, timeout_ms: query.timeout_ms()? }))
}

/// A 405.
pub(crate) fn method_not_allowed(method: &str, allow: &'static str) -> Problem {
    let detail = format!("the method {} is not allowed here; allowed: {allow}", shortened(method));
    let mut problem = Problem::new(Status::MethodNotAllowed, "method-not-allowed", detail);
    problem.allow = Some(allow);
    problem
}

fn not_found(path: &str) -> Problem {
    let detail = format!("there is nothing at {}; GET / lists what there is", shortened(path));
    Problem::new(Status::NotFound, "no-such-path", detail)
}
