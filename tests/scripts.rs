//! The scripts from outside, as far as they go without a cluster. `scripts/check.sh` runs `cluster.sh demo` with one.

mod support;

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use support::loopback::LoopbackAddress;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn script(name: &str) -> Command {
    let mut command = Command::new("bash");
    command.arg(format!("{ROOT}/scripts/{name}")).stdin(Stdio::null());
    command.env("KEVA_BIN", env!("CARGO_BIN_EXE_keva"));
    command
}

fn cluster(directory: &Path) -> Command {
    let mut command = script("cluster.sh");
    command.arg("--dir").arg(directory);
    command
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Checks that a command ends with this code and that standard error has `part`.
fn assert_fails(command: &mut Command, code: i32, part: &str) {
    let output = command.output().expect("bash starts");
    assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
    assert!(stderr(&output).contains(part), "{}lacks {part}", stderr(&output));
}

#[test]
fn every_script_explains_itself() {
    let mut count = 0;
    for entry in std::fs::read_dir(format!("{ROOT}/scripts")).expect("there are scripts") {
        let name = entry.expect("readable").file_name().into_string().expect("a plain name");
        if !name.ends_with(".sh") {
            continue;
        }
        let output = script(&name).arg("--help").output().expect("bash starts");
        assert!(output.status.success(), "{name}: {}", stderr(&output));
        assert!(String::from_utf8_lossy(&output.stdout).starts_with("Usage: scripts/"), "{name}");
        let output = script(&name).arg("--nonsense").output().expect("bash starts");
        assert_eq!(output.status.code(), Some(2), "{name} takes any option");
        count += 1;
    }
    assert!(count >= 2, "cluster.sh and check.sh at least");
}

#[test]
fn cluster_refuses_wrong_usage() {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let directory = scratch.path().join("cluster");
    assert_fails(&mut cluster(&directory), 2, "a command is missing");
    assert_fails(cluster(&directory).arg("frobnicate"), 2, "there is no command 'frobnicate'");
    assert_fails(cluster(&directory).args(["up", "10"]), 2, "up takes 1 to 9 nodes");
    assert_fails(cluster(&directory).args(["up", "3", "4"]), 2, "too many words");
    assert_fails(cluster(&directory).args(["--base-port", "80", "up"]), 2, "takes 1024 to 65500");
    assert_fails(cluster(&directory).args(["--address", "10.0.0.1", "up"]), 2, "takes a loopback address");
    assert_fails(cluster(&directory).args(["--wait-time", "soon", "up"]), 2, "takes seconds");
    for command in ["down", "status", "leader", "kill", "pause", "resume", "restart", "logs"] {
        assert_fails(cluster(&directory).arg(command), 1, "no cluster in");
    }
    assert!(!directory.exists(), "nothing was made");
}

#[test]
fn chaos_refuses_wrong_usage() {
    assert_fails(script("chaos.sh").args(["--nodes", "4"]), 2, "--nodes takes 3 or 5");
    assert_fails(script("chaos.sh").args(["--minutes", "soon"]), 2, "--minutes takes a number");
    assert_fails(script("chaos.sh").args(["--seed", "-1"]), 2, "--seed takes a whole number");
    assert_fails(script("chaos.sh").args(["--wait-time", "20"]), 2, "--wait-time takes 50 to 60000");
    assert_fails(script("chaos.sh").args(["--faults", "kill,fire"]), 2, "there is a fault in 'kill,fire'");
    assert_fails(script("chaos.sh").args(["--directory", "/nowhere"]), 2, "there is no directory /nowhere");
    assert_fails(script("chaos.sh").arg("--seed"), 2, "--seed takes a value");
    assert_fails(script("chaos.sh").env("KEVA_BIN", "/nowhere"), 2, "KEVA_BIN=/nowhere is no program");
}

#[test]
fn cluster_leaves_other_directories_alone() {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let file = scratch.path().join("precious");
    std::fs::write(&file, "mine").expect("written");
    assert_fails(cluster(scratch.path()).arg("up"), 1, "is not empty and has no cluster");
    assert_fails(cluster(scratch.path()).arg("down"), 1, "no cluster in");
    assert!(file.exists());
}

/// Many people export CDPATH; `cd` then prefers other directories, and prints them.
#[test]
fn cdpath_leads_no_script_astray() {
    let (scratch, decoy) =
        (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    for directory in [&scratch, &decoy] {
        std::fs::create_dir(directory.path().join("mine")).expect("it is made");
    }
    let mut command = cluster(Path::new("mine"));
    command.current_dir(&scratch).env("CDPATH", decoy.path()).arg("status");
    let expected = scratch.path().canonicalize().expect("it is there").join("mine");
    assert_fails(&mut command, 1, &format!("no cluster in {};", expected.display()));
    for name in ["scripts/bench.sh", "scripts/chaos.sh", "scripts/check.sh", ".ci/run"] {
        let text = std::fs::read_to_string(format!("{ROOT}/{name}")).expect("it can be read");
        assert!(text.contains("\nunset CDPATH\n"), "{name} goes to the root of the repository");
    }
}

#[test]
fn cluster_names_a_taken_port() {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let directory = scratch.path().join("cluster");
    let address = LoopbackAddress::take();
    let ip = address.ip().to_string();
    for port in [8370, 8380] {
        let listener = TcpListener::bind((address.ip(), port)).expect("the address is ours");
        let part = format!("port {port} for host1 is taken; choose another --base-port");
        assert_fails(cluster(&directory).args(["--address", &ip, "up", "1"]), 1, &part);
        drop(listener);
    }
    assert!(!directory.exists(), "nothing was made");
}

#[test]
fn cluster_tells_when_a_node_ends_at_once() {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let directory = scratch.path().join("cluster");
    let address = LoopbackAddress::take();
    let mut up = cluster(&directory);
    up.args(["--address", &address.ip().to_string(), "up", "1"]).env("KEVA_BIN", "/bin/false");
    assert_fails(&mut up, 1, "host1 has ended; its log is");
    let output = cluster(&directory).arg("down").output().expect("bash starts");
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(!directory.exists(), "down deletes what up made");
}

/// A process id in an old file may belong to any process by now.
#[test]
fn cluster_never_signals_a_process_that_is_not_its_own() {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let directory = scratch.path().join("cluster");
    std::fs::create_dir_all(directory.join("host1")).expect("made");
    std::fs::write(directory.join("cluster"), "1 127.0.0.1 28370 1\n").expect("written");
    let mut bystander = Command::new("sleep").arg("600").spawn().expect("sleep starts");
    std::fs::write(directory.join("host1/pid"), format!("{}\n", bystander.id())).expect("written");
    for command in ["kill", "pause"] {
        assert_fails(cluster(&directory).args([command, "1"]), 1, "host1 is not running");
    }
    let output = cluster(&directory).arg("down").output().expect("bash starts");
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(bystander.try_wait().expect("it is our child").is_none(), "the bystander was ended");
    bystander.kill().expect("it is our child");
    bystander.wait().expect("it is our child");
}
