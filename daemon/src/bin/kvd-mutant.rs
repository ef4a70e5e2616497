//! `kvd` with a deliberate bug, which the variable `QUORUMKV_MUTANT` names: to see that `kvctl verify` finds it.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    if let Err(error) = quorumkv_mutants::switch_from_environment() {
        eprintln!("kvd-mutant: {error}");
        return ExitCode::from(2);
    }
    kvd::program::main()
}
