//! A node's side of `kvd dev`: it does not outlive the process that started it.

use std::io::{self, Read};
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};

/// A node that is to stop has this long.
const GRACE: Duration = Duration::from_secs(10);

/// From now on this process ends when its standard input is closed, as the system does when whoever holds the other end
/// is gone, in whatever way: in good order as at SIGTERM, and after a time in any case.
///
/// # Errors
/// There is no thread for it.
pub fn stop_with_stdin() -> io::Result<()> {
    std::thread::Builder::new().name("leash".to_owned()).spawn(|| {
        wait_for_end(io::stdin().lock());
        // It cannot fail: the process is there, and its own.
        let _ = kill_process(getpid(), Signal::TERM);
        std::thread::sleep(GRACE);
        std::process::exit(1);
    })?;
    Ok(())
}

/// Reads until there is nothing more to come.
fn wait_for_end(mut input: impl Read) {
    let mut ignored = [0; 64];
    loop {
        match input.read(&mut ignored) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_of_the_input_ends_the_wait() {
        let mut input = io::Cursor::new(vec![7; 1000]);
        wait_for_end(&mut input);
        assert_eq!(input.position(), 1000);
    }
}
