//! Planted bugs, for one purpose: to see that the tests find them. They exist only in builds with `--cfg keva_mutation`,
//! which cannot be release builds; everywhere else [`mutant`] is the constant `false`.

#[cfg(all(keva_mutation, not(debug_assertions)))]
compile_error!("planted bugs must not get into a release build");

#[cfg(keva_mutation)]
static SELECTED: std::sync::OnceLock<String> = std::sync::OnceLock::new();

/// Chooses the bug of this process, once. Where nobody does, the environment variable `KEVA_MUTANT` does.
///
/// # Panics
/// When the program was built without planted bugs, or one is chosen already.
pub fn select(name: &str) {
    #[cfg(keva_mutation)]
    SELECTED.set(name.to_owned()).expect("a process has one planted bug");
    #[cfg(not(keva_mutation))]
    panic!("this build has no planted bugs, and so not {name}: see scripts/mutants.sh");
}

/// Whether this bug is planted.
#[cfg(keva_mutation)]
#[must_use]
pub fn mutant(name: &str) -> bool {
    SELECTED.get_or_init(|| std::env::var("KEVA_MUTANT").unwrap_or_default()) == name
}

/// Whether this bug is planted: no.
#[cfg(not(keva_mutation))]
#[must_use]
pub const fn mutant(_name: &str) -> bool {
    false
}
