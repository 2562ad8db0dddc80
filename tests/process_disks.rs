//! Disks that misbehave, under real processes: full, lost, set back to an older copy, damaged. Nothing that was
//! acknowledged is lost, nothing is repaired by hand, and the operator is told.

mod support;

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use support::cluster::{Cluster, ClusterOptions, PATIENCE, report, wait_for};
use support::http_client::HttpClient;
use support::http_message::Answer;
use support::node_process::NodeProcess;
use support::workload::{Acknowledged, assert_all_there, write_once};

/// Small files, so that little data makes many of them.
const SMALL_FILES: &str = "[storage]\nsegment_size = '1MiB'\nsnapshot_log_size = '1MiB'\n";
/// What a directory may take besides three times its data.
const FIXED_BYTES: u64 = 32 << 20;

// ---- helpers ------------------------------------------------------------------------------------------------------

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

fn put(client: &mut HttpClient, key: &str, value: &str) -> Answer {
    let target = format!("/v1/storage/key/{key}");
    client.request("PUT", &target, &[], value.as_bytes()).unwrap_or_else(|failure| panic!("{key}: {failure}"))
}

fn get(client: &mut HttpClient, target: &str) -> Answer {
    client.request("GET", target, &[], b"").unwrap_or_else(|failure| panic!("{target}: {failure}"))
}

/// Writes that must succeed.
fn write_some(client: &mut HttpClient, name: &str, count: usize, kept: &mut Vec<Acknowledged>) {
    for number in 0..count {
        let (key, value) = (format!("{name}/{number}"), format!("{name} {number} ").repeat(100));
        let revision = write_once(client, &key, &value).unwrap_or_else(|mishap| panic!("{key}: {mishap:?}"));
        kept.push(Acknowledged { key, value, revision, at: Instant::now() });
    }
}

/// Waits until a node says all of `parts` in one line behind `offset` of its log.
fn wait_said(cluster: &mut Cluster, node: usize, offset: u64, parts: &[&str]) -> String {
    wait_for(&format!("host{} to say {parts:?}", node + 1), || {
        let said = cluster.node(node).log_since(offset);
        said.lines().find(|line| parts.iter().all(|part| line.contains(part))).map(str::to_owned)
    })
}

/// Stops a node in good order.
fn stop(cluster: &mut Cluster, node: usize) {
    cluster.node(node).terminate();
    assert!(cluster.node(node).wait_exit(PATIENCE).success());
}

fn kill_all(cluster: &mut Cluster) {
    let all: Vec<usize> = (0..cluster.len()).collect();
    cluster.kill_at_once(&all);
}

fn copy_directory(from: &Path, to: &Path) {
    std::fs::create_dir(to).expect("a new directory");
    for file in std::fs::read_dir(from).expect("a directory") {
        let file = file.expect("an entry");
        std::fs::copy(file.path(), to.join(file.file_name())).expect("a copy");
    }
}

fn empty_directory(path: &Path) {
    std::fs::remove_dir_all(path).expect("it is there");
    std::fs::create_dir(path).expect("it was there");
}

fn file_names(path: &Path) -> Vec<String> {
    let files = std::fs::read_dir(path).expect("a directory");
    files.map(|file| file.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
}

/// What the files of a directory take. Files come and go meanwhile.
fn directory_bytes(path: &Path) -> u64 {
    let files = std::fs::read_dir(path).expect("a directory");
    files.filter_map(|file| file.ok()?.metadata().ok()).map(|metadata| metadata.len()).sum()
}

/// Changes a bit of the first log file that holds `needle`. Returns the file's name and the place.
fn flip_bit(directory: &Path, needle: &str) -> (String, usize) {
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

fn check(directory: &Path) -> (Option<i32>, String) {
    let output: Output = Command::new(NodeProcess::program())
        .args(["check", "--verbose", "--working-directory"])
        .arg(directory)
        .output()
        .expect("the program starts");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
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

// ---- a lost disk --------------------------------------------------------------------------------------------------

// F21: a node that comes back with nothing is told of, gets everything and then counts again.
#[test]
fn a_wiped_node_comes_back() {
    let mut cluster = Cluster::start_with(&ClusterOptions::new(3).wait_time("0.5").settings(SMALL_FILES));
    let leader = cluster.leader();
    let victim = cluster.others(leader)[0];
    let mut kept = Vec::new();
    write_some(&mut cluster.client(victim), "before", 50, &mut kept);
    let offset = cluster.node(leader).log_length();
    cluster.node(victim).kill();
    empty_directory(cluster.node(victim).working_directory());
    let own_offset = cluster.node(victim).log_length();
    cluster.start_node(victim);
    wait_said(&mut cluster, leader, offset, &["ERROR", "lost its disk"]);
    wait_said(&mut cluster, victim, own_offset, &["working directory is new"]);
    assert_all_there(&mut cluster.client(victim), &kept);
    // Its names of writes must not be those of its earlier life.
    write_some(&mut cluster.client(victim), "after", 50, &mut kept);
    assert_all_there(&mut cluster.client(leader), &kept);
    // It counts again: with it alone the leader is still a majority.
    let third = cluster.others(leader).into_iter().find(|node| *node != victim).expect("three nodes");
    cluster.node(third).kill();
    cluster.wait_leader(&[leader, victim]);
    write_some(&mut cluster.client(victim), "two", 50, &mut kept);
    assert_all_there(&mut cluster.client(victim), &kept);
}

// F21: without what the third node knows, nobody can say what the wiped one has promised. So it does not vote.
#[test]
fn a_wiped_node_does_not_vote_until_everybody_has_answered() {
    let mut cluster = Cluster::start_with(&ClusterOptions::new(3).wait_time("0.3").settings(SMALL_FILES));
    let mut kept = Vec::new();
    write_some(&mut cluster.client(0), "before", 20, &mut kept);
    kill_all(&mut cluster);
    let victim = 2;
    empty_directory(cluster.node(victim).working_directory());
    for node in [0, victim] {
        cluster.node(node).start();
    }
    let mut client = cluster.client(victim).with_timeout(Duration::from_secs(5));
    let ready = wait_for("the wiped node to answer", || {
        let answer = client.request("GET", "/readyz?verbose&timeout=100ms", &[], b"").ok()?;
        answer.text().contains("votes: not yet").then_some(answer)
    });
    assert_eq!(ready.status, 503, "{}", ready.text());
    let end = Instant::now() + Duration::from_secs(3);
    while Instant::now() < end {
        for node in [0, victim] {
            assert_eq!(
                cluster.leader_by(node),
                None,
                "elected with the vote of a node that may have voted before"
            );
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    // It has nothing, and says so instead of "no such key".
    let stale = get(&mut client, "/v1/storage/key/before/0?consistency=stale");
    assert_eq!(stale.status, 503, "{}", stale.text());
    for part in ["\"code\":\"not-ready\"", "another node"] {
        assert!(stale.text().contains(part), "{}", stale.text());
    }
    assert_eq!(stale.header("retry-after"), Some("1"));
    assert_eq!(put(&mut client, "x", "y").status, 503);

    cluster.node(1).start();
    cluster.wait_all_ready();
    assert_all_there(&mut cluster.client(victim), &kept);
    assert_eq!(get(&mut cluster.client(0), "/v1/storage/key/x").status, 204, "surely not applied");
}

// F22: a disk that was set back to an older copy is noticed, gets what it lacks, and no write is lost.
#[test]
fn an_older_copy_of_a_disk_is_noticed() {
    set_back(2);
}

// F22: also when its next start has a number that was met before.
#[test]
fn a_copy_from_before_the_last_start_is_noticed() {
    set_back(1);
}

/// Sets a disk back by so many starts.
fn set_back(starts: usize) {
    let mut cluster = Cluster::start_with(&ClusterOptions::new(3).wait_time("0.5").settings(SMALL_FILES));
    let leader = cluster.leader();
    let victim = cluster.others(leader)[0];
    let mut kept = Vec::new();
    write_some(&mut cluster.client(victim), "old", 20, &mut kept);
    let directory = cluster.node(victim).working_directory().to_owned();
    let copy = cluster.directory().join("copy");
    stop(&mut cluster, victim);
    copy_directory(&directory, &copy);
    for life in 0..starts {
        cluster.start_node(victim);
        write_some(&mut cluster.client(victim), &format!("life{life}"), 20, &mut kept);
        stop(&mut cluster, victim);
    }
    let (offset, own_offset) = (cluster.node(leader).log_length(), cluster.node(victim).log_length());
    std::fs::remove_dir_all(&directory).expect("it is there");
    std::fs::rename(&copy, &directory).expect("the copy takes its place");
    cluster.start_node(victim);
    wait_said(&mut cluster, leader, offset, &["ERROR", "went back in time"]);
    wait_said(&mut cluster, victim, own_offset, &["ERROR", "an older copy of the working directory"]);
    assert_all_there(&mut cluster.client(victim), &kept);
    wait_said(&mut cluster, victim, own_offset, &["this node votes from here on"]);
    cluster.wait_ready(victim);
    write_some(&mut cluster.client(victim), "after", 20, &mut kept);
    for node in 0..3 {
        assert_all_there(&mut cluster.client(node), &kept);
    }
    // Its vote counts again, also for those who have noticed.
    let leader = cluster.leader();
    let two = cluster.others(leader);
    cluster.node(leader).kill();
    cluster.wait_leader(&two);
    write_some(&mut cluster.client(victim), "two", 20, &mut kept);
    assert_all_there(&mut cluster.client(victim), &kept);
}

// ---- a damaged disk -----------------------------------------------------------------------------------------------

// F7: damage to what was certain is found at the start, told with file and place, and repaired from the other nodes.
#[test]
fn a_damaged_log_is_repaired() {
    let mut cluster = Cluster::start_with(&ClusterOptions::new(3).wait_time("0.5"));
    let mut kept = Vec::new();
    write_some(&mut cluster.client(0), "before", 50, &mut kept);
    let needle = "a-needle-in-the-log".repeat(20);
    assert_eq!(put(&mut cluster.client(0), "needle", &needle).status, 200);
    write_some(&mut cluster.client(0), "behind", 50, &mut kept);
    for node in 0..3 {
        assert_all_there(&mut cluster.client(node), &kept[..1]);
    }
    for node in 0..3 {
        stop(&mut cluster, node);
    }
    let directory = cluster.node(0).working_directory().to_owned();
    let (code, text) = check(&directory);
    assert_eq!(code, Some(0), "{text}");
    let (file, place) = flip_bit(&directory, &needle);
    let (code, text) = check(&directory);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains(&file), "{text}");

    // Alone it waits: it cannot know what else it has promised.
    let offset = cluster.node(0).log_length();
    cluster.node(0).start();
    let said = wait_said(&mut cluster, 0, offset, &["ERROR", &file, "is damaged at byte"]);
    report(&format!("damage at byte {place}: {said}"));
    let offset_said = said.split("is damaged at byte ").nth(1).and_then(|rest| rest.split(':').next());
    let record: usize = offset_said.and_then(|text| text.parse().ok()).expect("a place in the file");
    assert!(record <= place && place - record < 4096, "the record that holds byte {place}: {said}");
    for part in ["set aside", "the other nodes"] {
        assert!(said.contains(part), "{said}");
    }
    let names = file_names(&directory);
    let is_kept = |name: &String| name.starts_with("damaged-") && name.ends_with(&file);
    assert!(names.iter().any(is_kept), "{names:?}");
    let mut client = cluster.client(0).with_timeout(Duration::from_secs(5));
    wait_for("the node to say what it waits for", || {
        let answer = client.request("GET", "/readyz?verbose&timeout=100ms", &[], b"").ok()?;
        (answer.status == 503 && answer.text().contains("being fetched from the leader")).then_some(())
    });
    let stale = get(&mut client, "/v1/storage/key/before/0?consistency=stale");
    assert_eq!(
        stale.status,
        503,
        "it has nothing, and must not say that the key is missing: {}",
        stale.text()
    );

    for node in 1..3 {
        cluster.node(node).start();
    }
    cluster.wait_all_ready();
    for node in 0..3 {
        assert_all_there(&mut cluster.client(node), &kept);
    }
    assert_eq!(get(&mut cluster.client(0), "/v1/storage/key/needle").text(), needle);
    // It counts again.
    cluster.node(1).kill();
    cluster.wait_leader(&[0, 2]);
    write_some(&mut cluster.client(0), "after", 20, &mut kept);
    assert_all_there(&mut cluster.client(2), &kept);
    stop(&mut cluster, 0);
    let (code, text) = check(&directory);
    assert_eq!(code, Some(0), "{text}");
}

// F7: alone there is nobody to repair from, so the node refuses to start and changes nothing.
#[test]
fn a_damaged_log_without_other_nodes_is_refused() {
    let mut cluster = Cluster::start_with(&ClusterOptions::new(1).wait_time("0.5"));
    let mut kept = Vec::new();
    write_some(&mut cluster.client(0), "before", 10, &mut kept);
    let needle = "a-needle-in-the-log".repeat(20);
    assert_eq!(put(&mut cluster.client(0), "needle", &needle).status, 200);
    write_some(&mut cluster.client(0), "behind", 10, &mut kept);
    stop(&mut cluster, 0);
    let directory = cluster.node(0).working_directory().to_owned();
    let (file, _) = flip_bit(&directory, &needle);
    let before = file_names(&directory).len();
    let offset = cluster.node(0).log_length();
    cluster.node(0).start();
    let status = cluster.node(0).wait_exit(PATIENCE);
    assert_eq!(status.code(), Some(2), "{status}");
    let said = cluster.node(0).log_since(offset);
    let last = said.lines().last().expect("it says why");
    assert!(last.contains(&file) && last.contains("is damaged at byte"), "{said}");
    assert_eq!(file_names(&directory).len(), before, "nothing was moved");
}

/// `keva check` leaves a running node alone.
#[test]
fn a_running_node_is_not_checked() {
    let mut cluster = Cluster::start(1);
    let directory = cluster.node(0).working_directory().to_owned();
    let (code, text) = check(&directory);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.starts_with("keva: ") && text.lines().count() == 1, "{text}");
    write_some(&mut cluster.client(0), "k", 3, &mut Vec::new());
    stop(&mut cluster, 0);
    let (code, text) = check(&directory);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("SOUND") && text.contains("host1"), "{text}");
}
