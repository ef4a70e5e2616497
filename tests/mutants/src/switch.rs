//! Switching one on.

use std::cell::Cell;
use std::sync::OnceLock;

use crate::Mutant;

thread_local! {
    static OF_THIS_THREAD: Cell<Option<Mutant>> = const { Cell::new(None) };
}

static OF_ALL: OnceLock<Mutant> = OnceLock::new();

/// The environment variable that names the mutant of a program.
const VARIABLE: &str = "QUORUMKV_MUTANT";

/// Switches a mutant on, or all off, for what this thread runs.
pub fn switch_for_this_thread(mutant: Option<Mutant>) {
    OF_THIS_THREAD.set(mutant);
}

/// Switches on, for all threads and for good, what the variable `QUORUMKV_MUTANT` names.
///
/// # Errors
/// There is no mutant of that name.
pub fn switch_from_environment() -> Result<(), String> {
    let Ok(name) = std::env::var(VARIABLE) else { return Ok(()) };
    let mutant = Mutant::named(&name)
        .ok_or_else(|| format!("{VARIABLE}: there is no mutant {name} (docs/mutants.md names them)"))?;
    let _ = OF_ALL.set(mutant);
    Ok(())
}

impl Mutant {
    /// Whether the bug is there.
    #[must_use]
    pub fn on(self) -> bool {
        OF_THIS_THREAD.get() == Some(self) || OF_ALL.get() == Some(&self)
    }
}
