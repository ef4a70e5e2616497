//! The `docker` command line: simple, and the same for every version of the engine.

use std::io;
use std::process::{Command, Stdio};

use super::ZooKeeperError;
use super::reserve::Lock;

/// The label of every container and network that tests create. Its value names the [`Lock`] of their owner.
pub const OWNER_LABEL: &str = "quorumkv.tests.owner";

/// Makes sure that Docker is there and answers.
pub fn check() -> Result<(), ZooKeeperError> {
    match docker(&["version", "--format", "{{.Server.Version}}"]) {
        Ok(_) => Ok(()),
        Err(ZooKeeperError::Command { stderr, .. }) => Err(ZooKeeperError::DaemonDown { stderr }),
        Err(ZooKeeperError::Spawn { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Err(ZooKeeperError::DockerMissing)
        }
        Err(other) => Err(other),
    }
}

/// Runs `docker` with arguments and returns what it printed.
pub fn docker<S: AsRef<str>>(arguments: &[S]) -> Result<String, ZooKeeperError> {
    let mut command = Command::new("docker");
    command.args(arguments.iter().map(AsRef::as_ref));
    run(&mut command)
}

/// Runs a command and returns its standard output without the last newline; what went wrong is in the error.
pub fn run(command: &mut Command) -> Result<String, ZooKeeperError> {
    let shown = format!("{command:?}").replace('"', "");
    let output = match command.stdin(Stdio::null()).output() {
        Ok(output) => output,
        Err(source) => return Err(ZooKeeperError::Spawn { command: shown, source }),
    };
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(ZooKeeperError::Command { command: shown, status: output.status, stderr });
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}

/// The last lines of a container's log, for an error message.
pub fn log_tail(container: &str) -> String {
    match Command::new("docker").args(["logs", "--tail", "20", container]).output() {
        Ok(output) => String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).trim_end().to_owned(),
        Err(error) => format!("no log: {error}"),
    }
}

/// Removes all containers of an owner with their data, and its networks.
pub fn remove_owned(owner: &str) -> Result<(), ZooKeeperError> {
    let filter = format!("label={OWNER_LABEL}={owner}");
    remove(&["ps", "-aq", "--filter", &filter], &["rm", "-f", "-v"])?;
    remove(&["network", "ls", "-q", "--filter", &filter], &["network", "rm"])
}

/// Removes what test processes left behind that were killed before they could clean up.
pub fn remove_leftovers() -> Result<(), ZooKeeperError> {
    let label = format!("label={OWNER_LABEL}");
    let format = format!("{{{{.Label \"{OWNER_LABEL}\"}}}}");
    let containers = docker(&["ps", "-a", "--filter", &label, "--format", &format])?;
    let networks = docker(&["network", "ls", "--filter", &label, "--format", &format])?;
    let mut owners: Vec<&str> = containers.lines().chain(networks.lines()).collect();
    owners.sort_unstable();
    owners.dedup();
    for owner in owners {
        if let Some(lock) = Lock::inherit(owner)? {
            remove_owned(owner)?;
            lock.remove();
        }
    }
    Ok(())
}

fn remove(list: &[&str], remove: &[&str]) -> Result<(), ZooKeeperError> {
    let ids = docker(list)?;
    if ids.is_empty() {
        return Ok(());
    }
    docker(&remove.iter().copied().chain(ids.lines()).collect::<Vec<_>>())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::error::Error;
    use std::thread;
    use std::time::Duration;

    use super::super::reserve::random;
    use super::*;

    #[test]
    fn leftovers_of_a_dead_process_are_removed_and_nothing_else() -> Result<(), Box<dyn Error>> {
        let (dead, alive) =
            (format!("quorumkv-dead-{:x}", random()), format!("quorumkv-alive-{:x}", random()));
        let networks = || docker(&["network", "ls", "--format={{.Name}}"]);
        let _held = Lock::acquire(&alive)?;
        // A lock whose file is still there but which nobody holds: what a killed process leaves.
        drop(Lock::acquire(&dead)?);
        for owner in [&dead, &alive] {
            docker(&["network", "create", &format!("--label={OWNER_LABEL}={owner}"), owner])?;
        }
        // Another test that starts right now may be removing the same leftovers.
        for _ in 0..100 {
            remove_leftovers()?;
            if !networks()?.contains(&dead) {
                break;
            }
            thread::sleep(Duration::from_millis(50));
        }
        let left = networks()?;
        remove_owned(&alive)?;
        assert!(!left.contains(&dead), "{dead} should be gone: {left}");
        assert!(left.contains(&alive), "{alive} is in use: {left}");
        Ok(())
    }
}
