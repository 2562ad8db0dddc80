//! Many clients, few keys, nodes that die and stop and lose their links all the time: what the clients were told is
//! linearizable.

mod support;

use std::time::{Duration, Instant};

use fastrand::Rng;
use support::cluster::{Cluster, ClusterOptions, report};
use support::failover::make_leader;
use support::history::{History, Outcome};
use support::history_client::HistoryClients;
use support::relay::Relays;
use support::{linearizability, witness};

/// Operations to record, at least.
const OPERATIONS_MIN: usize = 24_000;
/// Faults to cause, at least.
const FAULTS_MIN: usize = 36;
/// A run that is not through by then hangs.
const TIME_MAX: Duration = Duration::from_secs(180);

/// What is done to the cluster while clients use it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Fault {
    KillLeader,
    KillFollower,
    KillMajority,
    KillAll,
    TerminateLeader,
    PauseLeader,
    PauseFollower,
    PauseMajority,
    IsolateSlowLeader,
    IsolateFollower,
    SeparatePair,
    BreakLinks,
}

const FAULTS: [Fault; 12] = [
    Fault::IsolateSlowLeader,
    Fault::KillLeader,
    Fault::PauseLeader,
    Fault::TerminateLeader,
    Fault::KillFollower,
    Fault::SeparatePair,
    Fault::PauseFollower,
    Fault::KillMajority,
    Fault::BreakLinks,
    Fault::PauseMajority,
    Fault::IsolateFollower,
    Fault::KillAll,
];

// C8, E3, E5, F1, F30: kill, pause and cut off any node at any time, and no answer is wrong.
#[test]
fn histories_with_faults_are_linearizable() {
    let seed = std::env::var("HISTORY_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    // Different time-outs, so that the first node, when it is cut off as the leader, goes on believing in itself while
    // the others have elected another one.
    let mut cluster = Cluster::start_with(&ClusterOptions::new(3).wait_times(&["4", "0.4"]).relayed());
    let nodes = (0..cluster.len()).map(|position| cluster.client_address(position)).collect();
    let clients = HistoryClients::start(nodes, 8, 24, seed);

    let mut rng = Rng::with_seed(seed);
    let start = Instant::now();
    let mut faults = 0;
    while clients.recorded() < OPERATIONS_MIN || faults < FAULTS_MIN {
        assert!(
            start.elapsed() < TIME_MAX,
            "{} operations, {faults} faults in {TIME_MAX:?}",
            clients.recorded()
        );
        std::thread::sleep(Duration::from_millis(rng.u64(100..500)));
        cause(FAULTS[faults % FAULTS.len()], &mut cluster, &mut rng);
        faults += 1;
    }
    let history = clients.stop();
    report(&format!("history: {}; {faults} faults in {:.1?}", history.summary(), start.elapsed()));

    let start = Instant::now();
    witness::check(&history).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    linearizability::check(&history).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    report(&format!("history: checked in {:.1?}", start.elapsed()));
    assert_worth_checking(&history);
}

/// A history in which hardly anything succeeds would prove nothing.
fn assert_worth_checking(history: &History) {
    let done = history.count(|operation| operation.outcome == Outcome::Done);
    let found = history.count(|operation| matches!(operation.outcome, Outcome::Found(_)));
    let refused = history.count(|operation| matches!(operation.outcome, Outcome::ConditionFailed(_)));
    assert!(done > OPERATIONS_MIN / 5, "only {done} writes were done");
    assert!(found > OPERATIONS_MIN / 5, "only {found} reads found something");
    assert!(refused > OPERATIONS_MIN / 50, "only {refused} conditions failed");
}

fn cause(fault: Fault, cluster: &mut Cluster, rng: &mut Rng) {
    let leader = cluster.leader();
    let mut others = cluster.others(leader);
    rng.shuffle(&mut others);
    let follower = others[0];
    // From a blink to several election time-outs.
    let duration = Duration::from_millis(rng.u64(20..1_200));
    match fault {
        Fault::KillLeader => kill(cluster, &[leader], duration),
        Fault::KillFollower => kill(cluster, &[follower], duration),
        Fault::KillMajority => kill(cluster, &[leader, follower], duration),
        Fault::KillAll => kill(cluster, &[leader, others[0], others[1]], Duration::ZERO),
        Fault::TerminateLeader => {
            cluster.node(leader).terminate();
            let status = cluster.node(leader).wait_exit(support::cluster::PATIENCE);
            assert!(status.success(), "a node that is asked to stop ends with {status}");
            cluster.node(leader).start();
        }
        Fault::PauseLeader => pause(cluster, &[leader], duration),
        Fault::PauseFollower => pause(cluster, &[follower], duration),
        Fault::PauseMajority => pause(cluster, &[leader, follower], duration),
        Fault::IsolateSlowLeader => {
            make_leader(cluster, 0);
            cut(cluster, 2 * duration, |relays| relays.isolate(0));
        }
        Fault::IsolateFollower => cut(cluster, 2 * duration, |relays| relays.isolate(follower)),
        Fault::SeparatePair => cut(cluster, 2 * duration, |relays| relays.separate(leader, follower)),
        Fault::BreakLinks => cluster.relays().break_links(leader),
    }
    cluster.wait_all_ready();
}

fn kill(cluster: &mut Cluster, positions: &[usize], duration: Duration) {
    cluster.kill_at_once(positions);
    std::thread::sleep(duration);
    for position in positions {
        cluster.node(*position).start();
    }
}

fn pause(cluster: &mut Cluster, positions: &[usize], duration: Duration) {
    for position in positions {
        cluster.node(*position).pause();
    }
    std::thread::sleep(duration);
    for position in positions {
        cluster.node(*position).resume();
    }
}

fn cut(cluster: &Cluster, duration: Duration, links: impl Fn(&Relays)) {
    links(cluster.relays());
    std::thread::sleep(duration);
    cluster.relays().heal();
}
