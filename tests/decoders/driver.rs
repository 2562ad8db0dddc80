//! Runs a target many times, each execution with a generator of its own, and measures what each one allocates.

use keva::util::rng::Rng;

/// Executions of all targets together, unless the environment says otherwise: a few seconds without optimization.
const EXECUTIONS_DEFAULT: u64 = 200_000;
const SEED_DEFAULT: u64 = 1;

fn number_from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} takes a number, not {text}")))
}

/// Says how to repeat an execution when it panics.
struct Repeat {
    target: &'static str,
    seed: u64,
}

impl Drop for Repeat {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "repeat with: KEVA_FUZZ_SEED={} KEVA_FUZZ_EXECUTIONS=1 cargo test --test decoders {}",
                self.seed, self.target
            );
        }
    }
}

/// Runs a target. `percent` is its share of all executions. `run` gets a generator and returns whether the input was
/// accepted; both outcomes must occur, or the inputs test nothing.
pub(crate) fn drive(target: &'static str, percent: u64, mut run: impl FnMut(&mut Rng) -> bool) {
    let all = number_from_environment("KEVA_FUZZ_EXECUTIONS").unwrap_or(EXECUTIONS_DEFAULT);
    let first_seed = number_from_environment("KEVA_FUZZ_SEED").unwrap_or(SEED_DEFAULT);
    let executions = (all * percent).div_ceil(100);
    let mut accepted = 0u64;
    for execution in 0..executions {
        let seed = first_seed.wrapping_add(execution);
        let _repeat = Repeat { target, seed };
        accepted += u64::from(run(&mut Rng::new(seed)));
    }
    println!("{target:<18} {executions:>10} executions, {accepted:>10} accepted");
    if executions > 1_000 {
        assert!(accepted > 0 && accepted < executions, "{target}: {accepted} of {executions} accepted");
    }
}

/// Runs `action` on an input of `input_bytes` and checks that it allocates at most `per_byte` times that, and
/// `constant` bytes. All allocations of this thread count, also those given back meanwhile: work is bounded as well as
/// memory.
pub(crate) fn bounded<T>(
    input_bytes: usize,
    per_byte: usize,
    constant: usize,
    action: impl FnOnce() -> T,
) -> T {
    let allowed = (constant + per_byte * input_bytes) as u64;
    let mut result = None;
    let allocated = allocation_counter::measure(|| result = Some(action())).bytes_total;
    assert!(allocated <= allowed, "an input of {input_bytes} bytes made it allocate {allocated}");
    result.expect("the action was run")
}
