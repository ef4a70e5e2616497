//! The end of a process that cannot trust its storage any more.

use std::io::Write;

/// Says why on stderr and ends the process at once. Everything that was acknowledged is on disk; nothing else may
/// happen after a write, a sync or a read has failed, because what it left behind is not known.
pub(crate) fn die(reason: &str) -> ! {
    tracing::error!("{reason}; this node stops");
    // Nobody may be reading any more; that is no reason to end in another way.
    let _ = writeln!(std::io::stderr(), "kvd: {reason}; this node stops");
    std::process::exit(1)
}
