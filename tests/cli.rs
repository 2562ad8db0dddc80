//! The program from outside: flags, environment, exit codes and what it says on standard error.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const CONFIG: &str = "\
[[node]]
identity = 'host1'
address = 'localhost'
keva_port = 28370
user_port = 28380
[[node]]
identity = 'host2'
address = 'localhost'
keva_port = 28371
user_port = 28381
";

/// The program in `directory`, without the variables of whoever runs the tests.
fn keva(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keva"));
    command.current_dir(directory).stdin(Stdio::null());
    for variable in ["KEVA_CONFIG_FILE", "KEVA_NODE_IDENTITY", "KEVA_WORKING_DIRECTORY", "KEVA_LOG"] {
        command.env_remove(variable);
    }
    command
}

/// A scratch directory with a configuration in `cluster.toml`.
fn scratch() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a scratch directory");
    std::fs::write(directory.path().join("cluster.toml"), CONFIG).expect("the file is written");
    directory
}

/// Exit code, standard output and standard error of a program that ends by itself.
fn outcome(command: &mut Command) -> (i32, String, String) {
    let output = command.output().expect("the program starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("the program writes text");
    (output.status.code().expect("no signal ends it"), text(output.stdout), text(output.stderr))
}

/// Checks that the program refuses to start, with one line that has all of `parts`.
fn assert_refused(command: &mut Command, parts: &[&str]) {
    let (code, stdout, stderr) = outcome(command);
    assert_eq!(code, 2, "{stderr}");
    assert_eq!(stdout, "");
    assert!(stderr.starts_with("keva: ") && stderr.ends_with('\n'), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    for part in parts {
        assert!(stderr.contains(part), "{stderr}lacks {part}");
    }
}

/// A program that is ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the program and gives its first `count` lines on standard error.
fn first_lines(command: &mut Command, count: usize) -> Vec<String> {
    let mut child = Running(command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("it starts"));
    let stderr = child.0.stderr.take().expect("it is piped");
    BufReader::new(stderr).lines().take(count).map(|line| line.expect("a line of text")).collect()
}

#[test]
fn help_and_version() {
    let directory = scratch();
    let (code, stdout, stderr) = outcome(keva(directory.path()).arg("--version"));
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert_eq!(stdout, format!("keva {}\n", env!("CARGO_PKG_VERSION")));
    let (code, stdout, stderr) = outcome(keva(directory.path()).arg("--help"));
    assert_eq!((code, stderr.as_str()), (0, ""));
    for part in [
        "--config-file <FILE>",
        "--node-identity <IDENTITY>",
        "--working-directory <DIRECTORY>",
        "--log-level <LEVEL>",
        "[env: KEVA_CONFIG_FILE]",
        "[env: KEVA_NODE_IDENTITY]",
        "[env: KEVA_WORKING_DIRECTORY]",
        "[env: KEVA_LOG]",
        "[default: ./keva-data]",
        "curl -d hello http://127.0.0.1:8380/v1/storage/key/greeting",
        "Exit codes:",
        "check",
        "keva check --working-directory ./workdir1",
    ] {
        assert!(stdout.contains(part), "the help lacks {part}:\n{stdout}");
    }
    assert!(!stdout.contains('\u{1b}'), "no colours in a pipe");
    assert!(stdout.lines().all(|line| line.chars().count() <= 100), "{stdout}");
}

/// Whoever asked for help may stop reading: that is no panic.
#[test]
fn help_into_a_closed_pipe() {
    let directory = scratch();
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let (code, _, stderr) =
        outcome(keva(directory.path()).arg("--help").stdout(writer).stderr(Stdio::piped()));
    assert_eq!((code, stderr.as_str()), (0, ""));
}

/// A pipe without room for another byte, whose reader never reads.
fn full_pipe() -> (std::io::PipeReader, std::io::PipeWriter) {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let flags = rustix::fs::fcntl_getfl(&writer).expect("the pipe's flags");
    rustix::fs::fcntl_setfl(&writer, flags | rustix::fs::OFlags::NONBLOCK).expect("the flag is set");
    while rustix::io::write(&writer, b"x").is_ok() {}
    rustix::fs::fcntl_setfl(&writer, flags).expect("the flag is taken back");
    (reader, writer)
}

/// H6: a process that has failed ends although nobody reads why: otherwise nobody starts it again.
#[test]
fn a_failure_ends_the_program_although_standard_error_is_full() {
    let directory = scratch();
    for arguments in [&["--bogus"][..], &["--log-level", "loud"], &["--config-file", "cluster.toml"]] {
        let (_reader, writer) = full_pipe();
        let mut child =
            Running(keva(directory.path()).args(arguments).stderr(writer).spawn().expect("it starts"));
        let deadline = Instant::now() + Duration::from_secs(30);
        let status = loop {
            match child.0.try_wait().expect("it is a child") {
                Some(status) => break status,
                None => assert!(Instant::now() < deadline, "{arguments:?} hangs"),
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        assert_eq!(status.code(), Some(2), "{arguments:?}");
    }
}

/// What a node on `port` answers to a request that ends the connection. `None` when it does not listen yet.
fn ask(port: u16, request: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a socket option");
    stream.write_all(request.as_bytes()).expect("the node reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the node answers and closes");
    Some(answer)
}

/// H6: a node whose standard error is a pipe that nobody reads serves, stops when asked to, and says nothing.
#[test]
fn a_node_works_although_standard_error_is_full() {
    let directory = scratch();
    let free = || TcpListener::bind("127.0.0.1:0").expect("a port");
    let (peers, clients) = (free(), free());
    let port_of = |listener: &TcpListener| listener.local_addr().expect("it listens").port();
    let (keva_port, user_port) = (port_of(&peers), port_of(&clients));
    drop((peers, clients));
    let node = format!(
        "[[node]]\nidentity = 'one'\naddress = '127.0.0.1'\nkeva_port = {keva_port}\nuser_port = {user_port}\n\
         wait_time = '0.1'\n"
    );
    std::fs::write(directory.path().join("one.toml"), node).expect("the file is written");
    let (_reader, writer) = full_pipe();
    let mut command = keva(directory.path());
    // At this level every turn says something.
    command.args(["--config-file", "one.toml", "--node-identity", "one", "--log-level", "trace"]);
    let mut child = Running(command.stderr(writer).spawn().expect("it starts"));
    let deadline = Instant::now() + Duration::from_secs(30);
    while ask(user_port, "GET /livez HTTP/1.0\r\n\r\n").is_none_or(|answer| !answer.contains(" 200 ")) {
        assert!(Instant::now() < deadline, "the node does not live");
        std::thread::sleep(Duration::from_millis(10));
    }
    for number in 0..50 {
        let put = format!("PUT /v1/storage/key/k{number} HTTP/1.0\r\nContent-Length: 1\r\n\r\nx");
        let answer = ask(user_port, &put).expect("it listens");
        assert!(answer.ends_with("{\"done\":\"true\"}"), "{answer}");
    }
    let pid = rustix::process::Pid::from_child(&child.0);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
    assert_eq!(child.0.wait().expect("it is a child").code(), Some(0));
}

#[test]
fn wrong_usage_is_one_line_and_exit_code_2() {
    let directory = scratch();
    let path = directory.path();
    assert_refused(
        keva(path).arg("--confg-file=x"),
        &["unexpected argument '--confg-file'", "'--config-file'", "see keva --help"],
    );
    assert_refused(keva(path).arg("--config-file"), &["a value is required for '--config-file <FILE>'"]);
    assert_refused(keva(path).arg("surplus"), &["unrecognized subcommand 'surplus'", "see keva --help"]);
    assert_refused(keva(path).args(["--log-level", "loud"]), &["log level \"loud\"", "use off, error, warn"]);
    assert_refused(keva(path).env("KEVA_LOG", "raft=loud"), &["log level \"raft=loud\""]);
    assert_refused(keva(path).args(["--node-identity", "a b"]), &["identity 'a b' contains ' '"]);
}

/// `keva check` has flags of its own; those of a node do not fit it.
#[test]
fn check_has_its_own_usage() {
    let directory = scratch();
    let path = directory.path();
    let (code, stdout, stderr) = outcome(keva(path).args(["check", "--help"]));
    assert_eq!((code, stderr.as_str()), (0, ""));
    for part in ["--working-directory <DIRECTORY>", "--verbose", "[env: KEVA_WORKING_DIRECTORY]"] {
        assert!(stdout.contains(part), "the help lacks {part}:\n{stdout}");
    }
    assert_refused(keva(path).args(["check", "--bogus"]), &["unexpected argument '--bogus'"]);
    assert_refused(keva(path).args(["--log-level", "info", "check"]), &["check", "--log-level"]);
    assert_refused(keva(path).args(["check", "--working-directory", "missing"]), &["missing"]);
    assert!(!path.join("missing").exists(), "nothing is made");
    std::fs::create_dir(path.join("empty")).expect("made");
    assert_refused(keva(path).args(["check", "--working-directory", "empty"]), &["empty"]);
    assert_refused(keva(path).arg("check").env("KEVA_WORKING_DIRECTORY", "elsewhere"), &["elsewhere"]);
    // Variables for the node that the same shell runs are no reason to refuse.
    assert_refused(
        keva(path)
            .args(["check", "--working-directory", "empty"])
            .env("KEVA_CONFIG_FILE", "x")
            .env("KEVA_LOG", "info"),
        &["empty"],
    );
}

#[test]
fn wrong_configuration_is_one_line_and_exit_code_2() {
    let directory = scratch();
    let path = directory.path();
    assert_refused(
        keva(path).args(["--config-file", "missing.toml"]),
        &["missing.toml: cannot read", "No such file", "check --config-file"],
    );
    assert_refused(keva(path).args(["--config-file", "."]), &["cannot read", "directory"]);
    std::fs::write(path.join("bad.toml"), CONFIG.replace("28381", "0")).expect("written");
    assert_refused(
        keva(path).env("KEVA_CONFIG_FILE", "bad.toml"),
        &["bad.toml:10: node host2: user_port '0' is out of range; use 1 to 65535"],
    );
    std::fs::write(path.join("long.toml"), "#".repeat((1 << 20) + 1)).expect("written");
    assert_refused(keva(path).args(["--config-file", "long.toml"]), &["longer than 1048576 bytes"]);
    std::fs::write(path.join("binary.toml"), [0xff, 0xfe]).expect("written");
    assert_refused(keva(path).args(["--config-file", "binary.toml"]), &["cannot read", "UTF-8"]);
}

#[test]
fn unknown_identity_lists_the_known_ones() {
    let directory = scratch();
    let config = ["--config-file", "cluster.toml"];
    assert_refused(
        keva(directory.path()).args(config).args(["--node-identity", "host7"]),
        &["cluster.toml: there is no node 'host7'", "choose one of host1, host2", "--node-identity"],
    );
    // The test's host is hardly called host1 or host2.
    assert_refused(
        keva(directory.path()).args(config),
        &["(the name of this host)", "choose one of host1, host2", "KEVA_NODE_IDENTITY"],
    );
    // A flag goes before its variable.
    assert_refused(
        keva(directory.path()).args(config).args(["--node-identity", "x"]).env("KEVA_NODE_IDENTITY", "host1"),
        &["there is no node 'x'"],
    );
}

#[test]
fn flags_and_variables_choose_the_node() {
    let directory = scratch();
    let lines = first_lines(
        keva(directory.path())
            .env("KEVA_CONFIG_FILE", "cluster.toml")
            .env("KEVA_NODE_IDENTITY", "host2")
            .env("KEVA_WORKING_DIRECTORY", "data2"),
        1,
    );
    for part in [" INFO  keva: ", "node host2 (n", "one of 2,", "clients on 127.0.0.1:28381", "data in data2"]
    {
        assert!(lines[0].contains(part), "{lines:?} lacks {part}");
    }
}

#[test]
fn without_a_file_one_node_starts_and_a_file_nearby_is_pointed_out() {
    let directory = scratch();
    let lines = first_lines(&mut keva(directory.path()), 1);
    for part in ["node host1 ", "one of 1,", "clients on 127.0.0.1:8380", "data in ./keva-data"] {
        assert!(lines[0].contains(part), "{lines:?} lacks {part}");
    }
    std::fs::write(directory.path().join("keva.toml"), CONFIG).expect("written");
    let lines = first_lines(&mut keva(directory.path()), 2);
    assert!(lines[1].contains("WARN"), "{lines:?}");
    assert!(lines[1].contains("./keva.toml is not used: give --config-file keva.toml"), "{lines:?}");
}

#[test]
fn a_loopback_address_among_others_is_pointed_out() {
    let directory = scratch();
    let mixed = CONFIG.replacen("localhost", "192.0.2.1", 1);
    std::fs::write(directory.path().join("mixed.toml"), mixed).expect("written");
    let arguments = ["--config-file", "mixed.toml", "--node-identity", "host2"];
    let lines = first_lines(keva(directory.path()).args(arguments), 2);
    assert!(lines[1].contains("host2 has a loopback address, which other hosts cannot reach"), "{lines:?}");
}
