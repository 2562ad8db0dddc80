//! Full disks under real processes: what makes the data grow is refused, the rest works, nothing that was acknowledged is
//! lost, and space that comes back is used. And how small the files stay.

mod support;

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use support::cluster::{Cluster, ClusterOptions, PATIENCE, report, wait_for};
use support::disks::{SMALL_FILES, directory_bytes, get, kill_all, put, wait_said, write_some};
use support::http_client::HttpClient;
use support::http_message::Answer;
use support::workload::{Acknowledged, assert_all_there, write_once};

/// What a directory may take besides three times its data.
const FIXED_BYTES: u64 = 32 << 20;

/// A small file system in memory, unmounted when dropped.
struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    fn mount(path: &Path, size: &str) -> Option<SmallDisk> {
        std::fs::create_dir(path).expect("a directory for the disk");
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(path);
        let mounted = command.stderr(Stdio::null()).status().is_ok_and(|status| status.success());
        mounted.then(|| SmallDisk { path: path.to_owned() })
    }

    /// Somebody else's file takes all the space that is left.
    fn fill(&self) {
        let mut ballast = File::create(self.ballast()).expect("a file on the disk");
        let block = vec![0x55; 64 << 10];
        while ballast.write_all(&block).is_ok() {}
        let rest = vec![0x55; 4096];
        while ballast.write_all(&rest).is_ok() {}
    }

    /// That file goes.
    fn make_space(&self) {
        std::fs::remove_file(self.ballast()).expect("it is there");
    }

    fn ballast(&self) -> PathBuf {
        self.path.join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the node may just be ending.
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}

fn skip(test: &str) {
    report(&format!("\n!!!! SKIPPED {test}: it may not mount a tmpfs !!!!\n"));
}

// ---- a full disk --------------------------------------------------------------------------------------------------

/// Writes new keys until the disk is full. What was acknowledged is in `kept`.
fn write_until_full(client: &mut HttpClient, name: &str, kept: &mut Vec<Acknowledged>) -> Answer {
    let value = "0123456789abcdef".repeat(2_000);
    for number in 0..10_000 {
        let key = format!("{name}/{number}");
        let answer = put(client, &key, &value);
        match answer.status {
            200 => {
                let revision = answer.revision().expect("a write has a revision");
                kept.push(Acknowledged { key, value: value.clone(), revision, at: Instant::now() });
            }
            507 => return answer,
            status => panic!("{status} {}", answer.text()),
        }
    }
    panic!("320 MB do not fill the disk");
}

/// What works on a full disk, and what does not.
fn assert_full(client: &mut HttpClient, kept: &mut Vec<Acknowledged>) {
    let refused = put(client, "more", &"x".repeat(20_000));
    assert_eq!(refused.status, 507, "{}", refused.text());
    for part in ["\"code\":\"disk-full\"", "\"applied\":\"no\"", "make space", "delete keys"] {
        assert!(refused.text().contains(part), "{}", refused.text());
    }
    assert_eq!(get(client, "/v1/storage/key/more").status, 204, "surely not applied");
    let gone = kept.pop().expect("something was written");
    let target = format!("/v1/storage/key/{}", gone.key);
    let deleted = client.request("DELETE", &target, &[], b"").expect("an answer");
    assert_eq!(deleted.status, 200, "{}", deleted.text());
    assert_eq!(get(client, &target).status, 204);
    // No larger than what it replaces.
    let smaller = kept.pop().expect("more than one was written");
    let answer = put(client, &smaller.key, "small");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let revision = answer.revision().expect("a write has a revision");
    kept.push(Acknowledged { value: "small".into(), revision, at: Instant::now(), ..smaller });
    assert_all_there(client, kept);
    let ready = get(client, "/readyz?verbose");
    assert!(ready.status == 200 && ready.text().contains("disk: full"), "{}", ready.text());
    let cluster = get(client, "/v1/cluster").text();
    assert!(cluster.contains("\"disk_full\": true"), "{cluster}");
}

// F14: reads and deletions work, growth is refused, a restart works, and space that comes back is used.
#[test]
fn a_full_disk_refuses_growth_and_recovers_by_itself() {
    let mut cluster = Cluster::create(&ClusterOptions::new(1).wait_time("0.5").settings(SMALL_FILES));
    let Some(disk) = SmallDisk::mount(&cluster.directory().join("disk"), "48m") else {
        return skip("a_full_disk_refuses_growth_and_recovers_by_itself");
    };
    cluster.node(0).set_working_directory(&disk.path.join("workdir1"));
    cluster.start_node(0);
    let mut client = cluster.client(0);
    let mut kept = Vec::new();
    write_some(&mut client, "first", 10, &mut kept);
    disk.fill();
    let offset = cluster.node(0).log_length();
    write_until_full(&mut client, "fill", &mut kept);
    wait_said(
        &mut cluster,
        0,
        offset,
        &["WARN", "the disk is full", "507", "make space", "goes on by itself"],
    );
    assert_full(&mut client, &mut kept);

    cluster.node(0).kill();
    cluster.start_node(0);
    let mut client = cluster.client(0);
    assert_all_there(&mut client, &kept);
    write_until_full(&mut client, "refill", &mut kept);
    assert_full(&mut client, &mut kept);

    let offset = cluster.node(0).log_length();
    disk.make_space();
    wait_for("writes to be taken again", || {
        (put(&mut client, "again", "there is space").status == 200).then_some(())
    });
    wait_said(&mut cluster, 0, offset, &["the disk has room again"]);
    write_some(&mut client, "after", 100, &mut kept);
    assert_all_there(&mut client, &kept);
    // Before the disk goes.
    cluster.node(0).kill();
}

// F14: the others go on, also when it was the leader, and the node catches up when it can.
// F14: a disk that the data themselves have filled: every deletion is taken, and what is deleted makes room by itself.
#[test]
fn deletions_make_room_on_a_full_disk() {
    let mut cluster = Cluster::create(&ClusterOptions::new(1).wait_time("0.5").settings(SMALL_FILES));
    let Some(disk) = SmallDisk::mount(&cluster.directory().join("disk"), "48m") else {
        return skip("deletions_make_room_on_a_full_disk");
    };
    cluster.node(0).set_working_directory(&disk.path.join("workdir1"));
    cluster.start_node(0);
    let mut client = cluster.client(0);
    let mut kept = Vec::new();
    write_until_full(&mut client, "fill", &mut kept);
    for gone in kept.split_off(kept.len() / 4) {
        let deleted = client.request("DELETE", &format!("/v1/storage/key/{}", gone.key), &[], b"");
        let deleted = deleted.expect("an answer");
        assert_eq!(deleted.status, 200, "{}", deleted.text());
    }
    wait_for("writes to be taken again", || {
        (put(&mut client, "again", &"y".repeat(20_000)).status == 200).then_some(())
    });
    assert_all_there(&mut client, &kept);
    cluster.node(0).kill();
}

#[test]
fn one_full_disk_stops_nobody() {
    let mut cluster = Cluster::create(&ClusterOptions::new(3).wait_time("0.5").settings(SMALL_FILES));
    let Some(disk) = SmallDisk::mount(&cluster.directory().join("disk"), "48m") else {
        return skip("one_full_disk_stops_nobody");
    };
    cluster.node(0).set_working_directory(&disk.path.join("workdir1"));
    for node in 0..3 {
        cluster.node(node).start();
    }
    cluster.wait_all_ready();
    disk.fill();
    let offset = cluster.node(0).log_length();
    let mut client = cluster.client(1);
    let mut kept = Vec::new();
    let value = "0123456789abcdef".repeat(2_000);
    let start = Instant::now();
    while !cluster.node(0).log_since(offset).contains("the disk is full") {
        assert!(start.elapsed() < PATIENCE, "the disk of host1 does not become full");
        let key = format!("fill/{}", kept.len());
        // While leadership goes to a node with space, a write may be refused.
        if let Ok(revision) = write_once(&mut client, &key, &value) {
            kept.push(Acknowledged { key, value: value.clone(), revision, at: Instant::now() });
        }
    }
    let leader = wait_for("a leader with space", || {
        let name = cluster.leader_by(1).filter(|name| name != "host1")?;
        (put(&mut client, "probe", &value).status == 200).then_some(name)
    });
    report(&format!("full disk: {leader} leads"));
    write_some(&mut client, "others", 500, &mut kept);
    cluster.node(0).assert_running();

    let refused = put(&mut cluster.client(0), "more", &value);
    assert!(
        matches!(refused.status, 503 | 504 | 507),
        "it cannot take it, and must not say so: {}",
        refused.text()
    );
    let offset = cluster.node(0).log_length();
    disk.make_space();
    cluster.wait_all_ready();
    wait_said(&mut cluster, 0, offset, &["the disk has room again"]);
    assert_all_there(&mut cluster.client(0), &kept);
    write_some(&mut cluster.client(0), "after", 100, &mut kept);
    assert_all_there(&mut cluster.client(1), &kept);
    kill_all(&mut cluster);
}

// D15: the directory stays small while the same keys are written again and again, and a restart needs little of it.
#[test]
fn the_directory_stays_small() {
    let mut cluster = Cluster::start_with(&ClusterOptions::new(1).wait_time("0.5"));
    let directory = cluster.node(0).working_directory().to_owned();
    let mut client = cluster.client(0);
    let (keys, value) = (8, "v".repeat(128 << 10));
    let live = keys * value.len() as u64;
    let mut last = Vec::new();
    for round in 0..120 {
        last.clear();
        for number in 0..keys {
            let value = format!("{round} {value}");
            let (key, answer) = (format!("k{number}"), put(&mut client, &format!("k{number}"), &value));
            assert_eq!(answer.status, 200, "{}", answer.text());
            let revision = answer.revision().expect("a write has a revision");
            last.push(Acknowledged { key, value, revision, at: Instant::now() });
        }
        let bytes = directory_bytes(&directory);
        assert!(
            bytes <= 3 * live + FIXED_BYTES,
            "{bytes} bytes of files after {round} rounds, {live} of data"
        );
    }
    assert!(get(&mut client, "/v1/cluster").text().contains("\"snapshot\": {"), "a snapshot was taken");
    cluster.node(0).kill();
    cluster.start_node(0);
    assert_all_there(&mut cluster.client(0), &last);
}
