//! Makes a failing run smaller: fewer kinds of faults, operations, users, keys and nodes, as long as it still fails.

use crate::plan::{CLASSES, Overrides, Plan};
use crate::runner::{command, run_seed};

/// Prints every step that helped, and the smallest command at the end. Says whether the seed passed to begin with.
pub(crate) fn shrink(seed: u64, overrides: &Overrides) -> bool {
    let Err(mut error) = run_seed(seed, overrides, false) else {
        println!("seed {seed} passes");
        return true;
    };
    let mut best = overrides.clone();
    let mut attempt = |best: &mut Overrides, candidate: Overrides| {
        let Err(found) = run_seed(seed, &candidate, false) else { return false };
        println!("fails too:{candidate}");
        error = found;
        *best = candidate;
        true
    };
    loop {
        let before = best.clone();
        for class in CLASSES {
            if Plan::new(seed, &best).classes.has(class) {
                let mut candidate = best.clone();
                candidate.without.push(class);
                candidate.with.retain(|other| *other != class);
                attempt(&mut best, candidate);
            }
        }
        for change in [fewer_operations, fewer_users, fewer_keys, fewer_nodes] {
            while let Some(candidate) = change(&Plan::new(seed, &best), &best) {
                if !attempt(&mut best, candidate) {
                    break;
                }
            }
        }
        if best == before {
            break;
        }
    }
    println!("{error}\n{}\n{} --trace", Plan::new(seed, &best), command(seed, &best));
    false
}

fn fewer_operations(plan: &Plan, best: &Overrides) -> Option<Overrides> {
    (plan.operations > 1).then(|| Overrides { operations: Some(plan.operations * 2 / 3), ..best.clone() })
}

fn fewer_users(plan: &Plan, best: &Overrides) -> Option<Overrides> {
    (plan.users > 1).then(|| Overrides { users: Some(plan.users - 1), ..best.clone() })
}

fn fewer_keys(plan: &Plan, best: &Overrides) -> Option<Overrides> {
    (plan.keys > 1).then(|| Overrides { keys: Some(plan.keys / 2), ..best.clone() })
}

fn fewer_nodes(plan: &Plan, best: &Overrides) -> Option<Overrides> {
    (plan.nodes > 1).then(|| Overrides { nodes: Some(plan.nodes - 1), ..best.clone() })
}
