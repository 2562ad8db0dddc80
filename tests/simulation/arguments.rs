//! The command line.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::plan::{Class, Overrides};

/// What to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Arguments {
    /// A fixed set, as a test.
    pub(crate) is_test: bool,
    /// This one only.
    pub(crate) seed: Option<u64>,
    pub(crate) start: u64,
    pub(crate) seeds: u64,
    pub(crate) jobs: usize,
    pub(crate) is_tracing: bool,
    pub(crate) is_shrinking: bool,
    /// Whether every mark must be seen.
    pub(crate) wants_marks: bool,
    pub(crate) mutant: Option<String>,
    pub(crate) overrides: Overrides,
}

fn number<T: std::str::FromStr>(name: &str, value: Option<String>) -> Result<T, String> {
    let value = value.ok_or_else(|| format!("{name} takes a value"))?;
    value.parse().map_err(|_| format!("{name} takes a number, not {value}"))
}

impl Arguments {
    pub(crate) fn parse(words: impl Iterator<Item = String>) -> Result<Arguments, String> {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut arguments = Arguments {
            is_test: true,
            seed: None,
            start: since_epoch.as_nanos() as u64 % 1_000_000_000_000,
            seeds: 40,
            jobs: 1,
            is_tracing: false,
            is_shrinking: false,
            wants_marks: false,
            mutant: None,
            overrides: Overrides::default(),
        };
        let mut words = words;
        while let Some(word) = words.next() {
            let overrides = &mut arguments.overrides;
            arguments.is_test &= !word.starts_with("--");
            match word.as_str() {
                "--seed" => arguments.seed = Some(number(&word, words.next())?),
                "--start" => arguments.start = number(&word, words.next())?,
                "--seeds" => arguments.seeds = number(&word, words.next())?,
                "--jobs" => arguments.jobs = number(&word, words.next())?,
                "--nodes" => overrides.nodes = Some(number(&word, words.next())?),
                "--users" => overrides.users = Some(number(&word, words.next())?),
                "--keys" => overrides.keys = Some(number(&word, words.next())?),
                "--operations" => overrides.operations = Some(number(&word, words.next())?),
                "--with" => overrides.with.push(class(words.next())?),
                "--without" => overrides.without.push(class(words.next())?),
                "--mutant" => arguments.mutant = words.next(),
                "--trace" => arguments.is_tracing = true,
                "--shrink" => arguments.is_shrinking = true,
                "--marks" => arguments.wants_marks = true,
                // Of the usual test harness, as cargo passes them on.
                "--nocapture" | "--quiet" | "-q" | "--show-output" => arguments.is_test = true,
                other if other.starts_with('-') => return Err(format!("there is no option {other}")),
                _filter => {}
            }
        }
        Ok(arguments)
    }
}

fn class(name: Option<String>) -> Result<Class, String> {
    let name = name.ok_or("a kind of fault is missing")?;
    Class::parse(&name).ok_or_else(|| format!("there is no kind of fault {name}"))
}
