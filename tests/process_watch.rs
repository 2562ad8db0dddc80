//! Streams of changes and waiting requests, over real sockets of real nodes.

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use support::cluster::{Cluster, ClusterOptions, PATIENCE, wait_for};
use support::http_client::{HttpClient, Request};
use support::http_message::Answer;

/// A client that reads a stream as it comes.
struct Watcher {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Watcher {
    fn send(address: SocketAddr, request: &str) -> Watcher {
        let mut stream = TcpStream::connect(address).expect("connect");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.write_all(request.as_bytes()).expect("send");
        Watcher { stream, received: Vec::new() }
    }

    fn open(address: SocketAddr, target: &str, headers: &str) -> Watcher {
        let mut watcher =
            Watcher::send(address, &format!("GET {target} HTTP/1.1\r\nHost: h\r\n{headers}\r\n"));
        let head = watcher.read_until("\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        watcher
    }

    /// Takes everything up to and with the next `end`.
    fn read_until(&mut self, end: &str) -> String {
        let mut buffer = [0; 4096];
        loop {
            if let Some(at) = self.received.windows(end.len()).position(|window| window == end.as_bytes()) {
                let taken = self.received.drain(..at + end.len()).collect();
                return String::from_utf8(taken).expect("text");
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => panic!("ended without {end:?}: {:?}", String::from_utf8_lossy(&self.received)),
                Ok(count) => self.received.extend_from_slice(&buffer[..count]),
                Err(error) => panic!("{error}: {:?}", String::from_utf8_lossy(&self.received)),
            }
        }
    }

    /// The next event, without comments and chunks.
    fn event(&mut self) -> String {
        loop {
            let size = self.read_until("\r\n");
            let size = usize::from_str_radix(size.trim_end(), 16).expect("a chunk");
            let chunk = self.read_until("\r\n");
            assert_eq!(chunk.len(), size + 2, "{chunk}");
            if !chunk.starts_with(':') {
                return chunk.trim_end().to_owned();
            }
        }
    }

    /// Everything up to the end of the connection.
    fn rest(mut self) -> String {
        self.stream.read_to_end(&mut self.received).expect("the connection ends in good order");
        String::from_utf8(self.received).expect("text")
    }
}

fn put(client: &mut HttpClient, key: &str, value: &[u8]) -> u64 {
    let answer = client.request("PUT", &format!("/v1/storage/key/{key}"), &[], value).expect("an answer");
    assert_eq!(answer.status, 200);
    answer.etag().expect("a revision")
}

fn expect_put(event: &str, key: &str, revision: u64, value: &str) {
    let data = format!("{{\"key\":\"{key}\",\"revision\":{revision},\"value\":\"{value}\"}}");
    assert_eq!(event, format!("id: {revision}\nevent: put\ndata: {data}"));
}

/// K1 to K4: a stream of one node, gone on with on another one.
#[test]
fn a_stream_goes_on_at_another_node() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader();
    let [one, two] = cluster.others(leader)[..] else { panic!("three nodes") };
    let mut writer = cluster.client(leader);
    let first = put(&mut writer, "a/0", b"before");
    let mut watcher =
        Watcher::open(cluster.client_address(one), "/v1/storage/keys?prefix=a/&watch&since=0", "");
    assert!(watcher.event().starts_with("event: reset\n"));
    assert_eq!(
        watcher.event(),
        format!("event: put\ndata: {{\"key\":\"a/0\",\"revision\":{first},\"value\":\"before\"}}")
    );
    assert!(watcher.event().contains("\nevent: sync\n"));
    let second = put(&mut writer, "a/1", b"one");
    put(&mut writer, "b", b"no");
    expect_put(&watcher.event(), "a/1", second, "one");
    drop(watcher);
    let third = put(&mut writer, "a/2", b"two");
    let mut watcher = Watcher::open(
        cluster.client_address(two),
        "/v1/storage/keys?prefix=a/&watch&since=0",
        &format!("Last-Event-ID: {second}\r\n"),
    );
    expect_put(&watcher.event(), "a/2", third, "two");
    let fourth = put(&mut writer, "a/1", b"one more");
    expect_put(&watcher.event(), "a/1", fourth, "one more");
    let answer = writer.request("DELETE", "/v1/storage/keys?prefix=a/", &[], b"").expect("an answer");
    assert_eq!(answer.status, 200);
    let deletions: Vec<String> = (0..3).map(|_| watcher.event()).collect();
    assert!(deletions.iter().all(|event| event.contains("event: delete\n")), "{deletions:?}");
    assert_eq!(deletions.iter().filter(|event| event.starts_with("id: ")).count(), 1, "{deletions:?}");
    // A stream begins at a revision that exists.
    let target = "/v1/storage/key/k?watch&since=999999999";
    let answer = writer.request("GET", target, &[], b"").expect("an answer");
    assert_eq!((answer.status, answer.text().contains("revision-in-the-future")), (400, true));
}

/// Keys that live for a time end with an event of their own.
#[test]
fn expiry_is_an_event() {
    let cluster = Cluster::start(1);
    let mut writer = cluster.client(0);
    let mut watcher = Watcher::open(
        cluster.client_address(0),
        "/v1/storage/key/k?watch",
        "Accept: application/x-ndjson\r\n",
    );
    writer.request("PUT", "/v1/storage/key/k?ttl=300ms", &[], b"\xff").expect("an answer");
    let line = loop {
        let line = watcher.event();
        if !line.contains("bookmark") {
            break line;
        }
    };
    assert!(
        line.starts_with("{\"event\":\"put\",\"key\":\"k\",") && line.ends_with("\"value_base64\":\"/w==\"}"),
        "{line}"
    );
    assert!(watcher.event().starts_with("{\"event\":\"expire\",\"key\":\"k\","));
}

#[test]
fn old_clients_and_heads() {
    let cluster = Cluster::start(1);
    let mut writer = cluster.client(0);
    let address = cluster.client_address(0);
    let mut old = Watcher::send(address, "GET /v1/storage/key/k?watch HTTP/1.0\r\n\r\n");
    let head = old.read_until("\r\n\r\n");
    assert!(head.contains("Content-Type: text/event-stream") && !head.contains("chunked"), "{head}");
    assert!(head.contains("Keva-Node: ") && head.contains("Cache-Control: no-cache\r\n"), "{head}");
    assert!(old.read_until("\n\n").starts_with(": "));
    let revision = put(&mut writer, "k", b"v");
    expect_put(old.read_until("\n\n").trim_end(), "k", revision, "v");

    let head = Watcher::send(address, "HEAD /v1/storage/key/k?watch HTTP/1.1\r\nHost: h\r\n\r\n").rest();
    assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");

    // What is pipelined behind a stream is not carried out.
    let write = "PUT /v1/storage/key/never HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx";
    let pipeline = format!("GET /v1/storage/key/k?watch HTTP/1.1\r\nHost: h\r\n\r\n{write}");
    let mut watcher = Watcher::send(address, &pipeline);
    watcher.read_until("\r\n\r\n");
    let revision = put(&mut writer, "k", b"w");
    expect_put(&watcher.event(), "k", revision, "w");
    let answer = writer.request("GET", "/v1/storage/key/never", &[], b"").expect("an answer");
    assert_eq!(answer.status, 204);
}

/// A clean stop ends streams in good order and answers those who wait.
#[test]
fn a_clean_stop_ends_streams() {
    let mut cluster = Cluster::start(1);
    let address = cluster.client_address(0);
    let mut writer = cluster.client(0);
    let revision = put(&mut writer, "k", b"v");
    let watcher = Watcher::open(address, "/v1/storage/key/k?watch", "");
    let mut waiter = cluster.client(0);
    let tag = format!("\"{revision}\"");
    let wait = Request::new("GET", "/v1/storage/key/k?wait=5m", &[("If-None-Match", &tag)], b"");
    waiter.start(&wait).expect("sent");
    // The request is there as soon as a later one of the same kind was answered.
    let later = writer.request("GET", "/v1/storage/key/k?wait=50ms", &[("If-None-Match", &tag)], b"");
    assert_eq!(later.expect("an answer").status, 304);
    cluster.node(0).terminate();
    let began = Instant::now();
    let text = watcher.rest();
    assert!(text.ends_with("\r\n0\r\n\r\n"), "{text:?}");
    assert_eq!(waiter.finish(&wait).expect("an answer").status, 304);
    assert!(cluster.node(0).wait_exit(PATIENCE).success());
    assert!(began.elapsed() < Duration::from_secs(7), "nothing was waited for: {:?}", began.elapsed());
}

#[test]
fn requests_wait_for_a_change() {
    let cluster = Cluster::start(3);
    let mut writer = cluster.client(0);
    let mut waiter = cluster.client(1);
    let mut ask = |target: &str, tag: Option<u64>, change: &mut dyn FnMut()| -> Answer {
        let tag = tag.map(|tag| format!("\"{tag}\""));
        let headers: Vec<(&str, &str)> = tag.iter().map(|tag| ("If-None-Match", tag.as_str())).collect();
        let request = Request::new("GET", target, &headers, b"");
        waiter.start(&request).expect("sent");
        std::thread::sleep(Duration::from_millis(100));
        change();
        waiter.finish(&request).expect("an answer")
    };
    let key = "/v1/storage/key/a/k?wait=30s";
    let mut revision = 0;
    // A key that is not there yet.
    let answer = ask(key, None, &mut || revision = put(&mut writer, "a/k", b"1"));
    assert_eq!((answer.status, answer.text().as_str(), answer.etag()), (200, "1", Some(revision)));
    // One that is there.
    assert_eq!(ask(key, None, &mut || {}).status, 200);
    assert_eq!(ask(key, Some(revision - 1), &mut || {}).etag(), Some(revision));
    let old = revision;
    let answer = ask(key, Some(old), &mut || revision = put(&mut writer, "a/k", b"2"));
    assert_eq!((answer.status, answer.text().as_str(), answer.etag()), (200, "2", Some(revision)));
    // A listing: whatever changed above its revision.
    let keys = "/v1/storage/keys?prefix=a/&wait=30s";
    let listing = ask(keys, None, &mut || {});
    assert_eq!((listing.status, listing.text().as_str()), (200, "a/k\n"));
    let seen = listing.etag().expect("a revision");
    assert_eq!(ask(keys, Some(revision - 1), &mut || {}).status, 200, "a change that came before counts");
    let answer = ask(keys, Some(seen), &mut || {
        put(&mut writer, "b", b"");
        put(&mut writer, "a/l", b"");
    });
    assert_eq!((answer.status, answer.text().as_str()), (200, "a/k\na/l\n"));
    // However short the wait: a change that came before it is seen.
    for _ in 0..20 {
        assert_eq!(ask("/v1/storage/keys?prefix=a/&wait=1ms", Some(seen), &mut || {}).status, 200);
    }
    // Nothing happens: the listing's tag moves on all the same.
    let seen = answer.etag().expect("a revision");
    let answer = ask("/v1/storage/keys?prefix=a/&wait=300ms", Some(seen), &mut || {
        put(&mut writer, "b", b"");
    });
    assert_eq!((answer.status, answer.etag() > Some(seen)), (304, true));
    let answer = ask("/v1/storage/key/a/k?wait=200ms", Some(revision), &mut || {});
    assert_eq!((answer.status, answer.etag()), (304, Some(revision)));
    assert_eq!(ask("/v1/storage/key/none?wait=200ms", None, &mut || {}).status, 204);
    assert_eq!(ask("/v1/storage/key/none?wait=200ms&missing=404", None, &mut || {}).status, 404);
    // A key that goes away.
    let answer = ask(key, Some(revision), &mut || {
        writer.request("DELETE", "/v1/storage/key/a/k", &[], b"").expect("an answer");
    });
    assert_eq!(answer.status, 204);
}

/// I10: a client that does not read holds a bounded buffer, then loses its connection; others are not disturbed.
#[test]
fn a_client_that_does_not_read_is_cut_off() {
    let options = ClusterOptions::new(1).settings("[limits]\nhistory_size = '64KiB'\n");
    let mut cluster = Cluster::start_with(&options);
    let address = cluster.client_address(0);
    let mut slow = Watcher::open(address, "/v1/storage/keys?prefix=&watch", "");
    let mut quick = Watcher::open(address, "/v1/storage/key/end?watch", "");
    let mut writer = cluster.client(0);
    let value = [b'x'; 60_000];
    // The sockets' buffers take some megabytes.
    for _ in 0..300 {
        put(&mut writer, "k", &value);
    }
    let revision = put(&mut writer, "end", b"v");
    expect_put(&quick.event(), "end", revision, "v");
    let mut text = Vec::new();
    // It ends, with a reset or without.
    let _ = slow.stream.read_to_end(&mut text);
    assert!(!text.ends_with(b"\r\n0\r\n\r\n"), "a stream that broke off does not look complete");
    assert!(text.len() < 300 * value.len(), "{} bytes", text.len());
    cluster.node(0).assert_running();
}

/// A client that went away is forgotten.
#[test]
fn gone_clients_make_room() {
    let cluster = Cluster::start_with(&ClusterOptions::new(1).settings("[limits]\nclient_connections = 4\n"));
    let address = cluster.client_address(0);
    for _ in 0..20 {
        let watcher = wait_for("room for another client", || {
            let mut watcher =
                Watcher::send(address, "GET /v1/storage/key/k?watch HTTP/1.1\r\nHost: h\r\n\r\n");
            watcher.read_until("\r\n\r\n").starts_with("HTTP/1.1 200 ").then_some(watcher)
        });
        watcher.stream.shutdown(Shutdown::Write).expect("shut down");
        watcher.rest();
    }
}
