//! Disks that misbehave, under real processes: lost, set back to an older copy, damaged. Nothing that was acknowledged is
//! lost, nothing is repaired by hand, and the operator is told.

mod support;

use std::time::{Duration, Instant};

use support::cluster::{Cluster, ClusterOptions, PATIENCE, report, wait_for};
use support::disks::{
    SMALL_FILES, check, copy_directory, empty_directory, file_names, flip_bit, get, kill_all, put, stop,
    wait_said, write_some,
};
use support::workload::assert_all_there;

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

// F22: also when it was made since the last start: then the leader finds what is missing.
#[test]
fn a_copy_from_after_the_last_start_is_noticed() {
    set_back(0);
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
    if starts == 0 {
        copy_directory(&directory, &copy);
        write_some(&mut cluster.client(victim), "life", 20, &mut kept);
    }
    stop(&mut cluster, victim);
    if starts > 0 {
        copy_directory(&directory, &copy);
    }
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
