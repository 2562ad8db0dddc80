//! The rules of the source tree: who may import whom, what the deterministic core must not touch, where unsafe code may
//! be, and the form of files. The checker itself is checked with planted violations.

#[path = "layering/paths.rs"]
mod paths;
#[path = "layering/rules.rs"]
mod rules;
#[path = "layering/tokens.rs"]
mod tokens;

use std::path::{Path, PathBuf};

use rules::{Checker, Violation};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// All Rust files below a folder of the repository, with their paths from its root.
fn rust_files(folder: &str) -> Vec<(String, String)> {
    fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).expect("the folder is readable") {
            let path = entry.expect("the entry is readable").path();
            if path.is_dir() {
                collect(&path, files);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    let mut paths = Vec::new();
    collect(&Path::new(ROOT).join(folder), &mut paths);
    paths.sort();
    let read = |path: PathBuf| {
        let name = path.strip_prefix(ROOT).expect("it is below the root").to_str().expect("a plain name");
        (name.to_owned(), std::fs::read_to_string(&path).expect("the file is readable"))
    };
    paths.into_iter().map(read).collect()
}

/// The checker with the dependencies of Cargo.toml.
fn checker() -> Checker {
    let manifest = std::fs::read_to_string(Path::new(ROOT).join("Cargo.toml")).expect("there is a manifest");
    let manifest: toml::Table = manifest.parse().expect("the manifest is TOML");
    let dependencies = manifest["dependencies"].as_table().expect("there are dependencies");
    Checker::new(dependencies.keys().map(|name| name.replace('-', "_")))
}

fn show(violations: &[Violation]) -> String {
    violations.iter().map(|violation| format!("\n  {violation}")).collect()
}

#[test]
fn the_source_tree_keeps_the_rules() {
    let files = rust_files("src");
    assert!(files.len() > 10, "the source files were not found");
    let checker = checker();
    let mut violations = rules::check_names(files.iter().map(|(name, _)| name.as_str()));
    for (name, text) in &files {
        violations.extend(checker.check_source(name, text));
    }
    assert!(violations.is_empty(), "{} violations:{}", violations.len(), show(&violations));
}

#[test]
fn tests_say_what_they_are() {
    let files = rust_files("tests");
    assert!(files.len() > 3, "the tests were not found");
    let violations: Vec<_> = files.iter().filter_map(|(name, text)| rules::check_head(name, text)).collect();
    assert!(violations.is_empty(), "{}", show(&violations));
}

/// The rules that `source` breaks as the file `name`.
fn broken(name: &str, source: &str) -> String {
    show(&checker().check_source(name, &format!("//! Doc.\n{source}")))
}

/// Every one of these must be reported, with the words on the right.
#[test]
fn planted_violations_are_reported() {
    let planted: &[(&str, &str, &str)] = &[
        // Imports.
        ("src/raft/log.rs", "use crate::kv::store::Store;", "raft must not import kv::store::Store"),
        ("src/raft/log.rs", "use crate::{limits, replica};", "raft must not import replica"),
        (
            "src/raft/log.rs",
            "use crate::{\n    util::{\n        time::Millis,\n    },\n    net::{\n        self,\n    },\n};",
            ":7: raft must not import net",
        ),
        ("src/raft/log.rs", "fn f() { crate::net::run(); }", "raft must not import net::run"),
        ("src/raft/log.rs", "fn f() { super::super::net::run(); }", "raft must not import net::run"),
        ("src/raft/mod.rs", "use super::net;", "raft must not import net"),
        ("src/raft/log.rs", "mod tests { use super::super::super::kv; }", "raft must not import kv"),
        ("src/raft/log.rs", "mod a { mod b { } use super::super::super::kv; }", "raft must not import kv"),
        ("src/raft/log.rs", "type T = Vec<crate::config::Config>;", "raft must not import config::Config"),
        ("src/raft/log.rs", "use keva::net;", "raft must not import net"),
        ("src/raft/log.rs", "use crate as all;", "raft must not import the whole crate"),
        ("src/raft/log.rs", "use crate::*;", "raft must not import *"),
        ("src/raft/log.rs", "use super::super::*;", "raft must not import *"),
        ("src/raft/log.rs", "pub use crate::kv::command as c;", "raft must not import kv::command"),
        ("src/raft/log.rs", "macro_rules! m { () => { $crate::kv::f() } }", "raft must not import kv::f"),
        ("src/kv/store.rs", "use crate::raft;", "kv must not import raft"),
        ("src/kv/store.rs", "use crate::raft::message::Message;", "kv must not import raft::message"),
        (
            "src/kv/store.rs",
            "use crate::raft::{types::Term, entry::Entry};",
            "kv must not import raft::entry::Entry",
        ),
        ("src/replica/io.rs", "use crate::storage::log::Log;", "replica must not import storage"),
        ("src/storage/log.rs", "use crate::raft::raft::Raft;", "storage must not import raft::raft::Raft"),
        ("src/storage/log.rs", "use crate::config;", "storage must not import config"),
        ("src/net/api.rs", "use crate::kv::store::Store;", "net must not import kv::store"),
        ("src/net/api.rs", "use crate::storage::log;", "net must not import storage::log"),
        ("src/net/api.rs", "use crate::raft::raft::Raft;", "net must not import raft::raft"),
        ("src/config/mod.rs", "use crate::raft::entry::Entry;", "config must not import raft::entry"),
        ("src/config.rs", "use crate::logging;", "config must not import logging"),
        ("src/cli/get.rs", "use crate::net::run;", "cli must not import net::run"),
        ("src/logging.rs", "use crate::config;", "logging must not import config"),
        ("src/util/hash.rs", "use crate::limits;", "util must not import limits"),
        ("src/limits.rs", "use crate::util;", "limits must not import util"),
        ("src/extra/new.rs", "fn f() {}", "extra has no import rule"),
        // The core.
        ("src/raft/log.rs", "use std::time::Duration;", "the core must not use std::time"),
        ("src/raft/log.rs", "use ::std::time::Duration;", "the core must not use std::time"),
        ("src/raft/log.rs", "use core::time::Duration;", "the core must not use core::time"),
        ("src/raft/log.rs", "use std::{fmt, fs};", "the core must not use std::fs"),
        ("src/kv/store.rs", "fn f() { std::thread::yield_now(); }", "the core must not use std::thread"),
        ("src/kv/store.rs", "fn f() -> std::net::IpAddr {}", "the core must not use std::net"),
        ("src/kv/store.rs", "fn f() { ::std::env::args(); }", "the core must not use std::env"),
        ("src/kv/store.rs", "use std as s;", "the core must not use std as a whole"),
        ("src/kv/store.rs", "use std::*;", "the core must not use std as a whole"),
        ("src/kv/store.rs", "use std::collections::*;", "the core must not use std::collections::*"),
        (
            "src/kv/store.rs",
            "use std::collections::hash_map::Entry;",
            "the core must not use std::collections::hash_map",
        ),
        ("src/kv/store.rs", "fn f(now: Instant) {}", "the core must not use Instant"),
        ("src/kv/store.rs", "fn f(now: SystemTime) {}", "the core must not use SystemTime"),
        (
            "src/replica/replica.rs",
            "use std::collections::{BTreeMap, HashMap};",
            "the core must not use HashMap",
        ),
        (
            "src/replica/replica.rs",
            "type T = std::collections::HashSet<u8>;",
            "the core must not use HashSet",
        ),
        ("src/replica/replica.rs", "fn f() { println!(\"x\"); }", "the core must not use println!"),
        ("src/replica/replica.rs", "fn f() { eprintln!(\"x\"); }", "the core must not use eprintln!"),
        ("src/replica/replica.rs", "fn f() { dbg!(1); }", "the core must not use dbg!"),
        ("src/replica/replica.rs", "const A: &str = env!(\"A\");", "the core must not use env!"),
        (
            "src/replica/replica.rs",
            "thread_local! { static A: u8 = 1; }",
            "the core must not use thread_local!",
        ),
        (
            "src/replica/replica.rs",
            "fn f() { fastrand::u64(..); }",
            "the core must not use the package fastrand",
        ),
        ("src/replica/replica.rs", "use rand::Rng;", "the core must not use the package rand"),
        ("src/replica/replica.rs", "use mio::Poll;", "the core must not use the package mio"),
        ("src/replica/replica.rs", "use {log, memmap2::Mmap};", "the core must not use the package memmap2"),
        (
            "src/raft/log.rs",
            "#[cfg(test)] mod tests { fn f(now: Instant) {} }",
            "the core must not use Instant",
        ),
        // A violation behind something that looks like a string or a comment.
        ("src/raft/log.rs", "fn f<'a>(x: &'a str) { let q = '\"'; use std::fs; let r = '\"'; }", "std::fs"),
        ("src/raft/log.rs", "fn f() { let q = '\\''; use std::fs; let r = '\\''; }", "std::fs"),
        ("src/raft/log.rs", "/* a /* nested */ comment */ use std::fs;", "std::fs"),
        ("src/raft/log.rs", "const S: &str = r#\"a \" quote\"#; use std::fs;", "std::fs"),
        ("src/raft/log.rs", "const S: &str = \"\\\\\"; use std::fs; const T: &str = \"\";", "std::fs"),
        ("src/raft/log.rs", "const S: &[u8] = b\"\\\"\"; use std::fs;", "std::fs"),
        ("src/raft/log.rs", "const S: u8 = b'\"'; use std::fs;", "std::fs"),
        // Everywhere.
        ("src/raft/log.rs", "fn f() { unsafe { g() } }", "unsafe code belongs into src/storage/region.rs"),
        ("src/storage/log.rs", "unsafe fn f() {}", "unsafe code belongs into src/storage/region.rs"),
        ("src/main.rs", "unsafe impl Send for X {}", "unsafe code belongs into src/storage/region.rs"),
        ("src/lib.rs", "#[path = \"other.rs\"] mod a;", "must be where its name says"),
        ("src/net/api.rs", "include!(\"other.rs\");", "must be where its name says"),
        ("src/net/api.rs", &"\n".repeat(550), "has 551 lines"),
    ];
    for (name, source, part) in planted {
        let found = broken(name, source);
        assert!(found.contains(part), "not reported for {name}\n  {source}\nlacks\n  {part}\nfound{found}");
    }
}

/// None of these may be reported.
#[test]
fn allowed_code_is_not_reported() {
    let allowed: &[(&str, &str)] = &[
        (
            "src/raft/log.rs",
            "use crate::raft::types::Term; use super::entry::Entry; use crate::{limits, util::time::Millis};",
        ),
        ("src/raft/log.rs", "mod tests { use super::*; use super::super::entry::Entry; }"),
        ("src/raft/log.rs", "// use std::fs; HashMap\n/// Instant\n/* unsafe /* std::net */ */"),
        (
            "src/raft/log.rs",
            "const S: &str = \"use std::fs; HashMap \\\" unsafe\"; const C: char = '\\u{1F980}';",
        ),
        ("src/raft/log.rs", "const S: &str = r##\"std::fs \"# unsafe\"##; const B: &[u8] = br\"std::fs\";"),
        (
            "src/raft/log.rs",
            "use std::collections::{BTreeMap, BTreeSet, VecDeque}; use std::{fmt, mem, sync::Arc};",
        ),
        (
            "src/raft/log.rs",
            "fn f<'a>(time: &'a u8, env: u8) { let fs = Vec::<u8>::new(); Self::net(); log::debug!(\"x\"); }",
        ),
        (
            "src/raft/log.rs",
            "fn f() { <u8 as Into<u64>>::into(1); } pub(crate) fn g() {} pub(in crate::raft) fn h() {}",
        ),
        ("src/raft/log.rs", "fn f() -> impl Iterator<Item = u8> + use<'_> { r#use() }"),
        ("src/kv/store.rs", "use crate::raft::types::{self, Index}; use serde::Serialize;"),
        ("src/kv/store.rs", "fn f() { crate::raft::types::Term(0); }"),
        ("src/replica/replica.rs", "use crate::{kv::store::Store, raft::{message::Message, raft::Raft}};"),
        (
            "src/storage/log.rs",
            "use crate::raft::{entry::Entry, storage::Storage, types::Index}; use std::fs::File;",
        ),
        ("src/storage/region.rs", "fn f() { unsafe { g() } }"),
        (
            "src/net/api.rs",
            "use crate::kv::command::Command; use crate::raft::{entry, message, types}; use crate::config;",
        ),
        ("src/net/loop.rs", "use std::time::Instant; use std::collections::HashMap; use crate::replica::io;"),
        ("src/config/mod.rs", "use crate::raft::types::NodeId; use self::node::NodeConfig;"),
        ("src/logging.rs", "use crate::{limits, util}; #[allow(unsafe_code)] fn f() {}"),
        ("src/main.rs", "use keva::{config, logging, net, storage};"),
        ("src/lib.rs", "pub mod raft;"),
        ("src/net/api.rs", &"\n".repeat(549)),
    ];
    for (name, source) in allowed {
        let found = broken(name, source);
        assert!(found.is_empty(), "wrongly reported for {name}\n  {source}\nfound{found}");
    }
}

#[test]
fn file_heads_are_checked() {
    for text in ["", "use std::fmt;", "// A comment.\n", "\n//! Too late.", "//!\n", "/// An item."] {
        assert!(rules::check_head("src/a.rs", text).is_some(), "not reported: {text:?}");
    }
    assert!(rules::check_head("src/a.rs", "//! What it is.\nuse std::fmt;").is_none());
}

#[test]
fn file_names_are_checked() {
    let names = |names: &[&str]| show(&rules::check_names(names.iter().copied()));
    assert_eq!(
        names(&["src/lib.rs", "src/raft/mod.rs", "src/raft/log.rs", "src/kv.rs", "src/net/api/mod.rs"])
            .matches("mod.rs")
            .count(),
        1
    );
    assert!(names(&["src/net/api/mod.rs"]).contains("is alone in its folder: make it src/net/api.rs"));
    assert_eq!(names(&["src/net/mod.rs", "src/net/api/mod.rs", "src/net/api/key.rs"]), "");
    for name in ["src/net/utils.rs", "src/helpers.rs", "src/raft/common.rs", "src/misc/mod.rs"] {
        assert!(names(&[name, "src/net/a.rs", "src/misc/b.rs"]).contains("says nothing"), "{name}");
    }
    assert!(names(&["src/RaftLog.rs"]).contains("is not in snake_case"));
    assert!(names(&["src/raft.rs", "src/raft/log.rs"]).contains("move it to src/raft/mod.rs"));
}
