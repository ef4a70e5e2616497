//! Each fault of a disk has the effect that it is said to have, and nothing else.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use quorumkv_chaos::disk::{Disk, FailedSync, Loss};

/// A directory with a disk mounted in it.
fn mounted(name: &str) -> Result<Disk> {
    let path = std::env::temp_dir().join(format!("quorumkv-disk-{name}-{}", std::process::id()));
    Disk::mount(&path)
}

fn unmount(disk: Disk) -> Result<()> {
    let path = disk.path().to_owned();
    drop(disk);
    fs::remove_dir(&path).with_context(|| format!("{} is still mounted", path.display()))
}

#[test]
fn a_slow_sync_is_slow_and_everything_else_is_not() -> Result<()> {
    let disk = mounted("slow")?;
    let (file, other) = (File::create(disk.path().join("file"))?, File::create(disk.path().join("other"))?);
    file.write_all_at(b"x", 0)?;
    let time = |work: &dyn Fn() -> std::io::Result<()>| {
        let begun = Instant::now();
        work().map(|()| begun.elapsed())
    };
    let quick = time(&|| file.sync_data())?;
    disk.slow_syncs(Duration::from_millis(700));
    let slow = time(&|| file.sync_data())?;
    ensure!(slow >= Duration::from_millis(700) && quick < slow, "syncs took {quick:?} and {slow:?}");
    std::thread::scope(|scope| -> Result<()> {
        let begun = Instant::now();
        let syncing = scope.spawn(|| file.sync_data());
        std::thread::sleep(Duration::from_millis(50));
        // The kernel lets nobody write to a file that is being synced.
        let write = time(&|| other.write_all_at(b"y", 1))?;
        ensure!(begun.elapsed() < Duration::from_millis(600), "a write took {write:?}");
        // A disk that is well again answers what it still owes.
        disk.heal();
        syncing.join().expect("no panic")?;
        Ok(())
    })?;
    drop((file, other));
    unmount(disk)
}

#[test]
fn a_full_disk_takes_nothing_new_and_says_so() -> Result<()> {
    let disk = mounted("full")?;
    let file = File::create(disk.path().join("file"))?;
    file.write_all_at(b"x", 0)?;
    disk.leave_free(0);
    file.write_all_at(b"y", 0)?;
    let more = file.write_all_at(b"z", 1 << 20).err().context("there is room")?;
    let new = File::create(disk.path().join("new")).err().context("there is room for a file")?;
    for error in [more, new] {
        ensure!(error.kind() == ErrorKind::StorageFull, "{error}");
    }
    ensure!(rustix::fs::statvfs(disk.path())?.f_bavail == 0, "it says that it has room");
    disk.heal();
    file.write_all_at(b"z", 1 << 20)?;
    drop(file);
    unmount(disk)
}

#[test]
fn a_failed_sync_keeps_or_drops_what_was_written() -> Result<()> {
    let disk = mounted("failing")?;
    let file = File::create_new(disk.path().join("file"))?;
    file.write_all_at(b"old", 0)?;
    file.sync_data()?;
    for (how, left) in [(FailedSync::Keeps, "new"), (FailedSync::Drops, "old")] {
        file.write_all_at(b"new", 0)?;
        disk.fail_syncs(how);
        ensure!(file.sync_data().is_err(), "the sync did not fail");
        ensure!(fs::read_to_string(disk.path().join("file"))? == left, "{how:?}");
        disk.heal();
    }
    ensure!(disk.syncs().0 == 2);
    drop(file);
    unmount(disk)
}

#[test]
fn a_loss_of_power_takes_what_was_not_synced_and_nothing_else() -> Result<()> {
    let disk = mounted("power")?;
    let directory = disk.path().join("data");
    fs::create_dir(&directory)?;
    File::open(disk.path())?.sync_all()?;
    let write = |name: &str, text: &str, sync: bool| -> Result<()> {
        let mut file = OpenOptions::new().create(true).append(true).open(directory.join(name))?;
        file.write_all(text.as_bytes())?;
        if sync { Ok(file.sync_all()?) } else { Ok(()) }
    };
    write("kept", "synced ", true)?;
    write("kept", "not synced", false)?;
    write("lost", "not synced", false)?;
    ensure!(fs::read_to_string(directory.join("kept"))? == "synced not synced");
    disk.power_off();
    ensure!(write("kept", "after the end", true).is_err(), "a disk without power takes writes");
    disk.power_on(Loss::All);
    ensure!(fs::read_to_string(directory.join("kept"))? == "synced ");
    let names = fs::read_dir(&directory)?.map(|entry| Ok(entry?.file_name())).collect::<Result<Vec<_>>>()?;
    ensure!(names == ["kept"], "{names:?}");
    // Another thousand files are all listed, and removed, although that takes the kernel several requests.
    for i in 0..1000 {
        write(&format!("many-{i}"), "", false)?;
    }
    ensure!(fs::read_dir(&directory)?.count() == 1001);
    fs::remove_dir_all(&directory)?;
    ensure!(disk.files("data", "").is_empty());
    unmount(disk)
}
