//! Where `kvd` and `kvctl` are. This crate cannot depend on them, so they are built on demand.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use super::ClusterError;

/// The variable that names the `kvd` to test, instead of the one of this workspace.
pub const KVD_VARIABLE: &str = "KVD_BIN";
/// The variable that names the `kvctl` to test, instead of the one of this workspace.
pub const KVCTL_VARIABLE: &str = "KVCTL_BIN";

/// The variable that names the `keeperd` to test, instead of the one of this workspace.
pub const KEEPERD_VARIABLE: &str = "KEEPERD_BIN";

/// The binaries to test.
#[derive(Clone, Debug)]
struct Binaries {
    kvd: PathBuf,
    kvctl: PathBuf,
}

static BINARIES: Mutex<Option<Binaries>> = Mutex::new(None);

/// The `kvd` to test. Blocks while the binaries are built, which happens once in a process.
///
/// # Errors
/// They do not compile.
pub fn kvd_binary() -> Result<PathBuf, ClusterError> {
    // Who has one need not wait for the other.
    env::var_os(KVD_VARIABLE).map_or_else(|| Ok(binaries()?.kvd), |given| Ok(given.into()))
}

/// The `kvctl` to test. Blocks while the binaries are built, which happens once in a process.
///
/// # Errors
/// They do not compile.
pub fn kvctl_binary() -> Result<PathBuf, ClusterError> {
    Ok(binaries()?.kvctl)
}

/// The `keeperd` to test. Blocks while it is built, which happens once in a process.
///
/// # Errors
/// It does not compile.
pub fn keeperd_binary() -> Result<PathBuf, ClusterError> {
    static KEEPERD: Mutex<Option<PathBuf>> = Mutex::new(None);
    let mut known = KEEPERD.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(binary) = &*known {
        return Ok(binary.clone());
    }
    let binary = match env::var_os(KEEPERD_VARIABLE) {
        Some(given) => PathBuf::from(given),
        None => build(&[("quorumkv-keeper", "keeperd")])?.join("keeperd"),
    };
    Ok(known.insert(binary).clone())
}

/// A `kvd` in which a deliberate bug can be switched on by the variable `QUORUMKV_MUTANT`. Blocks while it is built, which happens
/// once in a process.
///
/// # Errors
/// It does not compile.
pub fn mutant_binary() -> Result<PathBuf, ClusterError> {
    static MUTANT: Mutex<Option<PathBuf>> = Mutex::new(None);
    let mut known = MUTANT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(binary) = &*known {
        return Ok(binary.clone());
    }
    let folder = build_with(&[("kvd", "kvd-mutant")], &["--features", "kvd/mutants"])?;
    Ok(known.insert(folder.join("kvd-mutant")).clone())
}

/// Finds both at once, so that no test waits for a compiler while a clock runs. When nothing has changed that is
/// quick, and cargo's own lock orders processes that do it at the same time.
fn binaries() -> Result<Binaries, ClusterError> {
    let mut known = BINARIES.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(binaries) = &*known {
        return Ok(binaries.clone());
    }
    let given = [("kvd", KVD_VARIABLE), ("kvctl", KVCTL_VARIABLE)]
        .map(|(name, variable)| (name, env::var_os(variable).map(PathBuf::from)));
    let missing: Vec<(&str, &str)> =
        given.iter().filter(|(_, path)| path.is_none()).map(|&(name, _)| (name, name)).collect();
    let built = if missing.is_empty() { PathBuf::new() } else { build(&missing)? };
    let [kvd, kvctl] = given.map(|(name, path)| path.unwrap_or_else(|| built.join(name)));
    Ok(known.insert(Binaries { kvd, kvctl }).clone())
}

/// Builds binaries, each named after its package, with the profile, and into the directory, of the running test. Returns
/// where they are then.
fn build(names: &[(&str, &str)]) -> Result<PathBuf, ClusterError> {
    build_with(names, &[])
}

fn build_with(names: &[(&str, &str)], options: &[&str]) -> Result<PathBuf, ClusterError> {
    let executable = env::current_exe()
        .map_err(|source| ClusterError::Io { action: "find the test's own executable".to_owned(), source })?;
    let place =
        Place::of(&executable).ok_or_else(|| ClusterError::NoProfile(executable.display().to_string()))?;
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--profile", &place.profile]).args(options);
    command.args(names.iter().flat_map(|&(package, name)| ["--package", package, "--bin", name]));
    command.arg("--target-dir").arg(&place.target).stdin(Stdio::null());
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let output =
        command.output().map_err(|source| ClusterError::Io { action: format!("run {command:?}"), source })?;
    if !output.status.success() {
        return Err(ClusterError::Build {
            command: format!("{command:?}"),
            status: output.status,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        });
    }
    Ok(place.folder)
}

/// What the place of an executable of cargo's says: `<target>/<folder of the profile>/deps/<test>-<hash>` is that of a test, and
/// programs stand in the folder of the profile itself.
#[derive(PartialEq, Eq, Debug)]
struct Place {
    target: PathBuf,
    folder: PathBuf,
    profile: String,
}

impl Place {
    fn of(executable: &Path) -> Option<Self> {
        let own = executable.parent()?;
        let is_below = own.ends_with("deps") || own.ends_with("examples");
        let folder = if is_below { own.parent()? } else { own };
        // Cargo marks its directories.
        if !is_below && !folder.join(".cargo-lock").exists() {
            return None;
        }
        let name = folder.file_name()?.to_str()?;
        // The one profile whose folder has another name.
        let profile = if name == "debug" { "dev" } else { name };
        let target = folder.parent()?.to_owned();
        Some(Self { target, folder: folder.to_owned(), profile: profile.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_of_a_test_names_its_profile() {
        let place = Place::of(Path::new("/t/debug/deps/scenarios-0123")).unwrap();
        assert_eq!(
            place,
            Place { target: "/t".into(), folder: "/t/debug".into(), profile: "dev".to_owned() }
        );
        assert_eq!(Place::of(Path::new("/t/release/deps/x-1")).unwrap().profile, "release");
        assert_eq!(Place::of(Path::new("/usr/bin/x")), None);
    }
}
