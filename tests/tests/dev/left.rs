//! What a `kvd dev` leaves that is killed, and who cleans up after it.

use anyhow::{Result, ensure};
use rustix::process::Signal;

use crate::running::{Dev, Ports, command, until_none_in};

#[tokio::test(flavor = "multi_thread")]
async fn the_next_start_deletes_what_one_that_was_killed_has_left_and_nothing_else() -> Result<()> {
    let (ports, place) = (Ports::reserve()?, tempfile::tempdir()?);
    let arguments = ports.flags();
    let start = || -> Result<_> {
        let mut command = command(&arguments)?;
        command.env("TMPDIR", place.path());
        Ok(command)
    };
    // Somebody's, although it is called like ours.
    let foreign = place.path().join("kvd-dev-notes");
    std::fs::create_dir(&foreign)?;
    std::fs::write(foreign.join("dev.json"), "my notes on it")?;

    let mut dev = Dev::spawn(start()?)?;
    dev.until_begun().await?;
    let left = dev.directory()?;
    ensure!(left.starts_with(place.path()), "{left:?}");
    dev.signal(Signal::KILL)?;
    dev.end().await?;
    until_none_in(&left).await?;
    ensure!(left.exists());
    drop(dev);

    let dev = Dev::spawn(start()?)?;
    dev.until_begun().await?;
    dev.until(&format!("deleted {}: an earlier kvd dev was killed and left it", left.display())).await?;
    ensure!(!left.exists());
    // This one finds the ports in use, and looks round before it does.
    let second = start()?.output()?;
    ensure!(second.status.code() == Some(1), "{second:?}");
    ensure!(dev.directory()?.join("node-2").exists(), "the one that runs keeps its directory");
    ensure!(foreign.join("dev.json").exists());
    dev.interrupt().await?;
    Ok(())
}
