//! The same random events in both clusters: elections, writes, cut links, restarts, time.

use keva::util::rng::Rng;

use crate::ours::Ours;
use crate::side::{Cuts, Disk, LoggedEntry, Node, Role, Side, View};
use crate::theirs::Theirs;

/// Schedules in one run, unless `KEVA_ORACLE_SCHEDULES` says otherwise.
const SCHEDULES_DEFAULT: u64 = 3_000;
const EVENTS: usize = 40;
/// After so many heartbeats of every leader everything that was lost has been sent again by both.
const SETTLING_HEARTBEATS: usize = 4;

#[derive(Clone, Debug)]
enum Event {
    Campaign(Node),
    Expire(Node),
    Propose(Node, Vec<u8>),
    QuorumCheck(Node),
    Restart(Node),
    Cut(Cuts),
}

fn below(rng: &mut Rng, bound: usize) -> usize {
    rng.range(0, bound as u64) as usize
}

/// Whole links, halves of links, one side against the other, or nothing.
fn random_cuts(rng: &mut Rng, count: usize) -> Cuts {
    let pairs = |keep: &mut dyn FnMut(Node, Node) -> bool| -> Cuts {
        let all = (0..count).flat_map(|from| (0..count).map(move |to| (from, to)));
        all.filter(|(from, to)| from != to && keep(*from, *to)).collect()
    };
    match rng.range(0, 5) {
        0 | 1 => Cuts::new(),
        2 => {
            let side = rng.next_u64();
            pairs(&mut |from, to| (side >> from) & 1 != (side >> to) & 1)
        }
        3 => {
            let alone = below(rng, count);
            pairs(&mut |from, to| from == alone || to == alone)
        }
        _ => pairs(&mut |_, _| rng.range(0, 4) == 0),
    }
}

fn random_event(rng: &mut Rng, count: usize, number: usize, leader: Option<Node>) -> Event {
    let node = below(rng, count);
    match rng.range(0, 12) {
        0..=2 => Event::Campaign(node),
        3 | 4 => Event::Expire(node),
        5..=7 => Event::Propose(leader.unwrap_or(node), format!("write {number}").into_bytes()),
        8 => Event::QuorumCheck(leader.unwrap_or(node)),
        9 => Event::Restart(node),
        _ => Event::Cut(random_cuts(rng, count)),
    }
}

/// Pairs of nodes that connect again: a connection ends with a process, and when either direction fails.
fn new_links(event: &Event, count: usize, old_cuts: &Cuts, cuts: &Cuts) -> Vec<(Node, Node)> {
    let is_open = |cuts: &Cuts, left, right| !cuts.contains(&(left, right)) && !cuts.contains(&(right, left));
    let is_new = |left: Node, right: Node| match event {
        Event::Restart(node) => *node == left || *node == right,
        _ => !is_open(old_cuts, left, right),
    };
    let pairs = (0..count).flat_map(|left| (left + 1..count).map(move |right| (left, right)));
    pairs.filter(|(left, right)| is_open(cuts, *left, *right) && is_new(*left, *right)).collect()
}

/// Carries out an event and everything that follows from it. Returns what can be compared right away.
fn play(side: &mut dyn Side, event: &Event, old_cuts: &Cuts, cuts: &Cuts) -> bool {
    let mut answer = false;
    match event {
        Event::Campaign(node) => side.campaign(*node),
        Event::Expire(node) => side.expire(*node),
        Event::Propose(node, data) => answer = side.propose(*node, data),
        Event::QuorumCheck(node) => {
            side.begin_quorum_check(*node);
            side.heartbeat(*node);
            side.exchange(cuts);
            side.end_quorum_check(*node);
        }
        Event::Restart(node) => side.restart(*node),
        Event::Cut(_) => {}
    }
    for (left, right) in new_links(event, side.views().len(), old_cuts, cuts) {
        side.reconnect(left, right);
    }
    side.exchange(cuts);
    for _ in 0..SETTLING_HEARTBEATS {
        for (node, view) in side.views().into_iter().enumerate() {
            if view.role == Role::Leader {
                side.heartbeat(node);
                side.exchange(cuts);
            }
        }
    }
    answer
}

/// Voters that still hear from a leader refuse a pre-vote here and ignore it there. So ours knows earlier that it has
/// lost; until somebody asks again, a pre-candidate and a follower without a leader are the same.
fn comparable(mut views: Vec<View>) -> Vec<View> {
    for view in &mut views {
        if view.role == Role::PreCandidate {
            view.role = Role::Follower;
        }
    }
    views
}

/// Disks that earlier leaders have left with different ends, as in figure 7 of the paper: the entries of one term stand
/// in one log, which begins as some log of an earlier term does; each node has a part of one of these logs.
fn divergent_disks(rng: &mut Rng, count: usize) -> Vec<Disk> {
    let mut logs: Vec<Vec<LoggedEntry>> = vec![Vec::new()];
    let terms = rng.range(1, 8);
    for term in 1..=terms {
        let mut log = logs[below(rng, logs.len())].clone();
        log.truncate(below(rng, log.len() + 1));
        for number in 0..rng.range(0, 12) {
            log.push((term, format!("{number} of {term}").into_bytes()));
        }
        logs.push(log);
    }
    (0..count)
        .map(|_| {
            let mut log = logs[below(rng, logs.len())].clone();
            log.truncate(log.len() - below(rng, log.len() + 1) / 2);
            Disk { term: terms, vote: None, commit: 0, log }
        })
        .collect()
}

/// Figure 7 of the paper: whatever the followers lack or have too much, the leader's log becomes everybody's.
#[test]
fn figure_7() {
    let log = |terms: &[u64]| terms.iter().map(|term| (*term, format!("of {term}").into_bytes())).collect();
    let logs: [&[u64]; 7] = [
        &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6],
        &[1, 1, 1, 4, 4, 5, 5, 6, 6],
        &[1, 1, 1, 4],
        &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
        &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
        &[1, 1, 1, 4, 4, 4, 4],
        &[1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
    ];
    let disks = logs.map(|terms| Disk { term: 7, vote: None, commit: 0, log: log(terms) });
    let (mut ours, mut theirs) = (Ours::new(&disks), Theirs::new(&disks));
    play(&mut ours, &Event::Campaign(0), &Cuts::new(), &Cuts::new());
    play(&mut theirs, &Event::Campaign(0), &Cuts::new(), &Cuts::new());
    let views = ours.views();
    assert_eq!(views, theirs.views());
    assert!(views[0].role == Role::Leader && views[0].commit == 11);
    assert!(views.iter().all(|view| view.log == views[0].log), "{views:?}");
}

/// The other implementation also learns from requests for votes and from refusals how far the log is committed. A node
/// without a leader may so be ahead of ours, until there is a leader again.
fn forget_news_from_votes(ours: &[View], theirs: &mut [View]) {
    for (our, their) in ours.iter().zip(theirs) {
        if our.leader.is_none() && their.commit > our.commit {
            their.commit = our.commit;
        }
    }
}

fn is_one_way(cuts: &Cuts) -> bool {
    cuts.iter().any(|(from, to)| !cuts.contains(&(*to, *from)))
}

/// A voter that still hears from a leader refuses a vote here, with its term, and ignores the request there. So a node
/// that does not hear from that leader may learn its term earlier.
fn same_office(our: &View, their: &View) -> bool {
    let knows_more = our.leader.is_none() && our.term > their.term;
    (our.role, our.leader) == (their.role, their.leader) && (our.term == their.term || knows_more)
}

fn only_terms_differ(ours: &[View], theirs: &[View]) -> bool {
    let same_log = |our: &View, their: &View| our.commit == their.commit && our.log == their.log;
    ours.iter().zip(theirs).all(|(our, their)| same_office(our, their) && same_log(our, their))
}

/// A node that hears its leader and is not heard by it: how much a leader sends without an answer is its own choice.
/// The roles must be the same all the same, and what both have committed as well.
fn only_progress_differs(ours: &[View], theirs: &[View]) -> bool {
    ours.iter().zip(theirs).all(|(our, their)| {
        let committed = our.commit.min(their.commit) as usize;
        same_office(our, their) && our.log.iter().take(committed).eq(their.log.iter().take(committed))
    })
}

/// How often something happened in all schedules: an event that never does is not compared.
#[derive(Default, Debug)]
struct Seen {
    leaders: u64,
    commits: u64,
    cut_tails: u64,
    two_leaders: u64,
    hopeless_campaigns: u64,
    step_downs: u64,
    /// Schedules that ended early, because of what is said at [`same_office`] and [`only_progress_differs`].
    parted: u64,
}

impl Seen {
    fn note(&mut self, event: &Event, before: &[View], after: &[View]) {
        let leads = |views: &[View]| views.iter().filter(|view| view.role == Role::Leader).count();
        let won = |node: &Node| before[*node].role != Role::Leader && after[*node].role == Role::Leader;
        if let Event::Campaign(node) = event {
            self.leaders += u64::from(won(node));
            self.hopeless_campaigns += u64::from(after[*node].role != Role::Leader);
        }
        if let Event::QuorumCheck(node) = event {
            let stepped_down = before[*node].role == Role::Leader && after[*node].role != Role::Leader;
            self.step_downs += u64::from(stepped_down);
        }
        self.two_leaders += u64::from(leads(after) > 1);
        for (old, new) in before.iter().zip(after) {
            self.commits += u64::from(new.commit > old.commit);
            self.cut_tails += u64::from(!new.log.starts_with(&old.log));
        }
    }
}

fn run(seed: u64, seen: &mut Seen) {
    let mut rng = Rng::new(seed);
    let count = if rng.range(0, 3) == 0 { 5 } else { 3 };
    let disks =
        if rng.range(0, 2) == 0 { vec![Disk::default(); count] } else { divergent_disks(&mut rng, count) };
    let (mut ours, mut theirs) = (Ours::new(&disks), Theirs::new(&disks));
    let mut cuts = Cuts::new();
    let mut story = Vec::new();
    let mut before = ours.views();
    for number in 0..EVENTS {
        let leaders: Vec<Node> = (0..count).filter(|node| before[*node].role == Role::Leader).collect();
        let leader = (!leaders.is_empty()).then(|| leaders[below(&mut rng, leaders.len())]);
        let event = random_event(&mut rng, count, number, leader);
        let old_cuts = cuts.clone();
        if let Event::Cut(new) = &event {
            cuts = new.clone();
        }
        story.push(format!("{event:?}"));
        let answers =
            (play(&mut ours, &event, &old_cuts, &cuts), play(&mut theirs, &event, &old_cuts, &cuts));
        let (after, mut other) = (comparable(ours.views()), comparable(theirs.views()));
        forget_news_from_votes(&after, &mut other);
        let story = || format!("seed {seed}:\n  {}", story.join("\n  "));
        assert_eq!(answers.0, answers.1, "only one of them took the write; {}", story());
        let may_part = is_one_way(&cuts) || only_terms_differ(&after, &other);
        if after != other && !cuts.is_empty() && may_part {
            assert!(only_progress_differs(&after, &other), "{after:?}\n{other:?}\n{}", story());
            seen.parted += 1;
            return;
        }
        for (node, (our, their)) in after.iter().zip(&other).enumerate() {
            assert_eq!(our, their, "node {node} (ours, theirs) with the cuts {cuts:?}; {}", story());
        }
        seen.note(&event, &before, &after);
        before = after;
    }
}

/// Who can be elected, who must step down, which entries end up in which log, and how far it is committed.
#[test]
fn clusters_come_to_the_same_logs() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    let schedules: u64 = number("KEVA_ORACLE_SCHEDULES").unwrap_or(SCHEDULES_DEFAULT);
    let first: u64 = number("KEVA_ORACLE_SEED").unwrap_or(1);
    let mut seen = Seen::default();
    for seed in first..first + schedules {
        run(seed, &mut seen);
    }
    println!("{schedules} schedules of {EVENTS} events: {seen:?}");
    let Seen { leaders, commits, cut_tails, two_leaders, hopeless_campaigns, step_downs, parted } = seen;
    assert!(parted <= schedules / 10, "too many schedules were not compared to their end: {parted}");
    let least = [leaders, commits, cut_tails, two_leaders, hopeless_campaigns, step_downs].into_iter().min();
    assert!(schedules < 500 || least > Some(50), "too little happened: {least:?}");
}
