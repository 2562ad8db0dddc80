//! A connection whose last response is a stream: what is on the wire, when, and how it ends.

use std::rc::Rc;
use std::sync::Arc;

use keva::net::api::follow::Follow;
use keva::net::api::{Action, Render};
use keva::net::client::{Call, ClientConnection, ClientContext};
use keva::net::http::response::Response;
use keva::net::watch::{Filter, Format};
use keva::raft::types::Index;
use keva::util::time::Millis;

const WATCH: &str = "GET /v1/storage/key/k?watch HTTP/1.1\r\nHost: h\r\n\r\n";

struct Client {
    connection: ClientConnection,
    now: Millis,
    sent: Vec<u8>,
}

impl Client {
    fn new() -> Client {
        let now = Millis(1_000);
        let context = Rc::new(ClientContext::default());
        Client { connection: ClientConnection::new(now, context), now, sent: Vec::new() }
    }

    fn feed(&mut self, bytes: &str) -> Vec<Call> {
        self.connection.receive(self.now, bytes.as_bytes());
        std::iter::from_fn(|| self.connection.next_call(self.now)).collect()
    }

    fn drain(&mut self) -> &str {
        self.take(usize::MAX);
        std::str::from_utf8(&self.sent).expect("text")
    }

    fn take(&mut self, mut count: usize) {
        while count > 0 && !self.connection.output().is_empty() {
            let output = self.connection.output();
            let part = &output[..output.len().min(count)];
            count -= part.len();
            self.sent.extend_from_slice(part);
            let taken = part.len();
            self.connection.sent(self.now, taken);
        }
    }

    fn at(&mut self, millis: u64) {
        self.now = Millis(millis);
        self.connection.handle_deadline(self.now);
    }

    /// Asks for a stream and answers with one.
    fn watching(request: &str) -> Client {
        let mut client = Client::new();
        let calls = client.feed(request);
        let call = calls.last().expect("a request");
        let response = stream(call);
        client.connection.respond(client.now, call.id, response);
        client.drain();
        client
    }

    fn send(&mut self, piece: &[u8]) {
        self.connection.send_piece(self.now, &Arc::from(piece));
    }
}

fn follow(call: &Call) -> &Follow {
    match &call.action {
        Action::Submit { render: Render::Follow(follow), .. } => follow,
        action => panic!("{action:?} follows nothing"),
    }
}

fn stream(call: &Call) -> Response {
    let Follow::Watch(watch) = follow(call) else { panic!("{call:?} is no watch") };
    watch.response(Index(8))
}

/// The head without its date, and what follows.
fn wire(text: &str) -> String {
    let lines = text.split_inclusive("\r\n").filter(|line| !line.starts_with("Date: "));
    lines.collect()
}

#[test]
fn chunked_for_http_11() {
    let mut client = Client::watching(WATCH);
    client.send(b": 8\n\n");
    client.send(b"id: 9\nevent: delete\ndata: {\"key\":\"k\",\"revision\":9}\n\n");
    assert_eq!(
        wire(client.drain()),
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\
         X-Accel-Buffering: no\r\nX-Content-Type-Options: nosniff\r\nContent-Security-Policy: sandbox\r\n\
         Keva-Revision: 8\r\nCache-Control: no-cache\r\nVary: Accept\r\nConnection: close\r\n\r\n\
         5\r\n: 8\n\n\r\n34\r\nid: 9\nevent: delete\ndata: {\"key\":\"k\",\"revision\":9}\n\n\r\n"
    );
    client.sent.clear();
    client.connection.start_shutdown(client.now);
    assert_eq!(client.drain(), "0\r\n\r\n", "a clean stop ends the stream properly");
    assert!(client.connection.wants_shutdown_write() && !client.connection.is_streaming());
}

#[test]
fn until_the_end_for_http_10() {
    for keep_alive in ["", "Connection: keep-alive\r\n"] {
        let request = format!(
            "GET /v1/storage/key/k?watch&since=3 HTTP/1.0\r\nAccept: application/x-ndjson\r\n{keep_alive}\r\n"
        );
        let mut client = Client::watching(&request);
        client.send(b"{}\n");
        let text = wire(client.drain());
        assert!(text.contains("Content-Type: application/x-ndjson; charset=utf-8\r\n"), "{text}");
        assert!(text.ends_with("Connection: close\r\n\r\n{}\n"), "{text}");
        assert!(!text.contains("chunked") && !text.contains("Content-Length"), "{text}");
        client.sent.clear();
        client.connection.start_shutdown(client.now);
        assert_eq!(client.drain(), "");
        assert!(
            client.connection.wants_shutdown_write(),
            "the end of the connection is the end of the stream"
        );
    }
}

#[test]
fn head_has_no_stream_behind_it() {
    let client = Client::watching(&WATCH.replace("GET", "HEAD"));
    assert!(!client.connection.is_streaming());
    assert_eq!(client.connection.stream_unsent_bytes(), None);
    let text = wire(std::str::from_utf8(&client.sent).unwrap());
    assert!(text.contains("Transfer-Encoding: chunked\r\n") && text.ends_with("\r\n\r\n"), "{text}");
    assert!(client.connection.wants_shutdown_write());
}

/// E10: a stream waits for its turn, and nothing behind it is read.
#[test]
fn pipelines_end_with_a_stream() {
    let mut client = Client::new();
    let get = "GET /v1/storage/key/a HTTP/1.1\r\nHost: h\r\n\r\n";
    let calls = client.feed(&(get.to_owned() + WATCH + get));
    assert_eq!(calls.len(), 2, "nothing behind the watch is read");
    client.connection.respond(client.now, calls[1].id, stream(&calls[1]));
    assert_eq!(client.drain(), "", "not its turn yet");
    assert_eq!(client.connection.stream_unsent_bytes(), None);
    client.connection.respond(
        client.now,
        calls[0].id,
        Response::empty(keva::net::http::status::Status::NoContent),
    );
    assert!(client.connection.stream_unsent_bytes().is_some());
    let text = wire(client.drain());
    assert_eq!(text.matches("HTTP/1.1 ").count(), 2, "{text}");
    assert!(client.connection.wants_input(), "only to see its end");
    assert!(client.feed(get).is_empty());
    client.connection.receive_end(client.now);
    assert!(client.connection.is_finished(), "nobody watches any more");
}

/// A long event is lent out, not copied, whatever the socket takes at once.
#[test]
fn long_pieces() {
    let piece: Arc<[u8]> = (0..100_000u32).map(|number| b'a' + (number % 26) as u8).collect();
    for step in [1, 7, 4096, usize::MAX] {
        let mut client = Client::watching(WATCH);
        client.sent.clear();
        client.connection.send_piece(client.now, &piece);
        assert_eq!(client.connection.stream_unsent_bytes(), None, "one long piece at a time");
        assert!(client.connection.memory_bytes() <= piece.len() / 2 + 4096, "it is shared");
        while !client.connection.output().is_empty() {
            client.take(step);
        }
        client.send(b"end");
        client.drain();
        let mut expected = format!("{:x}\r\n", piece.len()).into_bytes();
        expected.extend_from_slice(&piece);
        expected.extend_from_slice(b"\r\n3\r\nend\r\n");
        assert!(client.sent == expected, "in steps of {step}");
    }
    // The end comes behind it.
    let mut client = Client::watching(WATCH);
    client.connection.send_piece(client.now, &piece);
    client.connection.start_shutdown(client.now);
    assert!(!client.connection.is_streaming() && client.connection.stream_unsent_bytes().is_none());
    assert!(client.drain().ends_with("\r\n0\r\n\r\n"));
}

/// I10: an idle stream lives for ever, one that is not read does not.
#[test]
fn only_unsent_bytes_have_a_deadline() {
    let mut client = Client::watching(WATCH);
    assert_eq!(client.connection.next_deadline(), Millis::NEVER);
    client.at(10_000_000);
    assert!(client.connection.is_streaming());
    client.send(b": 1\n\n");
    assert_eq!(client.connection.next_deadline(), Millis(10_030_000));
    client.drain();
    assert_eq!(client.connection.next_deadline(), Millis::NEVER);
    client.send(b": 1\n\n");
    client.at(10_030_000);
    assert!(client.connection.is_finished());
    assert_eq!(client.connection.stream_unsent_bytes(), None);
}

/// An idle stream holds no buffers.
#[test]
fn idle_streams_hold_no_memory() {
    let many = "GET /livez HTTP/1.1\r\nHost: h\r\n\r\n".repeat(20) + WATCH;
    let mut client = Client::watching(&many);
    assert_eq!(client.connection.memory_bytes(), 0);
    client.send(&[b'x'; 10_000]);
    client.drain();
    assert_eq!(client.connection.memory_bytes(), 0);
    let bytes = size_of::<ClientConnection>();
    assert!(bytes <= 1024, "a connection has {bytes} bytes");
}

#[test]
fn an_aborted_stream_does_not_look_complete() {
    let mut client = Client::watching(WATCH);
    client.connection.abort_stream();
    assert!(client.connection.is_finished() && !client.drain().ends_with("0\r\n\r\n"));
}

/// What a request for a stream says.
#[test]
fn parameters() {
    let ask = |target: &str, headers: &str| {
        let mut client = Client::new();
        let calls =
            client.feed(&format!("GET /v1/storage/key/{target} HTTP/1.1\r\nHost: h\r\n{headers}\r\n"));
        let text = client.drain().to_owned();
        calls.first().map(|call| follow(call).clone()).ok_or(text)
    };
    let watch = |target: &str, headers: &str| match ask(target, headers) {
        Ok(Follow::Watch(watch)) => watch,
        other => panic!("{target}: {other:?}"),
    };
    let plain = watch("a%2Fb?watch", "");
    assert_eq!(plain.filter, Filter::key("a/b"));
    assert_eq!((plain.format, plain.since, plain.is_chunked), (Format::ServerSentEvents, None, true));
    assert_eq!(watch("k?watch&since=0", "").since, Some(Index(0)));
    assert_eq!(watch("k?watch&since=7", "").since, Some(Index(7)));
    // A browser repeats the first address; the header says where it was.
    assert_eq!(watch("k?watch&since=7", "Last-Event-ID: 9\r\n").since, Some(Index(9)));
    assert_eq!(watch("k?watch&since=7", "Last-Event-ID:\r\n").since, Some(Index(7)));
    for (accept, format) in [
        ("*/*", Format::ServerSentEvents),
        ("text/event-stream", Format::ServerSentEvents),
        ("application/x-ndjson", Format::JsonLines),
        ("text/html, Application/X-NDJSON;q=0.9", Format::JsonLines),
        ("text/event-stream, application/x-ndjson", Format::ServerSentEvents),
        ("text/event-stream;q=0.1, application/ndjson", Format::JsonLines),
        ("application/x-ndjson;q=0.5, text/event-stream", Format::ServerSentEvents),
        ("application/x-ndjson;q=0", Format::ServerSentEvents),
    ] {
        assert_eq!(watch("k?watch", &format!("Accept: {accept}\r\n")).format, format, "{accept}");
    }
    for (target, headers) in [
        ("k?watch=1", ""),
        ("k?watch&since=", ""),
        ("k?watch&since=-1", ""),
        ("k?watch&since=1x", ""),
        ("k?watch&since=99999999999999999999", ""),
        ("k?since=1", ""),
        ("k?watch&wait=1s", ""),
        ("k?watch&missing=404", ""),
        ("k?watch", "Last-Event-ID: x\r\n"),
        ("k?watch", "Last-Event-ID: 1\r\nLast-Event-ID: 1\r\n"),
        ("k?watch", "If-None-Match: \"1\"\r\n"),
        ("k?wait", ""),
        ("k?wait=0s", ""),
        ("k?wait=301s", ""),
        ("k?wait=5", ""),
        ("k?wait=5s&since=1", ""),
    ] {
        let answer = ask(target, headers).expect_err(target);
        assert!(answer.starts_with("HTTP/1.1 400 "), "{target} {headers}: {answer}");
    }
}
