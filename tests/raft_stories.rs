//! Protocol stories.

mod support;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use support::raft_story::StoryRunner;

fn story_paths() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/raft_stories");
    let entries = fs::read_dir(directory).expect("the stories are beside this file");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("readable").path()).collect();
    paths.sort();
    paths
}

#[test]
fn every_story_goes_as_told() {
    let mut failed = Vec::new();
    for path in story_paths() {
        let run = || goldenscript::run(&mut StoryRunner::default(), &path);
        match catch_unwind(AssertUnwindSafe(run)) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => failed.push(format!("{}: {error}", path.display())),
            Err(_) => failed.push(format!("{}: panicked or differs, see above", path.display())),
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
