//! What can be done with servers that a test has started itself.

use super::ZooKeeperError;

/// Servers of a test, counted from 0. Their ports and data stay while they stop and start.
pub(super) trait Servers {
    /// How many there are, running or not.
    fn len(&self) -> usize;

    /// Those that run, paused ones among them.
    fn running(&self) -> Result<Vec<usize>, ZooKeeperError>;

    /// The one that leads, or serves alone.
    fn leader(&self) -> Result<Option<usize>, ZooKeeperError>;

    /// Stops servers with SIGTERM.
    fn stop(&self, servers: &[usize]) -> Result<(), ZooKeeperError>;

    /// Kills servers with SIGKILL.
    fn kill(&self, servers: &[usize]) -> Result<(), ZooKeeperError>;

    /// Freezes a server.
    fn pause(&self, server: usize) -> Result<(), ZooKeeperError>;

    /// Lets a frozen server go on.
    fn unpause(&self, server: usize) -> Result<(), ZooKeeperError>;

    /// Starts servers that were stopped or killed. Waits until all that run serve, if they are a majority.
    fn start_again(&self, servers: &[usize]) -> Result<(), ZooKeeperError>;
}
