//! keva.toml as somebody may have written it.

use std::collections::BTreeSet;
use std::path::Path;

use keva::config::{Config, LimitSettings, node_id};
use keva::limits::{
    CLIENT_CONNECTIONS_MAX, CLIENT_TIMEOUT_MS_MAX, CLIENT_TIMEOUT_MS_MIN, ELECTION_TIMEOUT_MS_MAX,
    ELECTION_TIMEOUT_MS_MIN, HEARTBEATS_PER_ELECTION_TIMEOUT, HISTORY_BYTES_MAX, HISTORY_BYTES_MIN,
    IDENTITY_BYTES_MAX, NODES_MAX, REQUEST_TIMEOUT_MS_MAX, REQUEST_TIMEOUT_MS_MIN, SEGMENT_BYTES_MAX,
    SEGMENT_BYTES_MIN, SEGMENT_BYTES_UNIT, SNAPSHOT_LOG_BYTES_MAX, SNAPSHOT_LOG_BYTES_MIN, VALUE_BYTES_MAX,
};
use keva::util::rng::Rng;

use crate::bytes::{input, one_in};
use crate::driver::{bounded, drive};

const SMALL: &str = "cluster = 'home'\n[[node]]\nidentity = 'a'\naddress = '10.0.0.1'\nkeva_port = 1\nuser_port = 2\n\
                     wait_time = '250ms'\n[[node]]\nidentity = 'b'\naddress = 'pi.local'\nkeva_port = '1'\n\
                     user_port = 65535\nbind_address = '::1'\nwait_time = 0.5\n[limits]\nmax_value_size = '64KiB'\n\
                     client_connections = 9\nrequest_timeout = '10s'\nidle_timeout = '1h'\nhead_timeout = '100ms'\n\
                     stall_timeout = 1\nhistory_size = '1MiB'\n[storage]\nsegment_size = '1MiB'\n\
                     snapshot_log_size = '64GiB'\n";
const WORDS: [&[u8]; 26] = [
    b"[[node]]\n",
    b"[limits]\n",
    b"[storage]\n",
    b"identity = 'c'\n",
    b"identity",
    b"address = '[::1]'\n",
    b"address = 'fe80::1%eth0'\n",
    b"localhost",
    b"0.0.0.0",
    b"wait_time = 1e400\n",
    b"wait_time = nan\n",
    b"-1",
    b"18446744073709551616",
    b"0x10",
    b"1_000",
    b"1979-05-27T07:32:00Z",
    b"\"\\u0000\"",
    b"'''",
    b"\"\"\"",
    b"{",
    b"[",
    b".",
    b"5 h",
    b"0.00000000000000000000000000000000000001h",
    b"\xef\xbb\xbf",
    "\u{e4}\u{1f980}".as_bytes(),
];
/// What a file may cost per byte: parsed values with their places, and one message.
const COST_PER_BYTE: usize = 400;

/// The configuration as a file, everything written out.
fn render(config: &Config) -> String {
    let mut text = String::new();
    if let Some(name) = &config.cluster {
        text += &format!("cluster = '{name}'\n");
    }
    let LimitSettings {
        value_bytes_max,
        client_connections_max,
        request_timeout_ms,
        idle_timeout_ms,
        head_timeout_ms,
        stall_timeout_ms,
        history_bytes,
    } = &config.limits;
    for node in &config.nodes {
        text += &format!(
            "[[node]]\nidentity = '{}'\naddress = '{}'\nkeva_port = {}\nuser_port = {}\nwait_time = '{}ms'\n",
            node.identity, node.address, node.keva_port, node.user_port, node.wait_time_ms
        );
        if let [only] = node.bind_addresses.as_slice() {
            text += &format!("bind_address = '{only}'\n");
        }
    }
    text + &format!(
        "[limits]\nmax_value_size = {value_bytes_max}\nclient_connections = {client_connections_max}\n\
         request_timeout = '{request_timeout_ms}ms'\nidle_timeout = '{idle_timeout_ms}ms'\n\
         head_timeout = '{head_timeout_ms}ms'\nstall_timeout = '{stall_timeout_ms}ms'\n\
         history_size = {history_bytes}\n\
         [storage]\nsegment_size = {}\nsnapshot_log_size = {}\n",
        config.storage.segment_bytes, config.storage.snapshot_log_bytes
    )
}

fn check(config: &Config) {
    let nodes = &config.nodes;
    assert!((1..=NODES_MAX).contains(&nodes.len()));
    let identities: BTreeSet<_> = nodes.iter().map(|node| &node.identity).collect();
    let ids: BTreeSet<_> = nodes.iter().map(|node| node.id).collect();
    let ports: BTreeSet<_> = nodes
        .iter()
        .flat_map(|node| [(&node.address, node.keva_port), (&node.address, node.user_port)])
        .collect();
    assert_eq!((identities.len(), ids.len(), ports.len()), (nodes.len(), nodes.len(), 2 * nodes.len()));
    for node in nodes {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        assert!((1..=IDENTITY_BYTES_MAX).contains(&node.identity.len()));
        assert!(node.identity.bytes().all(is_plain), "{:?}", node.identity);
        assert!(node.id == node_id(&node.identity) && node.id.0 != 0);
        assert!(node.keva_port != 0 && node.user_port != 0);
        assert!((ELECTION_TIMEOUT_MS_MIN..=ELECTION_TIMEOUT_MS_MAX).contains(&node.wait_time_ms));
        assert!(!node.bind_addresses.is_empty());
        let interval = config.heartbeat_interval_ms();
        assert!(interval >= 1 && interval * HEARTBEATS_PER_ELECTION_TIMEOUT <= node.wait_time_ms);
    }
    let limits = &config.limits;
    let client_times = CLIENT_TIMEOUT_MS_MIN..=CLIENT_TIMEOUT_MS_MAX;
    assert!((1..=VALUE_BYTES_MAX).contains(&limits.value_bytes_max));
    assert!((1..=CLIENT_CONNECTIONS_MAX).contains(&limits.client_connections_max));
    assert!((REQUEST_TIMEOUT_MS_MIN..=REQUEST_TIMEOUT_MS_MAX).contains(&limits.request_timeout_ms));
    assert!(client_times.contains(&limits.idle_timeout_ms));
    assert!(client_times.contains(&limits.head_timeout_ms));
    assert!(client_times.contains(&limits.stall_timeout_ms));
    assert!((HISTORY_BYTES_MIN..=HISTORY_BYTES_MAX).contains(&limits.history_bytes));
    let segment = config.storage.segment_bytes;
    assert!((SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&segment));
    assert!(segment.is_multiple_of(SEGMENT_BYTES_UNIT));
    let log = config.storage.snapshot_log_bytes;
    assert!((SNAPSHOT_LOG_BYTES_MIN..=SNAPSHOT_LOG_BYTES_MAX).contains(&log));
}

fn one(rng: &mut Rng, corpus: &[Vec<u8>]) -> bool {
    let path = Path::new("keva.toml");
    let bytes = input(rng, corpus, &WORDS);
    let Ok(text) = String::from_utf8(bytes) else { return false };
    let parsed = bounded(text.len(), COST_PER_BYTE, 64 << 10, || Config::parse(&text, path));
    match parsed {
        Ok(config) => {
            check(&config);
            let again = render(&config);
            assert_eq!(Config::parse(&again, path), Ok(config), "{again}");
            true
        }
        Err(error) => {
            let message = error.to_string();
            assert!(message.contains("keva.toml"), "{message:?}");
            assert!(!message.contains('\n') && message.len() < 2_000, "one line: {message:?}");
            assert!(error.line.is_none_or(|line| line >= 1 && line <= text.split('\n').count()), "{error:?}");
            false
        }
    }
}

/// A file is refused with a message of one line, or every rule holds.
#[test]
fn config_file() {
    let sample = include_str!("../../keva.toml");
    let bare: String =
        sample.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect();
    let corpus = [SMALL.into(), SMALL.into(), bare.into_bytes(), sample.as_bytes().to_vec()];
    drive("config_file", 3, |rng| {
        // The sample with its comments is long, and what is in the comments is not parsed.
        let corpus = if one_in(rng, 20) { &corpus[..] } else { &corpus[..3] };
        one(rng, corpus)
    });
}
