//! The rules themselves.

use std::collections::BTreeSet;
use std::fmt;

use crate::paths::{Mention, mentions};

/// Most lines of a source file.
const LINES_MAX: usize = 550;
/// The only file with unsafe code.
const UNSAFE_FILE: &str = "src/storage/region.rs";
/// Modules that must give the same results for the same calls.
const CORE: &[&str] = &["raft", "kv", "replica"];
/// Packages that the core may use: they compute, and do nothing else.
const CORE_PACKAGES: &[&str] = &["serde", "serde_bytes", "rmp_serde", "crc32c", "log"];
/// Packages that nobody has added yet and that the core must not use then.
const FOREIGN_PACKAGES: &[&str] = &["rand", "getrandom", "libc", "tokio"];
/// Parts of the standard library that read clocks, ask the system, or iterate in random order.
const CORE_STD_BANNED: &[&[&str]] = &[
    &["time"],
    &["thread"],
    &["fs"],
    &["net"],
    &["env"],
    &["process"],
    &["os"],
    &["collections", "*"],
    &["collections", "hash_map"],
    &["collections", "hash_set"],
];
/// Names that the core must not say, wherever they come from.
const CORE_WORDS_BANNED: &[&str] = &[
    "Instant",
    "SystemTime",
    "HashMap",
    "HashSet",
    "RandomState",
    "println!",
    "print!",
    "eprintln!",
    "eprint!",
    "dbg!",
    "env!",
    "option_env!",
    "thread_local!",
];
/// Names that fit any file, and so say nothing about one.
const VAGUE_NAMES: &[&str] = &["util", "utils", "helper", "helpers", "common", "misc", "manager", "stuff"];

/// What each module may import from the crate besides itself.
const IMPORTS: &[(&str, &[&str])] = &[
    ("util", &[]),
    ("limits", &[]),
    ("raft", &["util", "limits"]),
    ("kv", &["util", "limits", "raft::types"]),
    ("replica", &["raft", "kv", "util", "limits"]),
    ("storage", &["raft::types", "raft::entry", "raft::storage", "util", "limits"]),
    ("config", &["raft::types", "util", "limits"]),
    ("logging", &["util", "limits"]),
    (
        "net",
        &[
            "replica",
            "raft::types",
            "raft::message",
            "raft::entry",
            "kv::command",
            "config",
            "util",
            "limits",
        ],
    ),
    ("cli", &["config", "util", "limits"]),
];

/// A broken rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Violation {
    file: String,
    line: usize,
    rule: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.rule)
    }
}

/// Checks source files.
pub(crate) struct Checker {
    /// Packages that the core must not use.
    banned_packages: BTreeSet<String>,
}

impl Checker {
    /// A checker for a crate with these dependencies. A new one is banned from the core until it is listed here.
    pub(crate) fn new(dependencies: impl Iterator<Item = String>) -> Checker {
        let foreign = FOREIGN_PACKAGES.iter().map(|name| (*name).to_owned());
        let banned = dependencies.chain(foreign).filter(|name| !CORE_PACKAGES.contains(&name.as_str()));
        Checker { banned_packages: banned.collect() }
    }

    /// All broken rules of one file below `src`.
    pub(crate) fn check_source(&self, file: &str, source: &str) -> Vec<Violation> {
        let mut rules: Vec<(usize, String)> = Vec::new();
        let lines = source.lines().count();
        if lines > LINES_MAX {
            rules.push((lines, format!("the file has {lines} lines; split it, {LINES_MAX} are allowed")));
        }
        let module = module_path(file);
        let top = module.first().map_or("", String::as_str);
        let allowed = IMPORTS.iter().find(|(name, _)| *name == top).map(|(_, allowed)| *allowed);
        if !top.is_empty() && allowed.is_none() {
            rules.push((1, format!("{top} has no import rule; add one to this test")));
        }
        for (line, mention) in mentions(source, &module) {
            let rule = self
                .everywhere(file, &mention)
                .or_else(|| allowed.and_then(|allowed| import_rule(top, allowed, &mention)))
                .or_else(|| if CORE.contains(&top) { self.core_rule(&mention) } else { None });
            rules.extend(rule.map(|rule| (line, rule)));
        }
        let head = check_head(file, source);
        let violation = |(line, rule)| Violation { file: file.to_owned(), line, rule };
        head.into_iter().chain(rules.into_iter().map(violation)).collect()
    }

    fn everywhere(&self, file: &str, mention: &Mention) -> Option<String> {
        match mention {
            Mention::Word(word) if word == "unsafe" && file != UNSAFE_FILE => {
                Some(format!("unsafe code belongs into {UNSAFE_FILE}"))
            }
            Mention::Word(word) if word == "include!" => Some("code must be where its name says".to_owned()),
            Mention::Elsewhere => Some("a module must be where its name says".to_owned()),
            _ => None,
        }
    }

    fn core_rule(&self, mention: &Mention) -> Option<String> {
        let what = match mention {
            Mention::Word(word) if CORE_WORDS_BANNED.contains(&word.as_str()) => word.clone(),
            Mention::Other(path) => self.core_path(path)?,
            _ => return None,
        };
        Some(format!("the core must not use {what}"))
    }

    /// What is banned about a path, if anything.
    fn core_path(&self, path: &[String]) -> Option<String> {
        let first = path[0].as_str();
        if self.banned_packages.contains(first) {
            return Some(format!("the package {first}"));
        }
        if first != "std" && first != "core" {
            return None;
        }
        let rest: Vec<&str> = path[1..].iter().map(String::as_str).collect();
        if matches!(rest.first(), None | Some(&"*")) {
            return Some(format!("{first} as a whole"));
        }
        let banned = CORE_STD_BANNED.iter().find(|banned| rest.starts_with(banned))?;
        Some(format!("{first}::{}", banned.join("::")))
    }
}

/// Whether a module imports what it must not.
fn import_rule(top: &str, allowed: &[&str], mention: &Mention) -> Option<String> {
    let Mention::Inside(path) = mention else { return None };
    let is_below = |allowed: &str| {
        let allowed: Vec<&str> = allowed.split("::").collect();
        path.len() >= allowed.len() && path.iter().zip(&allowed).all(|(a, b)| a == b)
    };
    if is_below(top) || allowed.iter().any(|allowed| is_below(allowed)) {
        return None;
    }
    let what = if path.is_empty() { "the whole crate".to_owned() } else { path.join("::") };
    Some(format!("{top} must not import {what}"))
}

/// Every file begins with a sentence about what it is.
pub(crate) fn check_head(file: &str, source: &str) -> Option<Violation> {
    let head = source.lines().next().unwrap_or_default();
    let has_sentence = head.strip_prefix("//! ").is_some_and(|sentence| !sentence.trim().is_empty());
    let rule = "the file must begin with //! and say what it is".to_owned();
    (!has_sentence).then(|| Violation { file: file.to_owned(), line: 1, rule })
}

/// Broken rules about the names of all files below `src`.
pub(crate) fn check_names<'a>(files: impl Iterator<Item = &'a str>) -> Vec<Violation> {
    let files: Vec<&str> = files.collect();
    let mut violations = Vec::new();
    for file in &files {
        let mut report =
            |rule: String| violations.push(Violation { file: (*file).to_owned(), line: 1, rule });
        let path = file.trim_end_matches(".rs");
        let siblings =
            |folder: &str| files.iter().filter(|other| other.starts_with(&format!("{folder}/"))).count();
        if let Some(folder) = path.strip_suffix("/mod") {
            if siblings(folder) == 1 {
                report(format!("it is alone in its folder: make it {folder}.rs"));
            }
        } else if siblings(path) > 0 {
            report(format!("its folder exists: move it to {path}/mod.rs"));
        }
        for name in path.split('/').skip(1) {
            // The folder of helpers without knowledge of Keva is the one place for such a name.
            let is_vague = VAGUE_NAMES.contains(&name) && !file.starts_with("src/util/");
            if is_vague {
                report(format!("the name {name} says nothing; name what is inside"));
            }
            if name.contains(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')) {
                report(format!("{name} is not in snake_case"));
            }
        }
    }
    violations
}

/// The path of a file's module in the crate, from its root; empty for the two roots.
fn module_path(file: &str) -> Vec<String> {
    let path = file.trim_start_matches("src/").trim_end_matches(".rs");
    if path == "lib" || path == "main" {
        return Vec::new();
    }
    let path = path.strip_suffix("/mod").unwrap_or(path);
    path.split('/').map(str::to_owned).collect()
}
