//! Configuration files: what loads, what every broken rule says, and that the sample file tells the truth.

#[path = "support/original.rs"]
mod original;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use keva::config::units::{UnitError, parse_bytes, parse_duration_ms, show_bytes, show_duration_ms};
use keva::config::{Config, LimitSettings, StorageSettings, node_id};
use keva::limits;
use original::ORIGINAL_CONFIGURATION;

/// Two good nodes, to be spoiled by replacing a part.
const GOOD: &str = "\
cluster = 'test'
[[node]]
identity = 'host1'
address = '10.0.0.1'
keva_port = 8370
user_port = 8380
wait_time = 3
[[node]]
identity = 'host2'
address = '10.0.0.2'
keva_port = 8370
user_port = 8380
wait_time = 3
";

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text, Path::new("keva.toml")).map_err(|error| error.to_string())
}

fn good(text: &str) -> Config {
    parse(text).unwrap_or_else(|error| panic!("{error}\nin\n{text}"))
}

/// The message for `GOOD` with `from` replaced by `to`.
fn spoiled(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "nothing to replace: {from}");
    let text = GOOD.replacen(from, to, 1);
    parse(&text).expect_err(&format!("this must be refused:\n{text}"))
}

fn sample() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/keva.toml")).expect("the sample is there")
}

#[test]
fn original_file_loads_verbatim() {
    let config = good(ORIGINAL_CONFIGURATION);
    let read: Vec<_> = config
        .nodes
        .iter()
        .map(|node| (node.identity.as_str(), node.keva_port, node.user_port, node.wait_time_ms))
        .collect();
    assert_eq!(read, [("host1", 370, 380, 5_000), ("host2", 371, 381, 4_000), ("host3", 372, 382, 3_000)]);
    assert!(config.nodes.iter().all(|node| node.bind_addresses == [IpAddr::V4(Ipv4Addr::LOCALHOST)]));
    assert_eq!(config.heartbeat_interval_ms(), 300, "a tenth of the smallest wait_time");
}

/// The most likely slip in TOML.
#[test]
fn a_node_table_in_single_brackets_is_explained() {
    let error = parse("\n[node]\nidentity = 'host1'\n").expect_err("it is no list of nodes");
    assert!(error.contains("keva.toml:2:") && error.contains("[[node]], with two brackets"), "{error}");
}

#[test]
fn each_broken_rule_says_where_and_what_to_do() {
    let long_name = "x".repeat(256);
    let long_identity = format!("identity = '{long_name}'");
    let id = "identity = 'host1'";
    let address = "address = '10.0.0.1'";
    let keva_port = "keva_port = 8370";
    let wait = "wait_time = 3";
    let cases: &[(&str, &str, &[&str])] = &[
        (id, "identity = ''", &["keva.toml:3: node 1 in the file: identity is empty; give"]),
        (id, &long_identity, &["keva.toml:3:", "256 bytes", "to 255 at most"]),
        (id, "identity = 'a b'", &["keva.toml:3:", "'a b' contains ' '", "use letters, digits"]),
        (id, "identity = 'a\\tb'", &["keva.toml:3:", "contains '\\\\'"]),
        (id, "identity = 'hôst'", &["'hôst' contains 'ô'"]),
        (id, "identity = 7", &["keva.toml:3:", "expected a string"]),
        (
            id,
            "",
            &["keva.toml:2: node 1 in the file: identity is missing; add a line such as identity = 'host1'"],
        ),
        (id, "identity = 'host2'", &["keva.toml:9: node host2:", "line 3 has the same identity", "its own"]),
        (address, "", &["keva.toml:2: node host1: address is missing; add a line"]),
        (
            address,
            "address = '0.0.0.0'",
            &["keva.toml:4: node host1:", "'0.0.0.0' is no address to reach", "bind_address"],
        ),
        (address, "address = '::'", &["no address to reach", "bind_address"]),
        (address, "address = '*'", &["no address to reach", "bind_address"]),
        (address, "address = '::ffff:0.0.0.0'", &["no address to reach"]),
        (address, "address = '0.0.0.1'", &["no address to reach"]),
        (address, "address = '224.0.0.1'", &["means many hosts"]),
        (address, "address = 'ff02::1'", &["means many hosts"]),
        (address, "address = '255.255.255.255'", &["means many hosts"]),
        (address, "address = '10.0.0.1:8370'", &["without brackets; ports go into keva_port and user_port"]),
        (address, "address = 'http://box'", &["ports go into keva_port"]),
        (address, "address = '[::1]'", &["without brackets"]),
        (address, "address = ''", &["'' is neither an IP address nor a host name"]),
        (address, "address = '10.0.0.256'", &["'10.0.0.256' is neither"]),
        (address, "address = 'a..b'", &["is neither"]),
        (address, "address = 'my host'", &["is neither"]),
        (address, "address = '-box'", &["is neither"]),
        (
            address,
            &format!("{address}\nbind_address = 'eth0'"),
            &["keva.toml:5: node host1: bind_address 'eth0' is not an IP", "0.0.0.0"],
        ),
        (keva_port, "", &["node host1: keva_port is missing; add a line such as keva_port = 8370"]),
        (
            keva_port,
            "keva_port = 0",
            &["keva.toml:5: node host1: keva_port '0' is out of range; use 1 to 65535"],
        ),
        (keva_port, "keva_port = 65536", &["'65536' is out of range; use 1 to 65535"]),
        (keva_port, "keva_port = -1", &["'-1' is out of range; use 1 to 65535"]),
        (keva_port, "keva_port = '99999999999999999999999'", &["is out of range; use 1 to 65535"]),
        (keva_port, "keva_port = 'http'", &["'http' is not a number", "use 1 to 65535"]),
        (keva_port, "keva_port = ''", &["'' is not a number"]),
        (keva_port, "keva_port = '+80'", &["'+80' is not a number"]),
        (keva_port, "keva_port = 80.5", &["'80.5' is not a number"]),
        (
            keva_port,
            "keva_port = true",
            &["keva.toml:5:", "boolean", "expected a number or a number in quotes"],
        ),
        (keva_port, "keva_port = [1]", &["keva.toml:5:", "expected a number"]),
        (
            keva_port,
            "keva_port = 8380",
            &[
                "keva.toml:6: node host1: user_port 8380 is already the keva_port of host1 at 10.0.0.1; use another",
            ],
        ),
        (
            keva_port,
            "keva_prot = 8370",
            &["keva.toml:5: unknown setting 'keva_prot'; did you mean keva_port?"],
        ),
        (keva_port, "keva-port = 8370", &["did you mean keva_port?"]),
        (keva_port, "KEVA_PORT = 8370", &["did you mean keva_port?"]),
        (
            keva_port,
            "colour = 'red'",
            &["keva.toml:5: unknown setting 'colour'; there are identity, address"],
        ),
        (keva_port, "keva_port = 1\nkeva_port = 2", &["keva.toml:6:", "duplicate key"]),
        ("user_port = 8380", "", &["node host1: user_port is missing"]),
        (wait, "wait_time = 0", &["keva.toml:7: node host1: wait_time '0' is out of range; use 50ms to 5m"]),
        (wait, "wait_time = '0.049'", &["'0.049' is out of range; use 50ms to 5m"]),
        (wait, "wait_time = 300.001", &["is out of range; use 50ms to 5m"]),
        (wait, "wait_time = -3", &["'-3' is out of range"]),
        (wait, "wait_time = -0.5", &["'-0.5' is out of range"]),
        (wait, "wait_time = '1.0005'", &["'1.0005' is finer than", "use 50ms to 5m"]),
        (wait, "wait_time = 'soon'", &["'soon' is not a number with a known unit; use 50ms to 5m"]),
        (wait, "wait_time = nan", &["'NaN' is not a number"]),
        (wait, "wait_time = inf", &["is not a number"]),
        (wait, "wait_time = '5 parsecs'", &["'5 parsecs' is not a number with a known unit"]),
        ("cluster = 'test'", "cluster = ''", &["keva.toml:1: cluster is empty"]),
        ("cluster = 'test'", "cluster = 'a/b'", &["keva.toml:1: cluster 'a/b' contains '/'"]),
        (
            "cluster = 'test'",
            "clustre = 'test'",
            &["keva.toml:1: unknown setting 'clustre'; did you mean cluster?"],
        ),
        ("cluster = 'test'", "[limit]", &["keva.toml:1: unknown setting 'limit'; did you mean limits?"]),
        ("cluster = 'test'", "[limits]\nmax_value = '1MiB'", &["keva.toml:2: unknown setting 'max_value'"]),
        (
            "cluster = 'test'",
            "[limits]\nmax_value_size = 0",
            &["keva.toml:2: max_value_size '0' is out of range; use 1B to 16MiB"],
        ),
        ("cluster = 'test'", "[limits]\nmax_value_size = '17MiB'", &["use 1B to 16MiB"]),
        (
            "cluster = 'test'",
            "[limits]\nmax_value_size = '1MB'",
            &["'1MB' has an ambiguous unit: write KiB, MiB"],
        ),
        (
            "cluster = 'test'",
            "[limits]\nclient_connections = 0",
            &["client_connections '0' is out of range; use 1 to 65536"],
        ),
        (
            "cluster = 'test'",
            "[limits]\nrequest_timeout = 0",
            &["request_timeout '0' is out of range; use 10ms to 5m"],
        ),
        (
            "cluster = 'test'",
            "[limits]\nidle_timeout = '2h'",
            &["idle_timeout '2h' is out of range; use 100ms to 1h"],
        ),
        ("cluster = 'test'", "[limits]\nhead_timeout = 0", &["head_timeout '0' is out of range"]),
        ("cluster = 'test'", "[limits]\nstall_timeout = 0", &["stall_timeout '0' is out of range"]),
        (
            "cluster = 'test'",
            "[limits]\nhistory_size = '63KiB'",
            &["keva.toml:2: history_size '63KiB' is out of range; use 64KiB to 1GiB"],
        ),
        (
            "cluster = 'test'",
            "[limits]\nhistory_size = '2GiB'",
            &["history_size '2GiB' is out of range; use 64KiB to 1GiB"],
        ),
        (
            "cluster = 'test'",
            "[storage]\nsegment_size = '1KiB'",
            &["keva.toml:2: segment_size '1KiB' is out of range; use 1MiB to 256MiB"],
        ),
        (
            "cluster = 'test'",
            "[storage]\nsegment_size = 1048577",
            &["segment_size '1048577' is out of range; use a multiple of 4KiB"],
        ),
        (
            "cluster = 'test'",
            "[storage]\nsnapshot_log_size = '1000KiB'",
            &["keva.toml:2: snapshot_log_size '1000KiB' is out of range; use 1MiB to 64GiB"],
        ),
        (
            "cluster = 'test'",
            "[storage]\nsnapshot_log_size = '65GiB'",
            &["snapshot_log_size '65GiB' is out of range"],
        ),
        (
            "cluster = 'test'",
            "[storage]\nsnapshot_log_size = '8M'",
            &["snapshot_log_size '8M'", "ambiguous unit", "use 1MiB to 64GiB"],
        ),
        ("cluster = 'test'", "cluster = ", &["keva.toml:1:"]),
        ("[[node]]", "[node]", &["keva.toml:"]),
    ];
    for (from, to, parts) in cases {
        let message = spoiled(from, to);
        assert!(!message.contains('\n'), "more than one line: {message}");
        for part in *parts {
            assert!(message.contains(part), "for {to}\nthe message\n  {message}\nlacks\n  {part}");
        }
    }
}

#[test]
fn node_list_is_neither_empty_nor_too_long() {
    let message = parse("cluster = 'x'").expect_err("no nodes");
    assert!(message.contains("keva.toml: no nodes; add a [[node]] table"), "{message}");
    let nodes = |count: usize| -> String {
        (0..count)
            .map(|i| {
                format!("[[node]]\nidentity='n{i}'\naddress='10.0.0.{}'\nkeva_port=1\nuser_port=2\n", i + 1)
            })
            .collect()
    };
    let message = parse(&nodes(limits::NODES_MAX + 1)).expect_err("too many nodes");
    assert!(message.contains(":46: 10 nodes; a cluster has at most 9"), "{message}");
    for count in 1..=limits::NODES_MAX {
        assert_eq!(good(&nodes(count)).nodes.len(), count, "even counts are fine");
    }
}

#[test]
fn ports_are_compared_per_address() {
    // Two spellings of one address.
    for address in ["localhost", "LOCALHOST.", "127.0.0.1", "::ffff:127.0.0.1"] {
        let text = GOOD.replace("10.0.0.1", "127.0.0.1").replace("10.0.0.2", address);
        let message = parse(&text).expect_err("the ports are taken");
        let part =
            "node host2: keva_port 8370 is already the keva_port of host1 at 127.0.0.1; use another port";
        assert!(message.contains(part), "{address}: {message}");
    }
    let text = GOOD.replace("10.0.0.1", "Box.example").replace("10.0.0.2", "box.EXAMPLE.");
    assert!(
        parse(&text).expect_err("the same name").contains("already the keva_port of host1 at box.example")
    );
    // A keva_port against a user_port of another node.
    let text = GOOD.replace("10.0.0.2", "10.0.0.1").replacen("keva_port = 8370", "keva_port = 8390", 1);
    let message = parse(&text).expect_err("the user ports are equal");
    assert!(message.contains("user_port 8380 is already the user_port of host1"), "{message}");
    // The same port on two addresses of one host is fine.
    good(&GOOD.replace("10.0.0.1", "127.0.0.1").replace("10.0.0.2", "127.0.0.2"));
}

/// These two identities have the same 64-bit FNV-1a hash.
#[test]
fn identities_with_equal_hashes_are_refused() {
    let (one, other) = ("8yn0iYCKYHlIj4-BwPqk", "GReLUrM4wMqfg9yzV3KQ");
    assert_eq!(node_id(one), node_id(other), "they collide");
    let message = parse(&GOOD.replace("host1", one).replace("host2", other)).expect_err("they collide");
    assert!(message.contains(&format!("node {other}: its identity has the same hash as {one}")), "{message}");
    assert!(message.starts_with("keva.toml:9:"), "{message}");
}

#[test]
fn default_listening_addresses() {
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let all_v4 = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let all_v6 = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    let cases: &[(&str, &[IpAddr], &str)] = &[
        ("localhost", &[loopback], "127.0.0.1:8370"),
        ("127.0.0.1", &[loopback], "127.0.0.1:8370"),
        ("127.1.2.3", &[IpAddr::V4(Ipv4Addr::new(127, 1, 2, 3))], "127.1.2.3:8370"),
        ("::1", &[IpAddr::V6(Ipv6Addr::LOCALHOST)], "[::1]:8370"),
        ("192.168.1.11", &[all_v4], "192.168.1.11:8370"),
        ("fd00::11", &[all_v6], "[fd00::11]:8370"),
        ("box.example", &[all_v6, all_v4], "box.example:8370"),
        ("my_box", &[all_v6, all_v4], "my_box:8370"),
    ];
    for (address, bind_addresses, peer_address) in cases {
        let node = good(&GOOD.replacen("10.0.0.1", address, 1)).nodes.remove(0);
        assert_eq!(node.bind_addresses, *bind_addresses, "{address}");
        assert_eq!(node.peer_address(), *peer_address);
        assert_eq!(node.is_loopback(), bind_addresses[0].is_loopback(), "{address}");
    }
    for (bind_address, ip) in
        [("0.0.0.0", all_v4), ("10.0.0.1", "10.0.0.1".parse().unwrap()), ("localhost", loopback)]
    {
        let text = GOOD.replacen("keva_port", &format!("bind_address = '{bind_address}'\nkeva_port"), 1);
        assert_eq!(good(&text).nodes[0].bind_addresses, [ip]);
    }
}

#[test]
fn settings_are_read() {
    let config = good(&format!(
        "{GOOD}
        [limits]
        max_value_size = '512KiB'
        client_connections = '7'
        request_timeout = 2.5
        idle_timeout = '1h'
        head_timeout = '250ms'
        stall_timeout = 9
        history_size = '64KiB'
        [storage]
        segment_size = '1MiB'
        snapshot_log_size = '1.5GiB'"
    ));
    let limits = LimitSettings {
        value_bytes_max: 512 << 10,
        client_connections_max: 7,
        request_timeout_ms: 2_500,
        idle_timeout_ms: 3_600_000,
        head_timeout_ms: 250,
        stall_timeout_ms: 9_000,
        history_bytes: 64 << 10,
    };
    assert_eq!(config.limits, limits);
    assert_eq!(config.storage, StorageSettings { segment_bytes: 1 << 20, snapshot_log_bytes: 3 << 29 });
    assert_eq!(config.cluster.as_deref(), Some("test"));
}

#[test]
fn heartbeats_suit_the_least_patient_node() {
    let with = |wait: &str| good(&GOOD.replacen("wait_time = 3", &format!("wait_time = {wait}"), 1));
    assert_eq!(with("0.5").heartbeat_interval_ms(), 50);
    assert_eq!(with("'0.05'").heartbeat_interval_ms(), 5);
    assert_eq!(with("300").heartbeat_interval_ms(), 300, "the other node waits 3 s");
    let patient = good(&GOOD.replace("wait_time = 3", "wait_time = 300"));
    assert_eq!(patient.heartbeat_interval_ms(), limits::HEARTBEAT_INTERVAL_MS_MAX);
}

/// The sample's commented settings, uncommented.
fn uncommented(sample: &str) -> (String, Vec<String>) {
    let mut names = Vec::new();
    let lines = sample.lines().map(|line| match line.strip_prefix('#') {
        Some(setting) if setting.starts_with(|c: char| c.is_ascii_lowercase()) => {
            names.push(setting.split_once(" = ").expect("a setting has a value").0.to_owned());
            setting
        }
        _ => line,
    });
    let text = lines.collect::<Vec<_>>().join("\n");
    (text, names)
}

#[test]
fn sample_file_shows_the_defaults_and_every_setting() {
    let sample = sample();
    let config = good(&sample);
    let (text, names) = uncommented(&sample);
    assert_eq!(good(&text), config, "a commented default differs from the code's");
    assert_eq!(config.limits, LimitSettings::default());
    assert_eq!(config.storage, StorageSettings::default());
    // Every setting that the parser knows is in the sample, and every optional one is commented out.
    let mut shown = 0;
    for table in ["", "[[node]]\n", "[limits]\n", "[storage]\n"] {
        let message = parse(&format!("{table}qqqqqqqqqq = 1")).expect_err("there is no such setting");
        let known = message.split_once("there are ").expect("lists the known settings").1;
        for setting in known.split(", ") {
            let is_table = ["node", "limits", "storage"].contains(&setting);
            let is_required = ["identity", "address", "keva_port", "user_port"].contains(&setting);
            let has_no_default = setting == "cluster";
            let found = if is_table {
                sample.contains(&format!("[{setting}]"))
            } else if has_no_default {
                sample.contains(&format!("# Example: {setting} = "))
            } else {
                names.iter().any(|name| name == setting) != is_required
                    && text.contains(&format!("\n{setting} = "))
            };
            assert!(found, "the sample lacks {setting}");
            shown += 1;
        }
    }
    assert_eq!(shown, 4 + 6 + 7 + 2, "settings were lost on the way");
}

#[test]
fn sample_file_is_the_default_cluster_of_three() {
    let config = good(&sample());
    let one = Config::one_node("host1").expect("a good identity");
    assert_eq!(config.nodes.len(), 3);
    assert_eq!(config.nodes[0], one.nodes[0], "a node without a file is the first node of the sample");
    assert!(
        config.nodes.iter().all(|node| node.is_loopback() && node.keva_port > 1023 && node.user_port > 1023)
    );
}

#[test]
fn durations_and_sizes() {
    for (text, millis) in [
        ("5", 5_000),
        ("0.5", 500),
        (" 5 s ", 5_000),
        ("250ms", 250),
        ("1.5m", 90_000),
        ("2h", 7_200_000),
        ("0", 0),
        ("1.000000", 1_000),
        ("0.050", 50),
    ] {
        assert_eq!(parse_duration_ms(text), Ok(millis), "{text}");
    }
    for (text, bytes) in
        [("0", 0), ("12", 12), ("12B", 12), ("1KiB", 1024), ("1.5 mib", 3 << 19), ("2GiB", 2 << 30)]
    {
        assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
    }
    let tiny = format!("0.{}1", "0".repeat(60));
    for (text, error) in [
        ("", UnitError::Malformed),
        (".5", UnitError::Malformed),
        ("5.", UnitError::Malformed),
        ("1.2.3", UnitError::Malformed),
        ("1e3", UnitError::Malformed),
        ("5 s s", UnitError::Malformed),
        ("٣", UnitError::Malformed),
        ("0.5ms", UnitError::TooFine),
        (tiny.as_str(), UnitError::TooFine),
        ("18446744073709551615", UnitError::TooLarge),
        ("18446744073709551616", UnitError::TooLarge),
    ] {
        assert_eq!(parse_duration_ms(text), Err(error), "{text}");
    }
    assert_eq!(parse_bytes("1.5"), Err(UnitError::TooFine));
    assert_eq!(parse_bytes("1M"), Err(UnitError::AmbiguousUnit));
    for millis in [0, 1, 999, 1_000, 90_000, 7_200_000] {
        assert_eq!(parse_duration_ms(&show_duration_ms(millis)), Ok(millis));
    }
    for bytes in [0, 1, 1024, 1025, 3 << 19, 2 << 30] {
        assert_eq!(parse_bytes(&show_bytes(bytes)), Ok(bytes));
    }
}
