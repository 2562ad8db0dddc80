//! The README is true: its commands are executed against a live cluster and must print what it says.
//!
//! A block marked `console` is a list of commands, each behind `$ `, followed by the lines that it prints. `...` in an
//! expected line stands for any text. The nodes of the examples listen on ports 8380 to 8382; the test puts its own
//! nodes' addresses in their place. A block marked `sh` that calls a script of the repository is executed as it is.

mod support;

use std::path::Path;
use std::process::{Command, Output};

use support::cluster::Cluster;
use support::loopback::LoopbackAddress;

const README: &str = include_str!("../README.md");

/// A command and the lines that it must print.
struct Example {
    command: String,
    expected: Vec<String>,
}

/// The lines of every fenced block with this info string, block by block.
fn blocks(info: &str) -> Vec<Vec<&'static str>> {
    let fence = format!("```{info}");
    let mut blocks = Vec::new();
    let mut lines = README.lines();
    while let Some(line) = lines.next() {
        if line == fence {
            blocks.push(lines.by_ref().take_while(|line| *line != "```").collect());
        }
    }
    blocks
}

fn examples() -> Vec<Example> {
    let mut examples: Vec<Example> = Vec::new();
    for line in blocks("console").concat() {
        match line.strip_prefix("$ ") {
            Some(command) => examples.push(Example { command: command.to_owned(), expected: Vec::new() }),
            None => examples.last_mut().expect("output follows a command").expected.push(line.to_owned()),
        }
    }
    examples
}

/// Whether `line` is `pattern`, in which `...` stands for anything.
fn matches(pattern: &str, line: &str) -> bool {
    match pattern.split_once("...") {
        None => pattern == line,
        Some((start, end)) => {
            line.len() >= start.len() + end.len() && line.starts_with(start) && line.ends_with(end)
        }
    }
}

fn shell(script: &str, directory: &Path) -> Output {
    Command::new("bash").arg("-c").arg(script).current_dir(directory).output().expect("bash runs")
}

/// All examples run in one shell, because later ones use variables of earlier ones.
#[test]
fn the_examples_print_what_the_readme_says() {
    let examples = examples();
    assert!(examples.len() >= 15, "the README has lost its examples, or this test no longer finds them");
    let cluster = Cluster::start(3);
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let mut script = String::from("exec 2>/dev/null\n");
    for (number, example) in examples.iter().enumerate() {
        script.push_str(&format!("echo '#{number}'\n{}\necho\n", example.command));
    }
    for node in 0..3 {
        script = script.replace(&format!("localhost:838{node}"), &cluster.client_address(node).to_string());
    }
    let output = shell(&script, scratch.path());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for (number, example) in examples.iter().enumerate() {
        let after = text.split_once(&format!("#{number}\n")).expect("every command was reached").1;
        let printed = after.split_once(&format!("#{}\n", number + 1)).map_or(after, |(printed, _)| printed);
        let printed: Vec<&str> = printed.lines().filter(|line| !line.is_empty()).collect();
        let as_promised = printed.len() == example.expected.len()
            && example.expected.iter().zip(&printed).all(|(pattern, line)| matches(pattern, line));
        assert!(as_promised, "$ {}\nexpected {:?}\nprinted  {printed:?}", example.command, example.expected);
    }
}

#[test]
fn the_demo_runs() {
    let commands = blocks("sh").concat();
    assert!(commands.contains(&"scripts/cluster.sh demo"), "the README shows the demo");
    assert!(commands.contains(&"scripts/check.sh"), "the README shows the check");
    let address = LoopbackAddress::take();
    let keva = env!("CARGO_BIN_EXE_keva");
    let script = format!("KEVA_BIN='{keva}' scripts/cluster.sh demo --address {}", address.ip());
    let output = shell(&script, Path::new(env!("CARGO_MANIFEST_DIR")));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains(r#"{"done":"true"}"#), "the demo shows a write:\n{text}");
}

#[test]
fn the_pattern_matcher_can_fail() {
    assert!(matches("host...", "host3") && matches("a...c", "abc") && matches("x", "x"));
    assert!(!matches("host...", "hos") && !matches("ab...bc", "abc") && !matches("x", "y"));
}
