//! What can be wrong with a configuration. Each message is one line: the place, the rule and what to do.

use std::fmt;
use std::path::{Path, PathBuf};

use super::address::AddressProblem;
use super::units::UnitError;
use crate::limits::{CONFIG_FILE_BYTES_MAX, NODES_MAX};

/// Most characters of a wrong value that a message repeats.
const SHOWN_CHARACTERS_MAX: usize = 40;

/// A broken rule and its place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigError {
    /// The file, unless the command line is at fault.
    pub path: Option<PathBuf>,
    /// The line of the file, from 1, where it is known.
    pub line: Option<usize>,
    /// The `[[node]]` table: its identity, or its number when it has no valid one.
    pub node: Option<String>,
    /// The rule. In a box because results with an error inside are passed around.
    pub problem: Box<ConfigProblem>,
}

/// A broken rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ConfigProblem {
    /// The file cannot be opened or read.
    Unreadable {
        /// The system's words.
        reason: String,
    },
    /// The file has more than `CONFIG_FILE_BYTES_MAX` bytes.
    FileTooLong,
    /// The file is no TOML, or a value has the wrong type.
    Malformed {
        /// The parser's words.
        reason: String,
    },
    /// The file has a setting that does not exist.
    SettingUnknown {
        /// As written.
        name: String,
        /// The settings that exist there.
        known: Vec<String>,
    },
    /// A `[[node]]` table lacks a setting that has no default.
    SettingMissing {
        /// Which one.
        setting: &'static str,
        /// An example.
        example: &'static str,
    },
    /// There is no `[[node]]` table.
    NodesMissing,
    /// There are more than `NODES_MAX` nodes.
    NodesTooMany {
        /// How many there are.
        count: usize,
    },
    /// An identity, or the cluster's name, is empty.
    NameEmpty {
        /// The setting.
        setting: &'static str,
    },
    /// An identity, or the cluster's name, is too long.
    NameTooLong {
        /// The setting.
        setting: &'static str,
        /// Its length in bytes.
        length: usize,
        /// The longest allowed.
        longest: usize,
    },
    /// An identity, or the cluster's name, has a character that could be misread in a log, a header or a shell.
    NameCharacter {
        /// The setting.
        setting: &'static str,
        /// As written.
        name: String,
        /// The first character that is not allowed.
        character: char,
    },
    /// Two nodes have the same identity.
    IdentityDuplicate {
        /// The line of the first of them.
        first_line: usize,
    },
    /// Two identities have the same hash, or one has the hash 0, which means "no node".
    IdentityCollision {
        /// The other one, if there is one.
        other: Option<String>,
    },
    /// No node has the identity that this process was given.
    IdentityUnknown {
        /// The identity.
        identity: String,
        /// Whether nobody gave it and the host's name was taken.
        from_host_name: bool,
        /// The identities that exist.
        known: Vec<String>,
    },
    /// An address that no node can have.
    Address {
        /// As written.
        text: String,
        /// What is wrong with it.
        problem: AddressProblem,
    },
    /// An address to listen on that is no IP address.
    BindAddress {
        /// As written.
        text: String,
    },
    /// Two listening sockets would need the same port of the same address.
    PortTaken {
        /// The setting of the second.
        setting: &'static str,
        /// The port.
        port: u16,
        /// The address.
        address: String,
        /// The identity of the first.
        other_node: String,
        /// The setting of the first.
        other_setting: &'static str,
    },
    /// A value that is no number, duration or size.
    Value {
        /// The setting.
        setting: &'static str,
        /// As written.
        text: String,
        /// What is wrong with it.
        problem: UnitError,
        /// The values that are allowed.
        range: String,
    },
    /// A number outside its range.
    OutOfRange {
        /// The setting.
        setting: &'static str,
        /// As written.
        text: String,
        /// The values that are allowed.
        range: String,
    },
}

impl ConfigError {
    /// A problem of a whole file.
    pub(super) fn in_file(path: &Path, problem: ConfigProblem) -> ConfigError {
        ConfigError { path: Some(path.to_owned()), line: None, node: None, problem: Box::new(problem) }
    }

    /// A problem of the command line.
    pub(super) fn outside_files(problem: ConfigProblem) -> ConfigError {
        ConfigError { path: None, line: None, node: None, problem: Box::new(problem) }
    }
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(path) = &self.path {
            write!(f, "{}", path.display())?;
            if let Some(line) = self.line {
                write!(f, ":{line}")?;
            }
            f.write_str(": ")?;
        }
        if let Some(node) = &self.node {
            write!(f, "node {node}: ")?;
        }
        self.problem.fmt(f)
    }
}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigProblem::Unreadable { reason } => {
                write!(f, "cannot read the configuration file: {reason}; check --config-file")
            }
            ConfigProblem::FileTooLong => {
                write!(f, "longer than {CONFIG_FILE_BYTES_MAX} bytes; is this a configuration file?")
            }
            ConfigProblem::Malformed { reason } => write!(f, "{reason}"),
            ConfigProblem::SettingUnknown { name, known } => fmt_unknown_setting(f, name, known),
            ConfigProblem::SettingMissing { setting, example } => {
                write!(f, "{setting} is missing; add a line such as {setting} = {example}")
            }
            ConfigProblem::NodesMissing => f.write_str(
                "no nodes; add a [[node]] table with identity, address, keva_port and user_port for each node",
            ),
            ConfigProblem::NodesTooMany { count } => {
                write!(f, "{count} nodes; a cluster has at most {NODES_MAX}, and 3 or 5 serve best")
            }
            ConfigProblem::NameEmpty { setting } => write!(f, "{setting} is empty; give it a name"),
            ConfigProblem::NameTooLong { setting, length, longest } => {
                write!(f, "{setting} has {length} bytes; shorten it to {longest} at most")
            }
            ConfigProblem::NameCharacter { setting, name, character } => write!(
                f,
                "{setting} {} contains {character:?}; use letters, digits, dots, dashes and underscores",
                shown(name)
            ),
            ConfigProblem::IdentityDuplicate { first_line } => {
                write!(f, "line {first_line} has the same identity; give every node its own")
            }
            ConfigProblem::IdentityCollision { other } => fmt_collision(f, other.as_deref()),
            ConfigProblem::IdentityUnknown { identity, from_host_name, known } => {
                fmt_unknown_identity(f, identity, *from_host_name, known)
            }
            ConfigProblem::Address { text, problem } => write!(f, "address {}{problem}", shown(text)),
            ConfigProblem::BindAddress { text } => write!(
                f,
                "bind_address {} is not an IP address; give one of this host's, or '0.0.0.0' for all",
                shown(text)
            ),
            ConfigProblem::PortTaken { setting, port, address, other_node, other_setting } => write!(
                f,
                "{setting} {port} is already the {other_setting} of {other_node} at {address}; use another port"
            ),
            ConfigProblem::Value { setting, text, problem, range } => {
                write!(f, "{setting} {} {problem}; {range}", shown(text))
            }
            ConfigProblem::OutOfRange { setting, text, range } => {
                write!(f, "{setting} {} is out of range; {range}", shown(text))
            }
        }
    }
}

impl fmt::Display for AddressProblem {
    /// Goes on where the address ended.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AddressProblem::Wildcard => {
                " is no address to reach a node; give the one that the other nodes connect to, and to choose where \
                 this node listens, use bind_address"
            }
            AddressProblem::Group => " means many hosts; give the address of this one node",
            AddressProblem::Port => {
                " must be an IP address or a host name alone, without brackets; ports go into keva_port and user_port"
            }
            AddressProblem::Malformed => " is neither an IP address nor a host name; correct it",
        })
    }
}

fn fmt_unknown_setting(f: &mut fmt::Formatter<'_>, name: &str, known: &[String]) -> fmt::Result {
    write!(f, "unknown setting {}; ", shown(name))?;
    match nearest(name, known) {
        Some(nearest) => write!(f, "did you mean {nearest}?"),
        None => write!(f, "there are {}", known.join(", ")),
    }
}

fn fmt_collision(f: &mut fmt::Formatter<'_>, other: Option<&str>) -> fmt::Result {
    match other {
        Some(other) => write!(f, "its identity has the same hash as {other}; change one of the two"),
        None => f.write_str("its identity has the reserved hash 0; change it"),
    }
}

fn fmt_unknown_identity(
    f: &mut fmt::Formatter<'_>,
    identity: &str,
    from_host_name: bool,
    known: &[String],
) -> fmt::Result {
    write!(f, "there is no node {}", shown(identity))?;
    if from_host_name {
        f.write_str(" (the name of this host)")?;
    }
    if let Some(nearest) = nearest(identity, known) {
        write!(f, ", did you mean {nearest}?")?;
    }
    write!(
        f,
        "; choose one of {} with --node-identity (or KEVA_NODE_IDENTITY), or add a [[node]] table for it",
        known.join(", ")
    )
}

/// A value from outside in quotes, on one line and not too long.
fn shown(text: &str) -> String {
    let mut characters = text.chars();
    let start: String = characters.by_ref().take(SHOWN_CHARACTERS_MAX).collect();
    let more = if characters.next().is_some() { "..." } else { "" };
    format!("'{}{more}'", start.escape_debug().to_string().replace("\\'", "'"))
}

/// The known name that was probably meant: at most a third of its characters differ.
fn nearest<'a>(name: &str, known: &'a [String]) -> Option<&'a str> {
    known
        .iter()
        .map(|candidate| (distance(name, candidate), candidate))
        .filter(|(distance, candidate)| *distance * 3 <= candidate.chars().count())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate.as_str())
}

/// How many characters must be inserted, deleted or replaced to turn `a` into `b` (Levenshtein). Upper and lower
/// case are the same.
fn distance(a: &str, b: &str) -> usize {
    let plain = |text: &str| -> Vec<char> {
        let start = text.chars().take(SHOWN_CHARACTERS_MAX);
        start.map(|c| c.to_ascii_lowercase()).collect()
    };
    let (a, b) = (plain(a), plain(b));
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
