//! The README is true: its commands are executed against a live cluster and must print what it says.
//!
//! A block marked `console` is a list of commands, each behind `$ `, with its further lines behind `> `, followed by the
//! lines that it prints. `...` in an expected line stands for any text. The nodes of the examples listen on ports 8380 to
//! 8382; the test puts its own nodes' addresses in their place. A block marked `console busybox` is the same for a system
//! that has only BusyBox. A block marked `sh` that calls a script of the repository is executed as it is.

mod support;

use std::path::Path;
use std::process::{Command, Output};

use support::cluster::{Cluster, report};
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

fn examples(info: &str) -> Vec<Example> {
    let mut examples: Vec<Example> = Vec::new();
    for line in blocks(info).concat() {
        if let Some(command) = line.strip_prefix("$ ") {
            examples.push(Example { command: command.to_owned(), expected: Vec::new() });
            continue;
        }
        let example = examples.last_mut().expect("a command comes first");
        match line.strip_prefix("> ").filter(|_| example.expected.is_empty()) {
            Some(more) => example.command.push_str(&format!("\n{more}")),
            None if line.is_empty() => {}
            None => example.expected.push(line.to_owned()),
        }
    }
    examples
}

/// Whether `line` is `pattern`, in which every `...` stands for anything.
fn matches(pattern: &str, line: &str) -> bool {
    let Some((start, rest)) = pattern.split_once("...") else { return pattern == line };
    let Some(line) = line.strip_prefix(start) else { return false };
    line.char_indices().map(|(at, _)| at).chain([line.len()]).any(|at| matches(rest, &line[at..]))
}

fn shell(shell: &[&str], script: &str, directory: &Path) -> Output {
    let mut command = Command::new(shell[0]);
    command.args(&shell[1..]).arg("-c").arg(script).current_dir(directory).output().expect("the shell runs")
}

/// Runs all examples in one shell, because later ones use variables of earlier ones.
fn run(examples: &[Example], interpreter: &[&str], preamble: &str) {
    let cluster = Cluster::start(3);
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let mut script = format!("exec 2>errors\n{preamble}\n");
    for (number, example) in examples.iter().enumerate() {
        script.push_str(&format!("echo '#{number}'\necho '#{number}' >&2\n{}\necho\n", example.command));
    }
    for node in 0..3 {
        script = script.replace(&format!("localhost:838{node}"), &cluster.client_address(node).to_string());
    }
    let output = shell(interpreter, &script, scratch.path());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = std::fs::read_to_string(scratch.path().join("errors")).unwrap_or_default();
    let part = |text: &str, number: usize| {
        let after = text.split_once(&format!("#{number}\n")).expect("every command was reached").1;
        after.split_once(&format!("#{}\n", number + 1)).map_or(after, |(part, _)| part).to_owned()
    };
    for (number, example) in examples.iter().enumerate() {
        let printed = part(&text, number);
        let printed: Vec<&str> = printed.lines().filter(|line| !line.is_empty()).collect();
        let as_promised = printed.len() == example.expected.len()
            && example.expected.iter().zip(&printed).all(|(pattern, line)| matches(pattern, line));
        let (command, errors) = (&example.command, part(&errors, number));
        assert!(as_promised, "$ {command}\nexpected {:?}\nprinted  {printed:?}\n{errors}", example.expected);
    }
}

#[test]
fn the_examples_print_what_the_readme_says() {
    let examples = examples("console");
    assert!(examples.len() >= 60, "the README has lost its examples, or this test no longer finds them");
    run(&examples, &["bash"], "");
}

/// The recipes for systems without curl and bash.
#[test]
fn the_examples_for_busybox_print_what_the_readme_says() {
    let examples = examples("console busybox");
    assert!(examples.len() >= 15, "the README has lost its examples, or this test no longer finds them");
    if !has_busybox() {
        report(
            "SKIPPED: BusyBox is missing, and its recipes were NOT executed; install it (apt-get install busybox)",
        );
        return;
    }
    run(&examples, &["busybox", "sh"], "wget() { busybox wget \"$@\"; }");
}

/// The command of the README that has `part`.
fn command_with(info: &str, part: &str) -> String {
    let mut found = examples(info).into_iter().filter(|example| example.command.contains(part));
    let example = found.next().unwrap_or_else(|| panic!("no example has {part}"));
    assert!(found.next().is_none(), "several examples have {part}");
    example.command
}

/// Wherever a stream breaks off, the recipe goes on behind the last event that is whole.
#[test]
fn the_last_event_is_the_last_whole_one() {
    let command = command_with("console", "last=$(awk");
    let events = "event: reset\ndata: {\"revision\":9}\n\nid: 9\nevent: sync\ndata: {\"revision\":9}\n\n: 9\n\n\
                  event: put\ndata: {\"key\":\"a\",\"revision\":12,\"value\":\"id: 7\"}\n\n\
                  id: 12\nevent: delete\ndata: {\"key\":\"b\",\"revision\":12}\n\n\
                  id: 105\nevent: put\ndata: {\"key\":\"a\",\"revision\":105,\"value\":\"\"}\n\n: 106\n\n";
    let scratch = tempfile::tempdir().expect("a scratch directory");
    std::fs::write(scratch.path().join("all"), events).expect("a file");
    let last = events.len();
    let script = format!(
        "size=0; while [ $size -le {last} ]; do
            head -c $size all > events; {command}; echo \"$last\"; size=$((size + 1))
        done"
    );
    let output = shell(&["sh"], &script, scratch.path());
    let printed = String::from_utf8(output.stdout).expect("text");
    let printed: Vec<&str> = printed.lines().collect();
    assert_eq!(printed.len(), last + 1, "{}", String::from_utf8_lossy(&output.stderr));
    for (size, printed) in printed.iter().enumerate() {
        let whole = events[..size].rfind("\n\n").map_or("", |end| &events[..end]);
        let mut ids = whole.lines().filter_map(|line| line.strip_prefix("id: "));
        assert_eq!(
            *printed,
            ids.next_back().unwrap_or_default(),
            "cut after {size} bytes: {:?}",
            &events[..size]
        );
    }
}

/// A lock that went to somebody else, at whatever moment, is not taken away by the recipe.
#[test]
fn the_lock_for_busybox_is_not_stolen() {
    if !has_busybox() {
        return report("SKIPPED: BusyBox is missing, and its lock was NOT tried; install it");
    }
    let cluster = Cluster::start(1);
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let recipe: Vec<String> = examples("console busybox")
        .into_iter()
        .map(|example| example.command)
        .skip_while(|command| !command.starts_with("lock="))
        .take_while(|command| !command.contains("tickets"))
        .collect();
    assert!(recipe.len() >= 5 && recipe.last().is_some_and(|last| last.contains("?delete&if_rev=")));
    // After this many commands the lock's time is over, and another host takes it.
    for lost_after in 1..4 {
        let script = format!(
            "wget() {{
                busybox wget \"$@\"; code=$?
                echo >> calls
                if [ $(wc -l < calls) = {lost_after} ]; then
                    busybox wget -q -O /dev/null --post-data thief \"$lock\"
                fi
                return $code
            }}
            {}
            busybox wget -q -O - \"$lock\" > holder; rm -f calls
            busybox wget -q -O /dev/null --post-data '' \"$lock?delete\"",
            recipe.join("\n")
        );
        let script = script.replace("localhost:8380", &cluster.client_address(0).to_string());
        let output = shell(&["busybox", "sh"], &script, scratch.path());
        let holder = std::fs::read_to_string(scratch.path().join("holder")).unwrap_or_default();
        assert_eq!(holder, "thief", "lost after {lost_after}: {output:?}");
    }
}

/// Whether there is BusyBox; it is installed where nobody is asked for a password, in containers and on build machines.
fn has_busybox() -> bool {
    let is_there = || Command::new("busybox").arg("true").status().is_ok_and(|status| status.success());
    is_there() || {
        let install = "test \"$(id -u)\" = 0 && command -v apt-get && install() {
                           apt-get install -y --no-install-recommends busybox
                       } && { install || { apt-get update && install; }; }";
        shell(&["sh"], install, Path::new("/")).status.success() && is_there()
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
    let output = shell(&["bash"], &script, Path::new(env!("CARGO_MANIFEST_DIR")));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains(r#"{"done":"true"}"#), "the demo shows a write:\n{text}");
}

#[test]
fn the_pattern_matcher_can_fail() {
    assert!(
        matches("a...c...e...", "abcde") && !matches("a...c...e", "abced") && !matches("a...b...b", "ab")
    );
    assert!(matches("host...", "host3") && matches("a...c", "abc") && matches("x", "x"));
    assert!(!matches("host...", "hos") && !matches("ab...bc", "abc") && !matches("x", "y"));
}
