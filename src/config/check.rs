//! From a file as written to a [`Config`] in which every rule holds.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Range;
use std::path::Path;

use toml::Spanned;

use super::address::Address;
use super::error::{ConfigError, ConfigProblem};
use super::file::{File, Limits, Node, Scalar, Storage};
use super::node::NodeConfig;
use super::settings::{LimitSettings, StorageSettings};
use super::units::{UnitError, parse_bytes, parse_duration_ms, show_bytes, show_duration_ms};
use super::{Config, node_id};
use crate::limits::{
    CLIENT_CONNECTIONS_MAX, CLIENT_TIMEOUT_MS_MAX, CLIENT_TIMEOUT_MS_MIN, CLUSTER_NAME_BYTES_MAX,
    ELECTION_TIMEOUT_MS_DEFAULT, ELECTION_TIMEOUT_MS_MAX, ELECTION_TIMEOUT_MS_MIN, HISTORY_BYTES_MAX,
    HISTORY_BYTES_MIN, IDENTITY_BYTES_MAX, NODES_MAX, REQUEST_TIMEOUT_MS_MAX, REQUEST_TIMEOUT_MS_MIN,
    SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, SEGMENT_BYTES_UNIT, SNAPSHOT_LOG_BYTES_MAX, SNAPSHOT_LOG_BYTES_MIN,
    VALUE_BYTES_MAX,
};
use crate::raft::types::NodeId;

/// A file's text and its name.
pub(super) struct Source<'a> {
    pub(super) text: &'a str,
    pub(super) path: &'a Path,
}

/// How a setting's text becomes a number.
type Parse = fn(&str) -> Result<u64, UnitError>;

/// A numeric setting: its name, the numbers that are allowed and how they are written.
struct Rule {
    setting: &'static str,
    allowed: std::ops::RangeInclusive<u64>,
    parse: Parse,
    show: fn(u64) -> String,
}

impl Source<'_> {
    fn error(&self, span: Range<usize>, problem: ConfigProblem) -> ConfigError {
        let line = Some(self.line(span));
        ConfigError { path: Some(self.path.to_owned()), line, node: None, problem: Box::new(problem) }
    }

    /// The line, from 1, where `span` starts.
    fn line(&self, span: Range<usize>) -> usize {
        let before = self.text.as_bytes().get(..span.start).unwrap_or(self.text.as_bytes());
        before.iter().filter(|byte| **byte == b'\n').count() + 1
    }

    /// What the parser says, on one line. Its list of the known settings is turned into a suggestion.
    fn parse_error(&self, error: &toml::de::Error) -> ConfigError {
        let message = error.message();
        let problem = if message.starts_with("unknown field") {
            let mut names = message.split('`').skip(1).step_by(2).map(str::to_owned);
            ConfigProblem::SettingUnknown { name: names.next().unwrap_or_default(), known: names.collect() }
        } else if message == "invalid type: map, expected a sequence" {
            // `node` is the only list of tables.
            let reason = "a node's table begins with [[node]], with two brackets on each side".into();
            ConfigProblem::Malformed { reason }
        } else {
            ConfigProblem::Malformed { reason: message.replace('\n', ", ") }
        };
        match error.span() {
            Some(span) => self.error(span, problem),
            None => ConfigError::in_file(self.path, problem),
        }
    }

    /// The number that a setting has, or `default` when the file does not say.
    fn number(
        &self,
        rule: &Rule,
        scalar: Option<&Spanned<Scalar>>,
        default: u64,
    ) -> Result<u64, ConfigError> {
        let Some(scalar) = scalar else { return Ok(default) };
        rule.check(&scalar.get_ref().0).map_err(|problem| self.error(scalar.span(), problem))
    }

    /// As [`Source::number`], for settings that count things in memory.
    fn count(
        &self,
        rule: &Rule,
        scalar: Option<&Spanned<Scalar>>,
        default: usize,
    ) -> Result<usize, ConfigError> {
        let number = self.number(rule, scalar, default as u64)?;
        Ok(usize::try_from(number).expect("the largest allowed number is a usize constant"))
    }
}

impl Rule {
    fn duration(setting: &'static str, lowest: u64, highest: u64) -> Rule {
        Rule { setting, allowed: lowest..=highest, parse: parse_duration_ms, show: show_duration_ms }
    }

    fn bytes(setting: &'static str, lowest: u64, highest: u64) -> Rule {
        Rule { setting, allowed: lowest..=highest, parse: parse_bytes, show: show_bytes }
    }

    fn plain(setting: &'static str, lowest: u64, highest: u64) -> Rule {
        Rule { setting, allowed: lowest..=highest, parse: parse_plain, show: |number| number.to_string() }
    }

    fn check(&self, text: &str) -> Result<u64, ConfigProblem> {
        let (setting, range) = (self.setting, self.range());
        match (self.parse)(text) {
            Ok(number) if self.allowed.contains(&number) => Ok(number),
            // A minus sign is no unit, but the range says more than "malformed".
            Err(UnitError::Malformed) if is_negative(text) => {
                Err(ConfigProblem::OutOfRange { setting, text: text.to_owned(), range })
            }
            Ok(_) | Err(UnitError::TooLarge) => {
                Err(ConfigProblem::OutOfRange { setting, text: text.to_owned(), range })
            }
            Err(problem) => Err(ConfigProblem::Value { setting, text: text.to_owned(), problem, range }),
        }
    }

    fn range(&self) -> String {
        format!("use {} to {}", (self.show)(*self.allowed.start()), (self.show)(*self.allowed.end()))
    }
}

/// A whole number without a unit.
fn parse_plain(text: &str) -> Result<u64, UnitError> {
    let text = text.trim();
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(UnitError::Malformed);
    }
    text.parse().map_err(|_| UnitError::TooLarge)
}

fn is_negative(text: &str) -> bool {
    text.trim().strip_prefix('-').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// Checks a whole file.
pub(super) fn check(source: &Source<'_>) -> Result<Config, ConfigError> {
    let file: File = toml::from_str(source.text).map_err(|error| source.parse_error(&error))?;
    let config = Config {
        cluster: check_cluster_name(source, file.cluster.as_ref())?,
        nodes: check_nodes(source, &file.node)?,
        limits: check_limits(source, &file.limits)?,
        storage: check_storage(source, &file.storage)?,
    };
    Ok(config)
}

/// Checks a name that will be an identity.
pub(super) fn check_identity(identity: &str) -> Result<(), ConfigProblem> {
    check_name("identity", identity, IDENTITY_BYTES_MAX)
}

fn check_name(setting: &'static str, name: &str, longest: usize) -> Result<(), ConfigProblem> {
    if name.is_empty() {
        return Err(ConfigProblem::NameEmpty { setting });
    }
    if name.len() > longest {
        return Err(ConfigProblem::NameTooLong { setting, length: name.len(), longest });
    }
    let is_allowed = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    match name.chars().find(|c| !is_allowed(c)) {
        Some(character) => Err(ConfigProblem::NameCharacter { setting, name: name.to_owned(), character }),
        None => Ok(()),
    }
}

fn check_cluster_name(
    source: &Source<'_>,
    name: Option<&Spanned<String>>,
) -> Result<Option<String>, ConfigError> {
    let Some(name) = name else { return Ok(None) };
    check_name("cluster", name.get_ref(), CLUSTER_NAME_BYTES_MAX)
        .map_err(|problem| source.error(name.span(), problem))?;
    Ok(Some(name.get_ref().clone()))
}

fn check_nodes(source: &Source<'_>, tables: &[Spanned<Node>]) -> Result<Vec<NodeConfig>, ConfigError> {
    if tables.is_empty() {
        return Err(ConfigError::in_file(source.path, ConfigProblem::NodesMissing));
    }
    if tables.len() > NODES_MAX {
        let extra = tables[NODES_MAX].span();
        return Err(source.error(extra, ConfigProblem::NodesTooMany { count: tables.len() }));
    }
    let mut seen = Seen::default();
    let mut nodes = Vec::with_capacity(tables.len());
    for (position, table) in tables.iter().enumerate() {
        let identity = table.get_ref().identity.as_ref().map(Spanned::get_ref);
        let label = match identity {
            Some(identity) if check_identity(identity).is_ok() => identity.clone(),
            _ => format!("{} in the file", position + 1),
        };
        let node = check_node(source, table, &mut seen);
        nodes.push(node.map_err(|error| ConfigError { node: Some(label), ..error })?);
    }
    Ok(nodes)
}

/// What the nodes before this one have taken.
#[derive(Default)]
struct Seen {
    /// The identity and its line, for each id.
    identities: BTreeMap<NodeId, (String, usize)>,
    /// The identity and the setting, for each port of each address.
    ports: BTreeMap<(Address, u16), (String, &'static str)>,
}

fn check_node(
    source: &Source<'_>,
    table: &Spanned<Node>,
    seen: &mut Seen,
) -> Result<NodeConfig, ConfigError> {
    let node = table.get_ref();
    let missing =
        |setting, example| source.error(table.span(), ConfigProblem::SettingMissing { setting, example });
    let identity = node.identity.as_ref().ok_or_else(|| missing("identity", "'host1'"))?;
    let id = check_identity_unique(source, identity, seen)?;
    let address_text = node.address.as_ref().ok_or_else(|| missing("address", "'192.168.1.11'"))?;
    let address = check_address(source, address_text)?;
    let keva_port = node.keva_port.as_ref().ok_or_else(|| missing("keva_port", "8370"))?;
    let user_port = node.user_port.as_ref().ok_or_else(|| missing("user_port", "8380"))?;
    let mut port = |setting, scalar| check_port(source, seen, identity.get_ref(), &address, setting, scalar);
    let wait_time = Rule::duration("wait_time", ELECTION_TIMEOUT_MS_MIN, ELECTION_TIMEOUT_MS_MAX);
    Ok(NodeConfig {
        identity: identity.get_ref().clone(),
        id,
        keva_port: port("keva_port", keva_port)?,
        user_port: port("user_port", user_port)?,
        wait_time_ms: source.number(&wait_time, node.wait_time.as_ref(), ELECTION_TIMEOUT_MS_DEFAULT)?,
        bind_addresses: check_bind_address(source, node.bind_address.as_ref(), &address)?,
        address: address.to_string(),
    })
}

fn check_identity_unique(
    source: &Source<'_>,
    identity: &Spanned<String>,
    seen: &mut Seen,
) -> Result<NodeId, ConfigError> {
    let name = identity.get_ref();
    check_identity(name).map_err(|problem| source.error(identity.span(), problem))?;
    let id = node_id(name);
    if id == NodeId(0) {
        return Err(source.error(identity.span(), ConfigProblem::IdentityCollision { other: None }));
    }
    let line = source.line(identity.span());
    match seen.identities.insert(id, (name.clone(), line)) {
        None => Ok(id),
        Some((other, first_line)) if other == *name => {
            Err(source.error(identity.span(), ConfigProblem::IdentityDuplicate { first_line }))
        }
        Some((other, _)) => {
            Err(source.error(identity.span(), ConfigProblem::IdentityCollision { other: Some(other) }))
        }
    }
}

fn check_address(source: &Source<'_>, address: &Spanned<String>) -> Result<Address, ConfigError> {
    Address::parse(address.get_ref()).map_err(|problem| {
        source.error(address.span(), ConfigProblem::Address { text: address.get_ref().clone(), problem })
    })
}

/// A host name is refused: it may change its meaning, and a listening socket would not follow.
fn check_bind_address(
    source: &Source<'_>,
    bind_address: Option<&Spanned<String>>,
    address: &Address,
) -> Result<Vec<IpAddr>, ConfigError> {
    let Some(bind_address) = bind_address else { return Ok(address.bind_addresses()) };
    let text = bind_address.get_ref();
    let ip = if text == "localhost" { "127.0.0.1" } else { text };
    match ip.parse::<IpAddr>() {
        Ok(ip) => Ok(vec![ip]),
        Err(_) => Err(source.error(bind_address.span(), ConfigProblem::BindAddress { text: text.clone() })),
    }
}

fn check_port(
    source: &Source<'_>,
    seen: &mut Seen,
    identity: &str,
    address: &Address,
    setting: &'static str,
    scalar: &Spanned<Scalar>,
) -> Result<u16, ConfigError> {
    let rule = Rule::plain(setting, 1, u64::from(u16::MAX));
    let number = source.number(&rule, Some(scalar), 0)?;
    let port = u16::try_from(number).expect("the rule allows no larger port");
    match seen.ports.insert((address.clone(), port), (identity.to_owned(), setting)) {
        None => Ok(port),
        Some((other_node, other_setting)) => {
            let address = address.to_string();
            let problem = ConfigProblem::PortTaken { setting, port, address, other_node, other_setting };
            Err(source.error(scalar.span(), problem))
        }
    }
}

fn check_limits(source: &Source<'_>, limits: &Limits) -> Result<LimitSettings, ConfigError> {
    let default = LimitSettings::default();
    let client_time = |setting, scalar: &Option<Spanned<Scalar>>, default| {
        let rule = Rule::duration(setting, CLIENT_TIMEOUT_MS_MIN, CLIENT_TIMEOUT_MS_MAX);
        source.number(&rule, scalar.as_ref(), default)
    };
    let value_size = Rule::bytes("max_value_size", 1, VALUE_BYTES_MAX as u64);
    let connections = Rule::plain("client_connections", 1, CLIENT_CONNECTIONS_MAX as u64);
    let request_time = Rule::duration("request_timeout", REQUEST_TIMEOUT_MS_MIN, REQUEST_TIMEOUT_MS_MAX);
    let request = limits.request_timeout.as_ref();
    let history = Rule::bytes("history_size", HISTORY_BYTES_MIN as u64, HISTORY_BYTES_MAX as u64);
    Ok(LimitSettings {
        value_bytes_max: source.count(
            &value_size,
            limits.max_value_size.as_ref(),
            default.value_bytes_max,
        )?,
        client_connections_max: source.count(
            &connections,
            limits.client_connections.as_ref(),
            default.client_connections_max,
        )?,
        request_timeout_ms: source.number(&request_time, request, default.request_timeout_ms)?,
        idle_timeout_ms: client_time("idle_timeout", &limits.idle_timeout, default.idle_timeout_ms)?,
        head_timeout_ms: client_time("head_timeout", &limits.head_timeout, default.head_timeout_ms)?,
        stall_timeout_ms: client_time("stall_timeout", &limits.stall_timeout, default.stall_timeout_ms)?,
        history_bytes: source.count(&history, limits.history_size.as_ref(), default.history_bytes)?,
    })
}

fn check_storage(source: &Source<'_>, storage: &Storage) -> Result<StorageSettings, ConfigError> {
    let default = StorageSettings::default();
    let log = Rule::bytes("snapshot_log_size", SNAPSHOT_LOG_BYTES_MIN, SNAPSHOT_LOG_BYTES_MAX);
    Ok(StorageSettings {
        segment_bytes: check_segment_size(source, storage.segment_size.as_ref(), default.segment_bytes)?,
        snapshot_log_bytes: source.number(
            &log,
            storage.snapshot_log_size.as_ref(),
            default.snapshot_log_bytes,
        )?,
    })
}

fn check_segment_size(
    source: &Source<'_>,
    scalar: Option<&Spanned<Scalar>>,
    default: usize,
) -> Result<usize, ConfigError> {
    let rule = Rule::bytes("segment_size", SEGMENT_BYTES_MIN as u64, SEGMENT_BYTES_MAX as u64);
    let segment_bytes = source.count(&rule, scalar, default)?;
    match scalar {
        Some(scalar) if !segment_bytes.is_multiple_of(SEGMENT_BYTES_UNIT) => {
            let range = format!("use a multiple of {}", show_bytes(SEGMENT_BYTES_UNIT as u64));
            let text = scalar.get_ref().0.clone();
            Err(source.error(scalar.span(), ConfigProblem::OutOfRange { setting: rule.setting, text, range }))
        }
        _ => Ok(segment_bytes),
    }
}
