//! Protocol stories: scripts of commands with their expected output, one file per story in `raft_stories`. Each begins
//! with what it shows and the ids that it covers; `support/raft_story.rs` documents the commands. After an intended
//! change, `UPDATE_GOLDENFILES=1 cargo test --test raft_stories every_story` writes the new output. Read it line by
//! line: what stands there is what Raft is expected to do.
//!
//! In the table, letters are requirements (A elections, B replication, C reads, D
//! snapshots, F disks), and `S` is a scenario that other Raft
//! implementations test as well. `tables::` and the like are functions with a line `/// Covers:` in the files of
//! `SOURCES`. Of S55, S58, S61 and S62 stands here what needs neither learners nor configuration changes. A
//! test below holds the table against the files.
//!
//! | id | covered by |
//! |---|---|
//! | A1 | candidate_crash_before_sync, election_first, own_vote_counts_after_sync, vote_lost_in_crash_was_no_promise, vote_survives_crash |
//! | A2 | candidate_crash_before_sync |
//! | A3 | split_vote, tables::one_vote_per_term, vote_survives_crash |
//! | A4 | tables::only_a_complete_log_gets_a_vote, vote_needs_complete_log |
//! | A5 | stale_term_changes_nothing |
//! | A6 | disruptive_follower, election_after_false_alarm, election_first, pre_vote_changes_nothing, pre_votes_without_end, tables::votes_in_every_role |
//! | A7 | pre_vote_of_lower_term_is_answered |
//! | A8 | later_term_makes_a_follower, stale_term_changes_nothing, stuck_candidate_is_freed |
//! | A9 | check_quorum, election_after_false_alarm, election_after_lost_leader, election_after_restart_of_leader, election_while_one_is_still_loyal, leader_superseded_after_silence, loyal_voters, tables::votes_in_every_role, transfer, transfer_given_up, transfer_only_from_the_leader |
//! | A10 | partial_connectivity |
//! | A11 | not here: there are no learners |
//! | A12 | snapshot_ends_a_candidacy |
//! | A13 | candidate_falls_back, snapshot_ends_a_candidacy |
//! | A14 | election_single_node |
//! | A15 | late_votes_are_ignored, own_late_sync_counts_for_nothing |
//! | A16 | tables::timeouts_differ |
//! | A17 | two_leaders_of_one_term |
//! | B1 | commit_needs_own_term, figure_8, tables::only_the_own_term_is_counted |
//! | B2 | commit_needs_own_term, election_first, read_waits_for_first_commit, replication |
//! | B3 | election_single_node, leader_crashes_before_its_sync, own_late_sync_counts_for_nothing, rejoin_of_an_old_leader, replication |
//! | B4 | ack_names_what_was_compared, follower_acknowledges_after_sync, tables::what_precedes_must_match |
//! | B5 | ack_names_what_was_compared, heartbeat_names_what_is_known, rolled_back_disk_commits_nothing, tables::commit_is_bounded_by_what_was_compared |
//! | B6 | late_appends_remove_nothing, tables::only_conflicts_are_cut |
//! | B7 | cut_and_append_is_one_step, full_disk_cuts_nothing |
//! | B8 | committed_entries_are_never_replaced |
//! | B9 | cut_and_append_is_one_step, replication, tables::commit_is_bounded_by_what_was_compared |
//! | B10 | figure_7, long_divergent_tails, tables::appends_under_the_snapshot_are_common, tables::every_follower_log_becomes_the_leaders, tables::refusals_name_the_last_entry_that_may_be_common, tables::refusals_skip_whole_terms |
//! | B11 | late_rejection_is_ignored, progress::late_answers_change_nothing, progress::nothing_is_lost_without_a_new_connection, tables::answers_move_the_view_of_a_peer |
//! | B12 | late_rejection_is_ignored, promises_are_withdrawn, read_late_answers_over_leader_change, snapshot_of_a_stale_leader |
//! | B13 | lost_probe_is_repeated, progress::the_window_is_bounded_in_messages_and_bytes, window_full, window_moves |
//! | B14 | lost_probe_is_repeated, reconnected_peer |
//! | B15 | malformed_appends, tables::the_largest_index_is_no_trap |
//! | B16 | tables::an_unreadable_entry_is_an_error_and_no_guess |
//! | B17 | large_entries |
//! | B18 | replica::a_long_log_is_applied_in_portions |
//! | B19 | contradicting_disks_are_refused, tables::a_snapshot_is_never_durable_before_its_term |
//! | B20 | compaction_keeps_what_is_needed, log_begins_behind_a_snapshot, snapshot_install, snapshot_replaces_a_conflicting_log, tables::appends_under_the_snapshot_are_common |
//! | B21 | not here: Raft keeps no entries beside the storage |
//! | B22 | quorum::commit_table, strangers_are_ignored |
//! | B23 | heartbeat_names_what_is_known, lost_commit_notice |
//! | B24 | acknowledgements_of_an_earlier_life, admission_after_damage, peer_that_lost_its_disk, progress::a_lost_entry_shows_behind_the_beginning_of_the_log, progress::a_peer_that_lost_entries_starts_over, rolled_back_disk_commits_nothing |
//! | B25 | replication_batches, traffic |
//! | B26 | slow_minority, tables::commit_by_majority |
//! | C1 | read_on_single_voter, read_waits_for_first_commit |
//! | C2 | read_late_answers, read_late_answers_over_leader_change |
//! | C3 | read_after_pause, read_late_answers, read_on_leader, reads_are_confirmed_in_order |
//! | C4 | read_on_follower, read_on_leader |
//! | C5 | read_dropped_on_leader_change, read_on_follower |
//! | C6 | read_after_restart |
//! | C7 | read_on_single_voter |
//! | C8 | read_after_pause, read_late_answers_over_leader_change, read_on_deposed_leader |
//! | C10 | read_dropped_on_leader_change, read_on_deposed_leader |
//! | C12 | read_on_leader |
//! | C14 | read_contexts_are_bounded |
//! | D1 | snapshot_of_what_is_here, snapshot_replaces_a_conflicting_log, tables::a_snapshot_is_never_durable_before_its_term, tables::a_snapshot_meets_every_log |
//! | D2 | snapshot_old_is_ignored, tables::a_snapshot_meets_every_log |
//! | D6 | snapshot_lost_parts, snapshot_parts |
//! | D7 | snapshot_begins_anew_with_a_newer_one |
//! | D8 | snapshot_ends_a_candidacy, snapshot_install |
//! | D9 | snapshot_abandoned, snapshot_install, snapshot_overtaken_by_entries, snapshot_succeeds_by_append_response |
//! | D10 | snapshot_lost_parts, snapshot_only_for_who_answers, snapshot_refused, snapshot_that_was_damaged, snapshot_without_a_file_for_the_log |
//! | D11 | slow_follower_after_compaction |
//! | D14 | not here: the members of a cluster are fixed |
//! | F14 | full_disk_cuts_nothing, full_follower, full_leader, full_leader_without_successor, snapshot_refused, snapshot_without_a_file_for_the_log |
//! | F21 | acknowledgements_of_an_earlier_life, admission_after_damage, admission_forgotten_vote, admission_founding, admission_joining, admission_needs_the_present_leader, admission_of_a_wiped_node, tables::founders_wait_for_who_may_have_data, tables::one_of_two_is_admitted_by_the_other, tables::who_is_admitted, transfer_to_a_node_that_may_not_vote |
//! | F22 | peer_that_lost_its_disk, rolled_back_disk_is_told, votes_of_a_rolled_back_disk |
//! | S1 | later_term_makes_a_follower |
//! | S2 | stale_term_changes_nothing |
//! | S3 | election_first, traffic |
//! | S4 | election_first, split_vote |
//! | S5 | election_first, election_single_node, tables::one_round_of_votes |
//! | S6 | tables::one_vote_per_term, vote_survives_crash |
//! | S7 | candidate_falls_back |
//! | S8 | tables::timeouts_differ |
//! | S9 | large_entries, replication |
//! | S10 | replication, slow_minority, tables::commit_by_majority |
//! | S11 | commit_needs_own_term |
//! | S12 | replication, replication_batches |
//! | S13 | tables::what_precedes_must_match |
//! | S14 | late_appends_remove_nothing, rejoin_of_an_old_leader, tables::only_conflicts_are_cut |
//! | S15 | figure_7, tables::every_follower_log_becomes_the_leaders |
//! | S16 | tables::only_a_complete_log_gets_a_vote, tables::what_a_candidate_advertises, vote_needs_complete_log |
//! | S17 | figure_8, tables::only_the_own_term_is_counted |
//! | S18 | ack_names_what_was_compared, tables::commit_is_bounded_by_what_was_compared |
//! | S19 | election_overwrites_newer_logs, rejoin_of_an_old_leader |
//! | S20 | commit_needs_own_term, figure_8 |
//! | S21 | tables::votes_in_every_role |
//! | S22 | long_divergent_tails, tables::appends_under_the_snapshot_are_common, tables::refusals_skip_whole_terms |
//! | S23 | late_rejection_is_ignored |
//! | S24 | tables::answers_move_the_view_of_a_peer |
//! | S25 | lost_probe_is_repeated, window_full |
//! | S26 | read_on_follower, read_on_leader, read_waits_for_first_commit |
//! | S27 | read_late_answers_over_leader_change |
//! | S28 | not here: there are no learners, and no quorum shrinks |
//! | S29 | check_quorum |
//! | S30 | leader_superseded_after_silence, loyal_voters, transfer |
//! | S31 | stuck_candidate_is_freed |
//! | S32 | disruptive_follower, leader_superseded_after_silence |
//! | S33 | strangers_are_ignored |
//! | S34 | pre_vote_of_lower_term_is_answered |
//! | S35 | split_vote |
//! | S36 | late_votes_are_ignored |
//! | S37 | own_late_sync_counts_for_nothing, promises_are_withdrawn |
//! | S38 | snapshot_of_what_is_here, snapshot_old_is_ignored, snapshot_replaces_a_conflicting_log, tables::a_snapshot_meets_every_log |
//! | S39 | snapshot_install, snapshot_only_for_who_answers |
//! | S40 | snapshot_install, snapshot_lost_parts, snapshot_of_a_stale_leader, snapshot_only_for_who_answers, snapshot_refused |
//! | S41 | not here: nothing makes or installs a snapshot, and a configuration stays |
//! | S42 | progress::the_window_is_bounded_in_messages_and_bytes, window_full, window_moves |
//! | S43 | large_entries, progress::a_peer_that_lost_entries_starts_over, progress::late_answers_change_nothing, progress::the_window_is_bounded_in_messages_and_bytes, tables::answers_move_the_view_of_a_peer, window_full, window_moves |
//! | S44 | replica::a_new_leader_commits_what_it_inherited_first, replica::too_many_bytes_are_refused, replica::uncommitted_bytes_are_bounded |
//! | S45 | not here: there are no configuration changes |
//! | S46 | not here: there are no configuration changes |
//! | S47 | not here: there are no configuration changes |
//! | S48 | not here: there are no configuration changes |
//! | S49 | not here: there are no learners |
//! | S50 | transfer, transfer_given_up, transfer_only_from_the_leader, transfer_to_a_node_that_may_not_vote |
//! | S51 | not here: there are no configuration changes, so every node stays a voter; a message from a stranger changes nothing, see S33 |
//! | S52 | replica::a_long_log_is_applied_in_portions |
//! | S53 | not here: there are no configuration changes |
//! | S54 | tables::appends_under_the_snapshot_are_common, tables::refusals_name_the_last_entry_that_may_be_common, tables::refusals_skip_whole_terms |
//! | S55 | compaction_keeps_what_is_needed, tables::appends_under_the_snapshot_are_common |
//! | S56 | figure_7 |
//! | S57 | own_late_sync_counts_for_nothing, promises_are_withdrawn |
//! | S58 | lost_commit_notice, reconnected_peer, slow_follower_after_compaction, window_full |
//! | S59 | snapshot_succeeds_by_append_response |
//! | S60 | not here: there are no configuration changes |
//! | S61 | check_quorum, disruptive_follower, loyal_voters, pre_vote_changes_nothing |
//! | S62 | quorum::commit_table, quorum::vote_table |
//! | S63 | not here: votes do not carry the commit index, because the new leader's own entry tells it after one more round trip |
//! | S64 | restart_keeps_term_vote_and_commit, vote_survives_crash |
//! | S65 | read_on_deposed_leader, read_on_leader, reads_are_confirmed_in_order |
//! | S66 | not here: there are no configuration changes |
//! | S67 | disruptive_follower, pre_votes_without_end |

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use support::raft_story::StoryRunner;

/// What has to be in the table above, by first letter and numbers.
const REQUIRED: [(&str, u32, u32); 12] = [
    ("A", 1, 17),
    ("B", 1, 26),
    ("C", 1, 8),
    ("C", 10, 10),
    ("C", 12, 12),
    ("C", 14, 14),
    ("D", 1, 2),
    ("D", 6, 11),
    ("D", 14, 14),
    ("F", 14, 14),
    ("F", 21, 22),
    ("S", 1, 67),
];

/// Where other tests are that cite ids, and how the table calls them.
const SOURCES: [(&str, &str); 5] = [
    ("progress", "../src/raft/progress.rs"),
    ("quorum", "quorum_tables.rs"),
    ("replica", "replica/limits.rs"),
    ("replica", "replica/writes.rs"),
    ("tables", "raft_tables.rs"),
];

fn tests_directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

fn story_paths() -> Vec<PathBuf> {
    let entries =
        fs::read_dir(tests_directory().join("raft_stories")).expect("the stories are beside this file");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("readable").path()).collect();
    paths.sort();
    paths
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).expect("a test's own files are readable")
}

#[test]
fn every_story_goes_as_told() {
    let mut failed = Vec::new();
    for path in story_paths() {
        let run = || goldenscript::run(&mut StoryRunner::default(), &path);
        match catch_unwind(AssertUnwindSafe(run)) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => failed.push(format!("{}: {error}", path.display())),
            Err(_) => failed.push(format!("{}: panics or differs, see above", path.display())),
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// Which stories and table tests cite each id.
fn citations() -> BTreeMap<String, BTreeSet<String>> {
    let mut cited: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut add = |ids: &str, place: &str| {
        for id in ids.split_whitespace() {
            cited.entry(id.into()).or_default().insert(place.into());
        }
    };
    for path in story_paths() {
        let name = path.file_name().expect("a file").to_string_lossy().into_owned();
        let text = read(&path);
        let heading: Vec<&str> = text.lines().take_while(|line| line.starts_with('#')).collect();
        let ids = heading.iter().find_map(|line| line.strip_prefix("# Covers: "));
        assert!(heading.len() > 1, "{name} begins with a sentence that says what it shows");
        add(ids.unwrap_or_else(|| panic!("{name} says in its heading what it covers")), &name);
    }
    for (prefix, path) in SOURCES {
        let mut ids = None;
        for line in read(&tests_directory().join(path)).lines().map(str::trim_start) {
            if let Some(list) = line.strip_prefix("/// Covers: ") {
                ids = Some(list.to_string());
            } else if let Some(function) = line.strip_prefix("fn ")
                && let Some(list) = ids.take()
            {
                let name = function.split('(').next().expect("a function has a name");
                add(&list, &format!("{prefix}::{name}"));
            }
        }
    }
    cited
}

/// The rows of the table in this file's documentation.
fn documented() -> BTreeMap<String, String> {
    let rows = include_str!("raft_stories.rs").lines().filter_map(|line| line.strip_prefix("//! | "));
    let cells = rows.filter_map(|row| row.strip_suffix(" |")?.split_once(" | "));
    cells.map(|(id, places)| (id.trim().to_string(), places.trim().to_string())).collect()
}

/// The table cannot rot: it has every required id, and says of each exactly where it is cited.
#[test]
fn the_table_is_complete_and_true() {
    let (cited, mut rows) = (citations(), documented());
    rows.remove("id");
    let required = REQUIRED
        .iter()
        .flat_map(|(letter, first, last)| (*first..=*last).map(move |n| format!("{letter}{n}")));
    let known: BTreeSet<String> = required.chain(cited.keys().cloned()).collect();
    let mut wrong = Vec::new();
    for id in &known {
        let places = cited.get(id).map(|places| places.iter().cloned().collect::<Vec<String>>().join(", "));
        let expected = match (places, rows.remove(id)) {
            (Some(places), row) if row.as_deref() == Some(&places) => continue,
            (None, Some(row)) if row.starts_with("not here: ") => continue,
            (Some(places), _) => places,
            (None, _) => "nothing cites it: write a story, or say \"not here: \" and why".into(),
        };
        wrong.push(format!("//! | {id} | {expected} |"));
    }
    wrong.extend(rows.keys().map(|id| format!("{id} is in the table, but neither required nor cited")));
    assert!(wrong.is_empty(), "the table should say\n{}", wrong.join("\n"));
}
