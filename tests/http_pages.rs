//! Pages for people, and what becomes of a request to hand leadership over.
#![allow(clippy::unwrap_used, reason = "a test may end that way")]

#[path = "support/http.rs"]
mod http;

use http::{Client, view};
use keva::net::api::{
    Action, ClusterView, HandedOver, MemberView, NodeView, StatusPage, render_hand_over, render_status,
};
use keva::raft::types::{EntryId, Index, NodeId, Term};
use keva::replica::io::{PeerStatus, ReplicaStatus, RoleName, Standing};
use keva::util::time::Millis;

const FIREFOX: &str = "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n";

fn member(id: u64, identity: &str) -> MemberView<'_> {
    MemberView {
        id: NodeId(id),
        identity,
        address: "10.0.0.1",
        keva_port: 7000,
        user_port: 8000,
        connected: id == 2,
        last_contact: None,
        version: Some("0.1.0"),
    }
}

fn status() -> ReplicaStatus {
    ReplicaStatus {
        id: NodeId(1),
        role: RoleName::Leader,
        term: Term(4),
        leader: Some(NodeId(1)),
        commit_index: Index(20),
        applied_index: Index(19),
        last_index: Index(21),
        log_start: EntryId::default(),
        snapshot: None,
        snapshot_draft: None,
        standing: Standing::Voter,
        is_full: false,
        leader_is_full: false,
        keys: 5,
        peers: vec![PeerStatus { id: NodeId(2), match_index: Index(17), last_contact: None }],
    }
}

#[test]
fn the_first_page_is_text_for_shells_and_html_for_browsers() {
    let mut client = Client::new();
    for accept in ["", "Accept: */*\r\n", "Accept: text/plain\r\n", "Accept: application/json\r\n"] {
        let answer = client.tell("GET", "/", accept, "");
        assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"), "{accept}");
        assert_eq!(answer.header("vary"), Some("Accept"));
        assert!(answer.text().starts_with("Keva "));
    }
    for accept in [FIREFOX, "Accept: text/html\r\n", "Accept: text/*, text/plain;q=0.1\r\n"] {
        let answer = client.tell("GET", "/", accept, "");
        assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"), "{accept}");
        assert_eq!(
            (answer.header("vary"), answer.header("cache-control")),
            (Some("Accept"), Some("no-cache"))
        );
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        let policy = answer.header("content-security-policy").unwrap();
        for part in ["default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'"]
        {
            assert!(policy.contains(part), "{policy}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains("script-src"), "{policy}");
        let head = client.tell("HEAD", "/", accept, "");
        assert_eq!((head.status, head.headers), (200, answer.headers));
    }
    assert_eq!(client.tell("GET", "/?verbose", FIREFOX, "").status, 400);
    assert_eq!(client.tell("POST", "/", FIREFOX, "").status, 405);
}

#[test]
fn the_html_page_says_how_the_cluster_is_and_runs_nothing() {
    let members = [member(1, "a"), member(2, "<script>alert(1)</script>"), member(3, "c\"'&")];
    let cluster = ClusterView { now: Millis(0), members: &members };
    let names = NodeView { node: "a<b".into(), leader: Some("<i>".into()), ..view() };
    let response = render_status(StatusPage::Html, &status(), &cluster, &names);
    let page = std::str::from_utf8(response.body.as_slice()).unwrap();
    for part in [
        "<!DOCTYPE html>",
        "<title>Keva: a&lt;b</title>",
        "Leader: <b>&lt;i&gt;</b>, term 4. This node is leader. Committed 20, applied 19, 5 keys.",
        "survives: 1.",
        "<td>&lt;script&gt;alert(1)&lt;/script&gt;</td><td>follower</td>",
        "<td>yes</td><td>17</td>",
        "<td>c&quot;&#39;&amp;</td><td>follower</td><td>10.0.0.1, ports 7000 and 8000</td><td>no</td><td>?</td>",
        "votes: yes",
        "/v1/storage/txn",
    ] {
        assert!(page.contains(part), "{part} is not in {page}");
    }
    for banned in ["<script", "javascript:", "<iframe", "<img", "<link"] {
        assert!(!page.contains(banned), "{banned}");
    }
    let handlers = page.split('<').filter(|tag| tag.split('>').next().unwrap().contains(" on"));
    assert_eq!(handlers.count(), 0, "no handlers in any tag");
    let leaderless = NodeView { leader: None, ..names };
    let response = render_status(StatusPage::Html, &status(), &cluster, &leaderless);
    assert!(std::str::from_utf8(response.body.as_slice()).unwrap().contains("<b>none is known</b>"));
}

#[test]
fn requests_to_hand_over() {
    let asked = |target: &str| Client::understood("POST", target, "", "");
    let hand_over = |to: Option<&str>, timeout_ms| Action::HandOver { to: to.map(Into::into), timeout_ms };
    assert_eq!(asked("/v1/cluster/leader?to=host2"), hand_over(Some("host2"), None));
    assert_eq!(
        asked("/v1/cluster/leader?to=h%C3%B6st&timeout=9s"),
        hand_over(Some("h\u{f6}st"), Some(9_000))
    );
    assert_eq!(asked("/v1/cluster/leader"), hand_over(None, None));
    assert_eq!(asked("/v1/cluster/leader?to="), hand_over(None, None));
    let mut client = Client::new();
    for (method, query, status) in [
        ("POST", "?to=a&to=b", 400),
        ("POST", "?from=a", 400),
        ("POST", "?timeout=0s", 400),
        ("GET", "?to=host1", 400),
        ("POST", "?to=nobody", 400),
        ("POST", "?to=host1", 200),
        // Curl sends `-X POST` without a length.
        ("POST", "", 200),
    ] {
        let answer = client.ask(format!("{method} /v1/cluster/leader{query} HTTP/1.1\r\nHost: h\r\n\r\n"));
        assert_eq!(answer.status, status, "{method} {query}");
    }
}

#[test]
fn ends_of_a_hand_over() {
    let members = [member(1, "host1"), member(2, "host2")];
    let cluster = ClusterView { now: Millis(0), members: &members };
    let rows = [
        (
            HandedOver::NoSuchNode("x".into()),
            400,
            "bad-parameter",
            "no",
            "no node is called \"x\"; the nodes are host1, host2",
        ),
        (
            HandedOver::NotLeader(NodeId(2)),
            409,
            "not-leader",
            "no",
            "send the request to host2, the leader, at 10.0.0.1 port 8000",
        ),
        (HandedOver::NoLeader, 503, "no-leader", "no", "no leader is known"),
        (HandedOver::TooEarly, 503, "hand-over-too-early", "no", "try again"),
        (HandedOver::Busy, 503, "hand-over-busy", "no", "to another node already"),
        (
            HandedOver::NoSuccessor(Some(NodeId(2))),
            503,
            "no-successor",
            "no",
            "host2 was not heard from lately",
        ),
        (HandedOver::NoSuccessor(None), 503, "no-successor", "no", "no other node was heard from"),
        (HandedOver::GivenUp(NodeId(2)), 503, "hand-over-failed", "no", "host2 did not take over"),
        (HandedOver::TooSlow, 504, "outcome-unknown", "unknown", "GET /v1/cluster/leader says who leads"),
    ];
    for (end, status, code, applied, part) in rows {
        let response = render_hand_over(end.clone(), &cluster, &view());
        let json: serde_json::Value = serde_json::from_slice(response.body.as_slice()).unwrap();
        assert_eq!((response.status.code(), json["code"].as_str()), (status, Some(code)), "{end:?}");
        assert_eq!(json["applied"].as_str(), Some(applied), "{end:?}");
        assert!(json["detail"].as_str().unwrap().contains(part), "{json}");
        assert_eq!(response.retry_after_s.is_some(), status == 503);
        assert_eq!(response.node.as_deref(), Some("host1"));
    }
    let done = render_hand_over(HandedOver::Done(NodeId(2)), &cluster, &view());
    assert_eq!((done.status.code(), done.body.as_slice()), (200, &b"host2\n"[..]));
}
