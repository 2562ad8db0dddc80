//! What tests do to the working directories of real nodes, and how they ask about it.
#![allow(unreachable_pub, reason = "shared by several test programs")]

use std::path::Path;
use std::process::{Command, Output};
use std::time::Instant;

use super::cluster::{Cluster, PATIENCE, wait_for};
use super::http_client::HttpClient;
use super::http_message::Answer;
use super::node_process::NodeProcess;
use super::workload::{Acknowledged, write_once};

/// Small files, so that little data makes many of them.
pub const SMALL_FILES: &str = "[storage]\nsegment_size = '1MiB'\nsnapshot_log_size = '1MiB'\n";

/// Writes a key, and returns whatever the answer is.
pub fn put(client: &mut HttpClient, key: &str, value: &str) -> Answer {
    let target = format!("/v1/storage/key/{key}");
    client.request("PUT", &target, &[], value.as_bytes()).unwrap_or_else(|failure| panic!("{key}: {failure}"))
}

/// Asks for something, and returns whatever the answer is.
pub fn get(client: &mut HttpClient, target: &str) -> Answer {
    client.request("GET", target, &[], b"").unwrap_or_else(|failure| panic!("{target}: {failure}"))
}

/// Writes that must succeed.
pub fn write_some(client: &mut HttpClient, name: &str, count: usize, kept: &mut Vec<Acknowledged>) {
    for number in 0..count {
        let (key, value) = (format!("{name}/{number}"), format!("{name} {number} ").repeat(100));
        let revision = write_once(client, &key, &value).unwrap_or_else(|mishap| panic!("{key}: {mishap:?}"));
        kept.push(Acknowledged { key, value, revision, at: Instant::now() });
    }
}

/// Waits until a node says all of `parts` in one line behind `offset` of its log.
pub fn wait_said(cluster: &mut Cluster, node: usize, offset: u64, parts: &[&str]) -> String {
    wait_for(&format!("host{} to say {parts:?}", node + 1), || {
        let said = cluster.node(node).log_since(offset);
        said.lines().find(|line| parts.iter().all(|part| line.contains(part))).map(str::to_owned)
    })
}

/// Stops a node in good order.
pub fn stop(cluster: &mut Cluster, node: usize) {
    cluster.node(node).terminate();
    assert!(cluster.node(node).wait_exit(PATIENCE).success());
}

/// Ends all nodes at the same moment.
pub fn kill_all(cluster: &mut Cluster) {
    let all: Vec<usize> = (0..cluster.len()).collect();
    cluster.kill_at_once(&all);
}

/// Copies all files of a directory into a new one.
pub fn copy_directory(from: &Path, to: &Path) {
    std::fs::create_dir(to).expect("a new directory");
    for file in std::fs::read_dir(from).expect("a directory") {
        let file = file.expect("an entry");
        std::fs::copy(file.path(), to.join(file.file_name())).expect("a copy");
    }
}

/// Leaves nothing in a directory.
pub fn empty_directory(path: &Path) {
    std::fs::remove_dir_all(path).expect("it is there");
    std::fs::create_dir(path).expect("it was there");
}

/// The names of all files in a directory.
pub fn file_names(path: &Path) -> Vec<String> {
    let files = std::fs::read_dir(path).expect("a directory");
    files.map(|file| file.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
}

/// What the files of a directory take. Files come and go meanwhile.
pub fn directory_bytes(path: &Path) -> u64 {
    let files = std::fs::read_dir(path).expect("a directory");
    files.filter_map(|file| file.ok()?.metadata().ok()).map(|metadata| metadata.len()).sum()
}

/// Changes a bit of the first log file that holds `needle`. Returns the file's name and the place.
pub fn flip_bit(directory: &Path, needle: &str) -> (String, usize) {
    for name in file_names(directory) {
        let path = directory.join(&name);
        let mut bytes = std::fs::read(&path).expect("a readable file");
        let place = bytes.windows(needle.len()).position(|window| window == needle.as_bytes());
        if let Some(place) = place.filter(|_| name.starts_with("seg-")) {
            bytes[place] ^= 1;
            std::fs::write(&path, bytes).expect("a writable file");
            return (name, place);
        }
    }
    panic!("no log file in {} holds {needle:?}", directory.display());
}

/// What `keva check` says of a directory, and its exit code.
pub fn check(directory: &Path) -> (Option<i32>, String) {
    let output: Output = Command::new(NodeProcess::program())
        .args(["check", "--verbose", "--working-directory"])
        .arg(directory)
        .output()
        .expect("the program starts");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}
