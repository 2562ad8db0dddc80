//! Properties of the parser over random input: cuts do not matter, nothing panics, everything stays bounded.

#[path = "support/http.rs"]
mod http;

use std::ops::Range;

use http::{Client, VALUE_BYTES_MAX, parse};
use keva::kv::command::Command;
use keva::limits::{PIPELINED_REQUESTS_MAX, UNSENT_BYTES_MAX};
use keva::net::api::Action;
use keva::net::api::target::parse_key;
use keva::net::http::body::BodyDecoder;
use keva::net::http::framing::BodyLength;
use keva::net::http::response::{Body, Response, TEXT};
use keva::net::http::status::Status;
use keva::replica::io::Request;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// Everything that can be seen from outside. Leave to send a body is not part of it: whether it is given depends on
/// whether the body was there already.
#[derive(PartialEq, Debug)]
struct Outcome {
    calls: Vec<String>,
    sent: String,
    is_closing: bool,
}

fn outcome(client: &Client) -> Outcome {
    let sent = String::from_utf8_lossy(&client.sent).replace("HTTP/1.1 100 Continue\r\n\r\n", "");
    Outcome { calls: client.calls.clone(), sent, is_closing: client.is_closing() }
}

/// Feeds the bytes cut at these places.
fn run(bytes: &[u8], cuts: &[usize], ends: bool) -> Outcome {
    let mut client = Client::new();
    let mut start = 0;
    for end in cuts.iter().copied().chain([bytes.len()]) {
        client.feed(&bytes[start..end]);
        start = end;
        let memory = client.connection.memory_bytes();
        // The input is at most what was fed; no unsent output is left.
        assert!(memory <= 2 * (VALUE_BYTES_MAX + bytes.len()) + (64 << 10), "{memory} bytes");
        assert!(client.connection.output().is_empty());
    }
    if ends {
        client.end();
        assert!(client.connection.is_finished(), "nothing is left to do after the end of input");
    }
    outcome(&client)
}

fn sorted_cuts(cuts: &[Index], length: usize) -> Vec<usize> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(length + 1)).collect();
    cuts.sort_unstable();
    cuts
}

fn chunked(value: &[u8], sizes: &[usize], extension: &str, trailer: &str) -> Vec<u8> {
    let mut body = Vec::new();
    let mut rest = value;
    let mut sizes = sizes.iter().cycle();
    while !rest.is_empty() {
        let size = sizes.next().map_or(rest.len(), |size| (*size).clamp(1, rest.len()));
        let (chunk, tail) = rest.split_at(size);
        body.extend_from_slice(format!("{size:X}{extension}\r\n").as_bytes());
        body.extend_from_slice(chunk);
        body.extend_from_slice(b"\r\n");
        rest = tail;
    }
    body.extend_from_slice(format!("0\r\n{trailer}\r\n").as_bytes());
    body
}

fn header_line() -> impl Strategy<Value = String> {
    let known = select(vec![
        "Accept: */*",
        "User-Agent: curl/8",
        "Connection: keep-alive",
        "Connection: close",
        "Expect: 100-continue",
        "If-Match: \"1\"",
        "If-None-Match: *",
        "If-None-Match: \"2\", W/\"3\"",
        "Content-Type: text/html",
        "Idempotency-Key: a",
        "X: ",
        "Content-Length: 0",
        "Transfer-Encoding: chunked",
    ]);
    known.prop_map(String::from)
}

fn request() -> impl Strategy<Value = Vec<u8>> {
    let method = select(vec!["GET", "HEAD", "PUT", "POST", "DELETE", "PATCH"]);
    let target = select(vec![
        "/v1/storage/key/a",
        "/v1/storage/key/a?if_absent",
        "/v1/storage/key/b%2F?timeout=1s",
        "/v1/storage/key/%zz",
        "/v1/storage/key/b?delete",
        "/v1/cluster",
        "/livez",
        "http://h/v1/version",
        "/nowhere",
    ]);
    let value = vec(any::<u8>(), 0..300);
    let body = (value, vec(1usize..200, 0..4), 0..4u8);
    (method, target, vec(header_line(), 0..4), body, prop::bool::weighted(0.1)).prop_map(
        |(method, target, headers, (value, sizes, kind), is_http_10)| {
            let version = if is_http_10 { "1.0" } else { "1.1" };
            let mut bytes = format!("{method} {target} HTTP/{version}\r\nHost: h\r\n").into_bytes();
            for header in headers {
                bytes.extend_from_slice(header.as_bytes());
                bytes.extend_from_slice(b"\r\n");
            }
            let (framing, body) = match kind {
                0 => (String::new(), Vec::new()),
                1 => (
                    String::from("Transfer-Encoding: chunked\r\n"),
                    chunked(&value, &sizes, ";a=b", "T: u\r\n"),
                ),
                _ => (format!("Content-Length: {}\r\n", value.len()), value),
            };
            bytes.extend_from_slice(framing.as_bytes());
            bytes.extend_from_slice(b"\r\n");
            bytes.extend_from_slice(&body);
            bytes
        },
    )
}

/// Mostly well-made requests, so that the whole machine runs.
fn good_request() -> impl Strategy<Value = Vec<u8>> {
    (select(vec!["GET", "HEAD", "PUT", "DELETE"]), 0..5u8, vec(any::<u8>(), 0..3000), any::<bool>()).prop_map(
        |(method, key, value, is_chunked)| {
            let head = format!("{method} /v1/storage/key/k{key} HTTP/1.1\r\nHost: h\r\n");
            match (method, is_chunked) {
                ("PUT", true) => [
                    format!("{head}Transfer-Encoding: chunked\r\n\r\n").as_bytes(),
                    &chunked(&value, &[700], "", ""),
                ]
                .concat(),
                ("PUT", false) => {
                    [format!("{head}Content-Length: {}\r\n\r\n", value.len()).as_bytes(), &value].concat()
                }
                _ => format!("{head}\r\n").into_bytes(),
            }
        },
    )
}

/// Some damage: a byte is changed, removed or doubled, or a piece is copied elsewhere.
#[derive(Clone, Debug)]
enum Damage {
    Set(Index, u8),
    Remove(Index),
    Insert(Index, Vec<u8>),
    Copy(Index, Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    let nasty = select(vec![
        b"\n".to_vec(),
        b"\r".to_vec(),
        b"\r\n".to_vec(),
        b"\0".to_vec(),
        b" ".to_vec(),
        b":".to_vec(),
        b"0".to_vec(),
        b"fffffffffffffff".to_vec(),
        b"\r\nTransfer-Encoding: chunked".to_vec(),
        b"\r\nContent-Length: 5".to_vec(),
        vec![b'a'; 9000],
        vec![0xff],
    ]);
    prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Damage::Set(at, byte)),
        any::<Index>().prop_map(Damage::Remove),
        (any::<Index>(), nasty).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Damage::Copy(from, to)),
    ]
}

fn inflict(bytes: &mut Vec<u8>, damage: &Damage) {
    if bytes.is_empty() {
        return;
    }
    match damage {
        Damage::Set(at, byte) => {
            let at = at.index(bytes.len());
            bytes[at] = *byte;
        }
        Damage::Remove(at) => {
            bytes.remove(at.index(bytes.len()));
        }
        Damage::Insert(at, piece) => {
            let at = at.index(bytes.len());
            bytes.splice(at..at, piece.iter().copied());
        }
        Damage::Copy(from, to) => {
            let range: Range<usize> = from.index(bytes.len())..bytes.len();
            let piece: Vec<u8> = bytes[range].iter().copied().take(60).collect();
            let to = to.index(bytes.len());
            bytes.splice(to..to, piece);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// E10: however the network cuts a stream of requests, the node is asked the same and the client gets the same.
    #[test]
    fn cuts_do_not_matter(
        requests in vec(request(), 1..6),
        cuts in vec(any::<Index>(), 0..12),
        ends in any::<bool>(),
    ) {
        let bytes = requests.concat();
        let whole = run(&bytes, &[], ends);
        prop_assert_eq!(&run(&bytes, &sorted_cuts(&cuts, bytes.len()), ends), &whole);
        let single: Vec<usize> = (1..bytes.len()).collect();
        prop_assert_eq!(&run(&bytes, &single, ends), &whole);
    }

    /// The same with damaged requests.
    #[test]
    fn cuts_do_not_matter_to_damaged_requests(
        requests in vec(request(), 1..4),
        damages in vec(damage(), 1..4),
        cuts in vec(any::<Index>(), 0..12),
        ends in any::<bool>(),
    ) {
        let mut bytes = requests.concat();
        for damage in &damages {
            inflict(&mut bytes, damage);
        }
        let whole = run(&bytes, &[], ends);
        prop_assert_eq!(&run(&bytes, &sorted_cuts(&cuts, bytes.len()), ends), &whole);
        let single: Vec<usize> = (1..bytes.len()).collect();
        prop_assert_eq!(&run(&bytes, &single, ends), &whole);
    }

    /// Whole requests are all understood, and answered in order.
    #[test]
    fn good_requests_are_all_answered(
        requests in vec(good_request(), 1..20),
        cuts in vec(any::<Index>(), 0..12),
    ) {
        let bytes = requests.concat();
        let mut client = Client::new();
        let mut start = 0;
        for end in sorted_cuts(&cuts, bytes.len()).into_iter().chain([bytes.len()]) {
            client.feed(&bytes[start..end]);
            start = end;
        }
        let answers = parse(&client.sent, |position| requests[position].starts_with(b"HEAD "));
        prop_assert_eq!(answers.len(), requests.len());
        prop_assert_eq!(client.calls.len(), requests.len());
        prop_assert!(answers.iter().all(|answer| answer.status == 200 || answer.status == 204));
        prop_assert!(!client.is_closing());
    }

    /// Random bytes, random text and binary look-alikes: an error or silence, never a panic.
    #[test]
    fn random_bytes(bytes in vec(any::<u8>(), 0..2000), cuts in vec(any::<Index>(), 0..6)) {
        let whole = run(&bytes, &[], true);
        prop_assert_eq!(&run(&bytes, &sorted_cuts(&cuts, bytes.len()), true), &whole);
    }

    #[test]
    fn random_lines(lines in vec("[ -~\t]{0,40}(\r\n|\n|\r)", 0..30), cuts in vec(any::<Index>(), 0..6)) {
        let bytes = lines.concat().into_bytes();
        let whole = run(&bytes, &[], true);
        prop_assert_eq!(&run(&bytes, &sorted_cuts(&cuts, bytes.len()), true), &whole);
    }

    /// The chunked coding gives back exactly what went in, and stops where the next request begins.
    #[test]
    fn chunked_coding(
        value in vec(any::<u8>(), 0..2000),
        sizes in vec(1usize..700, 0..5),
        cuts in vec(any::<Index>(), 0..8),
        extension in select(vec!["", ";a", ";a=\"b c\"", " ; x"]),
        trailer in select(vec!["", "A: b\r\n", "A:\r\nB: c\r\n"]),
        limit in select(vec![VALUE_BYTES_MAX, 1500]),
    ) {
        // Tiny chunks could have more extensions than are allowed.
        let sizes: Vec<usize> = sizes.iter().map(|size| size + extension.len()).collect();
        let mut bytes = chunked(&value, &sizes, extension, trailer);
        let end = bytes.len();
        bytes.extend_from_slice(b"GET / HTTP/1.1");
        let mut decoder = BodyDecoder::new(BodyLength::Chunked, limit, true).unwrap();
        let mut used = 0;
        let mut failed = false;
        for cut in sorted_cuts(&cuts, bytes.len()).into_iter().chain([bytes.len()]) {
            match decoder.decode(&bytes[used.min(cut)..cut]) {
                Ok(count) => used += count,
                Err(problem) => {
                    prop_assert_eq!(problem.status, Status::ContentTooLarge);
                    failed = true;
                    break;
                }
            }
        }
        prop_assert_eq!(failed, value.len() > limit);
        if !failed {
            prop_assert!(decoder.is_complete());
            prop_assert_eq!(used, end);
            prop_assert_eq!(decoder.into_bytes(), value);
        }
    }

    /// Every key that may exist can be written in a URL, and comes out the same.
    #[test]
    fn keys_survive_encoding(key in "\\PC{1,60}|[ -~]{1,60}|[\0-\x1f]{1,20}", encode_all in any::<bool>()) {
        let plain = |byte: &u8| !encode_all && (byte.is_ascii_alphanumeric() || b"/+.-~_".contains(byte));
        let encoded: String = key
            .bytes()
            .map(|byte| if plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02x}") })
            .collect();
        prop_assert_eq!(parse_key(&encoded), Ok(key.clone()));
        let request = format!("DELETE /v1/storage/key/{encoded} HTTP/1.1\r\nHost: h\r\n\r\n");
        let mut client = Client::new();
        client.connection.receive(client.now, request.as_bytes());
        let call = client.next_call().expect("a complete request");
        let Action::Submit { request: Request::Write(write), .. } = call.action else {
            panic!("not a write");
        };
        let Command::Delete { key: found, .. } = write.command else { panic!("not a delete") };
        prop_assert_eq!(found, key);
    }

    /// E10, I10: with answers in any order and output taken in any amounts, the order holds and so do the bounds.
    #[test]
    fn any_order_of_answers(
        steps in vec((any::<Index>(), 0usize..20_000, any::<bool>()), 1..300),
        count in 1usize..150,
        length in 0usize..40_000,
    ) {
        let mut client = Client::new();
        let input: String = (0..count).map(|i| http::get(&i.to_string())).collect();
        client.connection.receive(client.now, input.as_bytes());
        let mut waiting = Vec::new();
        let mut taken = Vec::new();
        let mut steps = steps.iter().cycle();
        loop {
            while let Some(call) = client.next_call() {
                let Action::Submit { request: Request::Read { key, .. }, .. } = call.action else { panic!("a read") };
                waiting.push((call.id, key));
            }
            let (pick, amount, answers) = steps.next().expect("an endless iterator");
            let output = client.connection.output();
            if waiting.is_empty() && output.is_empty() {
                break;
            }
            let size = output.len().min(amount + 1);
            taken.extend_from_slice(&output[..size]);
            client.connection.sent(client.now, size);
            if (*answers || size == 0) && !waiting.is_empty() {
                let (id, key) = waiting.swap_remove(pick.index(waiting.len()));
                let body = format!("{key}{}", " ".repeat(length));
                client.connection.respond(client.now, id, Response::new(Status::Ok, TEXT, Body::Owned(body.into())));
            }
            prop_assert!(waiting.len() <= PIPELINED_REQUESTS_MAX);
            let held = client.connection.memory_bytes() - input.len().min(32 << 10);
            prop_assert!(held <= UNSENT_BYTES_MAX + (PIPELINED_REQUESTS_MAX + 2) * (length + 300) + (128 << 10));
        }
        let bodies: Vec<String> = parse(&taken, |_| false).iter().map(|answer| answer.text().trim_end().into()).collect();
        let expected: Vec<String> = (0..count).map(|i| i.to_string()).collect();
        prop_assert_eq!(bodies, expected);
    }
}
