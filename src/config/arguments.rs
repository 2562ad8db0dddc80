//! The command line and its environment variables.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use super::WORKING_DIRECTORY_DEFAULT;

const EXAMPLES: &str = "\
Examples:
  A first try, on this host only:
    keva
    curl -d hello http://127.0.0.1:8380/v1/storage/key/greeting
    curl http://127.0.0.1:8380/v1/storage/key/greeting

  One node of a cluster; start one process for each [[node]] in the file:
    keva --config-file keva.toml --node-identity host1 --working-directory ./workdir1

  Look whether the files of a stopped node are sound:
    keva check --working-directory ./workdir1

  The same node with environment variables, for service managers and containers:
    KEVA_CONFIG_FILE=/etc/keva.toml KEVA_WORKING_DIRECTORY=/var/lib/keva keva

Exit codes:
  0  stopped as asked (SIGTERM or SIGINT)
  1  failed while running; keva check: the files are not sound
  2  wrong usage, configuration or storage: nothing was started or checked";

/// A replicated, linearizable key-value store that people drive with curl.
///
/// Without a configuration file, runs a cluster of one node on 127.0.0.1 (clients on port 8380).
#[derive(Parser, Clone, PartialEq, Eq, Debug)]
#[command(name = "keva", version, after_help = EXAMPLES, max_term_width = 100)]
#[command(args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
pub struct Arguments {
    /// What to do. Without one, a node is run.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// The cluster's configuration, the same on every node
    #[arg(long, value_name = "FILE", env = "KEVA_CONFIG_FILE", hide_env_values = true)]
    pub config_file: Option<PathBuf>,

    /// Which node of the file this is [default: the name of this host]
    #[arg(long, value_name = "IDENTITY", env = "KEVA_NODE_IDENTITY", hide_env_values = true)]
    pub node_identity: Option<String>,

    /// Where this node keeps its data; created if missing
    #[arg(
        long,
        value_name = "DIRECTORY",
        env = "KEVA_WORKING_DIRECTORY",
        hide_env_values = true,
        default_value = WORKING_DIRECTORY_DEFAULT
    )]
    pub working_directory: PathBuf,

    /// What to log to standard error: off, error, warn, info, debug, or for parts such as info,raft=debug
    #[arg(long, value_name = "LEVEL", env = "KEVA_LOG", hide_env_values = true, default_value = "info")]
    pub log_level: String,
}

/// What else the program does.
#[derive(Subcommand, Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// Read all files of a stopped node and say whether they are sound; nothing is changed
    Check(CheckArguments),
}

/// What `keva check` is told.
#[derive(Args, Clone, PartialEq, Eq, Debug)]
pub struct CheckArguments {
    /// Where the node keeps its data
    #[arg(
        long,
        value_name = "DIRECTORY",
        env = "KEVA_WORKING_DIRECTORY",
        hide_env_values = true,
        default_value = WORKING_DIRECTORY_DEFAULT
    )]
    pub working_directory: PathBuf,

    /// List every entry of the log
    #[arg(long)]
    pub verbose: bool,
}

impl Arguments {
    /// Reads a command line, whose first word is the program's own name, and the environment.
    ///
    /// # Errors
    /// When the program should end at once, also because help or the version was asked for.
    pub fn read(words: impl IntoIterator<Item = OsString>) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(words)
    }
}

/// The explanation and the hints of a usage error on one line, without the usage that `--help` shows better.
#[must_use]
pub fn usage_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let lines = text.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:"));
    let parts: Vec<&str> = lines
        .filter(|line| !line.is_empty() && !line.starts_with("For more information"))
        .map(|line| line.strip_prefix("error: ").or(line.strip_prefix("tip: ")).unwrap_or(line))
        .collect();
    format!("{}; see keva --help", parts.join("; "))
}
