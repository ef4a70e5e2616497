//! A clock of its own for each node, which can jump and go fast or slow while the node runs.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::time::{ClockId, clock_gettime};

/// The variable that tells a process where its clock is.
const VARIABLE: &str = "QUORUMKV_CHAOS_CLOCK";

/// What is preloaded into processes.
const SOURCE: &str = include_str!("clock.c");

/// The compiled library that gives a process its clock.
#[derive(Clone, Debug)]
pub(super) struct Shim(PathBuf);

impl Shim {
    /// Compiles it into a directory.
    pub(super) fn build(directory: &Path) -> Result<Self> {
        let (source, library) = (directory.join("clock.c"), directory.join("clock.so"));
        File::create(&source)?.write_all(SOURCE.as_bytes())?;
        let mut compiler = Command::new("cc");
        compiler.args(["-O2", "-shared", "-fPIC", "-Wall", "-Werror", "-o"]).arg(&library).arg(&source);
        let output = compiler.arg("-ldl").output().context("run `cc`: is a C compiler installed?")?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "cc cannot compile clock.c ({}): {errors}", output.status);
        Ok(Self(library))
    }
}

/// How a clock goes. As the shim has it; times in nanoseconds.
#[derive(Clone, Copy, Default, Debug)]
struct Setting {
    turn: i64,
    offset: i64,
    real: i64,
    shown: i64,
    ppm: i64,
}

/// One node's clock.
#[derive(Debug)]
pub struct Clock {
    shim: Shim,
    path: PathBuf,
    file: File,
    setting: Mutex<Setting>,
}

impl Clock {
    /// A clock that goes as the machine's does, kept in a file.
    pub(super) fn new(shim: &Shim, path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("make {}", path.display()))?;
        let clock = Self { shim: shim.clone(), path: path.to_owned(), file, setting: Mutex::default() };
        clock.change(|_, _| ())?;
        Ok(clock)
    }

    /// Gives this clock to a process that is about to be started.
    pub(super) fn give_to(&self, command: &mut Command) {
        command.env("LD_PRELOAD", &self.shim.0).env(VARIABLE, &self.path);
    }

    /// Lets the time of day jump, forward or back.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn jump(&self, seconds: i64) -> Result<()> {
        self.change(|setting, _| setting.offset += seconds * 1_000_000_000)
    }

    /// From now on the clock gains so many millionths, or loses them.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn drift(&self, ppm: i64) -> Result<()> {
        self.change(|setting, now| {
            let shown = if setting.real == 0 { now } else { setting.shows(now) };
            (setting.real, setting.shown, setting.ppm) = (now, shown, ppm);
        })
    }

    fn change(&self, change: impl FnOnce(&mut Setting, i64)) -> Result<()> {
        let now = clock_gettime(ClockId::Monotonic);
        let now = Duration::new(u64::try_from(now.tv_sec)?, u32::try_from(now.tv_nsec)?);
        let mut setting = self.setting.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut setting, i64::try_from(now.as_nanos())?);
        setting.turn += 2;
        // Who reads while this is written sees an odd number, and reads again.
        self.file.write_all_at(&(setting.turn - 1).to_ne_bytes(), 0)?;
        let Setting { offset, real, shown, ppm, turn } = *setting;
        self.file.write_all_at(&[offset, real, shown, ppm].map(i64::to_ne_bytes).concat(), 8)?;
        self.file.write_all_at(&turn.to_ne_bytes(), 0)?;
        Ok(())
    }
}

impl Setting {
    fn shows(&self, now: i64) -> i64 {
        let passed = i128::from(now - self.real);
        let gained = passed * i128::from(self.ppm) / 1_000_000;
        self.shown + i64::try_from(passed + gained).expect("no run is that long")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a process says that has this clock: its time of day, and how long it took it to wait.
    fn ask(clock: &Clock) -> (i64, f64) {
        let script = "import time; a = time.monotonic(); time.sleep(0.5); print(int(time.time()), time.monotonic() - a)";
        let mut python = Command::new("python3");
        python.args(["-c", script]);
        clock.give_to(&mut python);
        let output = python.output().expect("python3 is installed");
        let said = String::from_utf8(output.stdout).expect("numbers");
        let (time, took) = said.trim().split_once(' ').expect("two numbers");
        (time.parse().expect("seconds"), took.parse().expect("seconds"))
    }

    #[test]
    fn a_clock_jumps_and_drifts_for_the_process_that_has_it_alone() {
        let directory = std::env::temp_dir().join(format!("quorumkv-clock-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("made");
        let clock =
            Clock::new(&Shim::build(&directory).expect("built"), &directory.join("clock")).expect("made");
        let here =
            || i64::try_from(std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_secs()).expect("small");
        let (time, _) = ask(&clock);
        assert!((time - here()).abs() < 60, "it is {time}");
        clock.jump(-1_000_000).expect("written");
        clock.drift(500_000).expect("written");
        let (time, took) = ask(&clock);
        assert!((time + 1_000_000 - here()).abs() < 60, "it is {time}");
        assert!(took > 0.74, "a clock that goes half as fast again shows {took} s for half a second");
        std::fs::remove_dir_all(&directory).expect("removed");
    }
}
