//! HTTP requests of a client, in pieces.

use keva::kv::command::{Command, CommandError};
use keva::limits::{
    KEY_BYTES_MAX, PAGE_KEYS_MAX, REQUEST_HEAD_BYTES_MAX, TRANSACTION_BODY_BYTES_MIN, UNSENT_BYTES_MAX,
};
use keva::net::api::Action;
use keva::net::client::Call;
use keva::replica::io::{Listing, Request};
use keva::util::rng::Rng;

use crate::bytes::{below, mutate, noise, one_in, pick, pieces};
use crate::driver::drive;
use crate::http::{Answer, Client, VALUE_BYTES_MAX, parse};

const REQUESTS: [&str; 28] = [
    "GET /v1/storage/key/a HTTP/1.1\r\nHost: h\r\n\r\n",
    "GET /v1/storage/key/a?consistency=stale&timeout=2s HTTP/1.1\r\nHost: [::1]:80\r\nIf-None-Match: \"1\", W/\"2\"\r\n\r\n",
    "PUT /v1/storage/key/a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello",
    "PUT /v1/storage/key/a%2Fb HTTP/1.1\r\nHost: h\r\nContent-Type: text/plain\r\nIf-Match: *\r\nContent-Length: 0\r\n\r\n",
    "PUT /v1/storage/key/a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4;x=\"y\"\r\ndefg\r\n0\r\nT: v\r\n\r\n",
    "PUT /v1/storage/key/a HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
    "PUT /v1/storage/key/a HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nabc",
    "DELETE /v1/storage/key/a HTTP/1.1\r\nHost: h\r\nIf-None-Match: *\r\n\r\n",
    "GET /livez HTTP/1.1\r\nHost: h\r\n\r\n",
    "GET /readyz?verbose HTTP/1.1\r\nHost: h\r\n\r\n",
    "GET /v1/cluster HTTP/1.1\r\nHost: h\r\nAccept: */*\r\n\r\n",
    "GET http://h/v1/cluster/leader HTTP/1.1\r\nHost: h\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
    "POST /v1/storage/key/a HTTP/1.1\r\nHost: h\r\nContent-Length: 70000\r\n\r\n",
    "\r\n\r\nGET /v1/storage/key/%E4%BD%A0 HTTP/1.0\r\n\r\n",
    "POST /v1/storage/key/a?append&ttl=5m HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello",
    "POST /v1/storage/key/n?add=-5&ttl=1h HTTP/1.1\r\nHost: h\r\nIdempotency-Key: abc\r\n\r\n",
    "POST /v1/storage/key/n?add=9223372036854775807 HTTP/1.1\r\nHost: h\r\n\r\n",
    "POST /v1/storage/key/a?delete&if_rev=3 HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n",
    "GET /v1/storage/keys?prefix=a&start=a&end=b&after=%20&limit=2 HTTP/1.1\r\nHost: h\r\n\r\n",
    "GET /v1/storage/keys?values HTTP/1.1\r\nHost: h\r\nAccept: application/json;q=0.5, text/*;q=0.1\r\n\r\n",
    "GET /v1/storage/keys?count HTTP/1.1\r\nHost: h\r\nIf-None-Match: \"3\"\r\n\r\n",
    "DELETE /v1/storage/keys?prefix=a HTTP/1.1\r\nHost: h\r\nIdempotency-Key: d\r\n\r\n",
    "POST /v1/storage/txn HTTP/1.1\r\nHost: h\r\nContent-Length: 98\r\n\r\n{\"if\":[{\"key\":\"a\",\"absent\":true}],\"then\":[{\"put\":\"a\",\"value\":\"x\"},{\"add\":\"n\",\"by\":1},{\"get\":\"a\"}]}",
    "POST /v1/storage/txn HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2d\r\n{\"then\":[],\"else\":[{\"delete\":\"a\"}],\"if\":[]}  \r\n0\r\n\r\n",
    "POST /v1/cluster/leader?to=host1 HTTP/1.1\r\nHost: h\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: h\r\nAccept: text/html\r\n\r\n",
];
const WORDS: [&[u8]; 36] = [
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b"\r",
    b" ",
    b"\t",
    b":",
    b",",
    b"%00",
    b"%",
    b"?",
    b"&",
    b"=",
    b"\"",
    b"W/",
    b"*",
    b"..",
    b"//",
    b"#",
    b"Host: h\r\n",
    b"Content-Length: 3\r\n",
    b"Content-Length: 18446744073709551616\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n",
    b"Expect: 100-continue\r\n",
    b"Connection: close\r\n",
    b"Connection: keep-alive\r\n",
    b"If-Match: \"1\"\r\n",
    b"HTTP/1.1",
    b"HTTP/1.0",
    b"HTTP/2.0",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"0\r\n\r\n",
    b"ffffffffffffffff\r\n",
    b"timeout=99999999999h",
    b"consistency=",
];
/// What a connection may hold on behalf of one client: a head and its buffer, a body, unsent answers.
const MEMORY_BYTES_MAX: usize = 4 * REQUEST_HEAD_BYTES_MAX + 2 * VALUE_BYTES_MAX + 2 * UNSENT_BYTES_MAX;

/// What the client got, and what the node was asked.
#[derive(PartialEq, Debug)]
struct Outcome {
    answers: Vec<Answer>,
    calls: Vec<String>,
    is_closing: bool,
}

fn check_action(action: &Action) {
    let Action::Submit { request, .. } = action else { return };
    match request {
        Request::Write(command) => {
            let checked = command.check();
            assert_eq!(checked, Ok::<(), CommandError>(()), "{command:?}");
            let is_transaction = matches!(command.command, Command::Transaction(_));
            let bytes_max = if is_transaction { 2 * TRANSACTION_BODY_BYTES_MIN } else { VALUE_BYTES_MAX };
            assert!(command.command.value_len() <= bytes_max);
        }
        Request::Read { key, .. } => assert_eq!(keva::kv::command::check_key(key), Ok(())),
        Request::List { range, listing, .. } => {
            let bounds =
                [Some(&range.prefix), range.start.as_ref(), range.end.as_ref(), range.after.as_ref()];
            assert!(bounds.into_iter().flatten().all(|bound| bound.len() <= KEY_BYTES_MAX));
            if let Listing::Page { limit, .. } = listing {
                assert!((1..=PAGE_KEYS_MAX).contains(limit));
            }
        }
        Request::Barrier => {}
    }
}

/// Everything that the connection wants done: calls answered, output taken.
fn run(client: &mut Client) {
    loop {
        while let Some(Call { id, action }) = client.connection.next_call(client.now) {
            check_action(&action);
            client.calls.push(format!("{action:?}"));
            let response = client.node.answer(action);
            client.connection.respond(client.now, id, response);
        }
        assert!(client.connection.memory_bytes() <= MEMORY_BYTES_MAX);
        if client.drain() == 0 {
            return;
        }
    }
}

fn converse(pieces: &[&[u8]], ends: bool, has_head: bool) -> Outcome {
    let mut client = Client::new();
    for piece in pieces {
        client.connection.receive(client.now, piece);
        run(&mut client);
    }
    if ends {
        client.connection.receive_end(client.now);
        run(&mut client);
        assert!(client.connection.is_finished(), "everything is answered, and nothing more comes");
    }
    let is_closing = client.is_closing();
    // An answer to HEAD has no body, and only the connection knows which one that is.
    let mut answers = if has_head { Vec::new() } else { parse(&client.sent, |_| false) };
    // Whether leave to send a body is given depends on whether the body is there already.
    answers.retain(|answer| answer.status != 100);
    let closes = |answer: &Answer| answer.header("connection") == Some("close");
    let last = answers.len().saturating_sub(1);
    assert!(answers.iter().take(last).all(|answer| !closes(answer)), "nothing follows a last answer");
    assert!(answers.len() >= client.calls.len() || has_head, "a call without an answer");
    Outcome { answers, calls: client.calls, is_closing }
}

fn one(rng: &mut Rng, corpus: &[Vec<u8>]) -> bool {
    let mut bytes = Vec::new();
    for _ in 0..1 + below(rng, 4) {
        let mut request = pick(rng, corpus).clone();
        if one_in(rng, 2) {
            mutate(rng, &mut request, corpus, &WORDS);
        }
        bytes.extend_from_slice(&request);
    }
    if one_in(rng, 50) {
        bytes = noise(rng, 100);
    }
    let has_head = bytes.windows(5).any(|window| window == b"HEAD ");
    let ends = one_in(rng, 2);
    let cut = converse(&pieces(rng, &bytes), ends, has_head);
    let whole = converse(&[&bytes], ends, has_head);
    assert_eq!(cut, whole, "cuts do not matter: {:?}", String::from_utf8_lossy(&bytes));
    let refused = |answer: &Answer| [400, 408, 414, 417, 431, 501, 505].contains(&answer.status);
    !whole.answers.iter().any(refused)
}

/// E10, I10: any bytes, in any pieces: the same requests, the same answers, bounded memory.
#[test]
fn http_requests() {
    let corpus: Vec<_> = REQUESTS.iter().map(|request| request.as_bytes().to_vec()).collect();
    drive("http_requests", 19, |rng| one(rng, &corpus));
}
