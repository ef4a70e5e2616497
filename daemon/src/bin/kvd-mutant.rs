//! `kvd` with a deliberate bug, which the variable `QUORUMKV_MUTANT` names: to see that `kvctl verify` finds it.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    quorumkv_mutants::switch_from_environment();
    kvd::program::main()
}
