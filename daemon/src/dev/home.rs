//! The directory of a cluster on one machine.
//!
//! | Path | Holds |
//! |---|---|
//! | `LOCK` | locked while the cluster runs |
//! | `FAULTS` | locked while somebody pauses and kills nodes on purpose |
//! | `dev.json` | the cluster's shape |
//! | `keeper/`, `keeper.log` | the keeper's data and its log |
//! | `node-0/`, `node-0.log`, … | each node's data directory and its log |

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::DevError;
use super::flags::{DevFlags, Shape};

/// Version of `dev.json`.
const FORMAT: u32 = 1;

/// What names of temporary directories begin with.
const TEMPORARY: &str = "kvd-dev-";

/// Locked while somebody uses a directory: this one, and a node's own.
const LOCK: &str = "LOCK";

/// Locked while somebody pauses and kills nodes on purpose.
const FAULTS: &str = "FAULTS";

/// The cluster's shape; and while that is written, where.
const SHAPE: &str = "dev.json";
const NEW_SHAPE: &str = "dev.json.new";

/// A directory that this process holds.
#[derive(Debug)]
pub(super) struct Home {
    path: PathBuf,
    shape: Shape,
    id: String,
    /// Deletes the directory when it is dropped.
    temporary: Option<TempDir>,
    /// Held for the process's lifetime.
    _lock: File,
    /// There is no cluster yet, and whether the directory was made for one.
    fresh: Option<Made>,
}

/// What has been made so far for a new cluster, and goes again if it does not come to one.
#[derive(Debug)]
struct Made {
    directory: bool,
}

/// `dev.json` as it stands on disk.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File1 {
    format: u32,
    /// Made at random, with the directory.
    id: String,
    nodes: usize,
    base_port: u16,
}

impl Home {
    /// Opens the directory of `--data-dir`, made if it is not there, or a temporary one.
    pub(super) fn open(flags: &DevFlags) -> Result<Self, DevError> {
        let temporary = match &flags.data_dir {
            Some(_) => None,
            None => {
                let made = tempfile::Builder::new().prefix(TEMPORARY).tempdir();
                Some(made.map_err(io("make a temporary directory in", &std::env::temp_dir()))?)
            }
        };
        let (path, directory) = match (&flags.data_dir, &temporary) {
            (Some(path), _) => {
                let directory = !path.exists();
                (absolute(path)?, directory)
            }
            (None, Some(temporary)) => (temporary.path().to_owned(), false),
            (None, None) => unreachable!("either one is there"),
        };
        let file = path.join(SHAPE);
        let names = fs::read_dir(&path)
            .and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>())
            .map_err(io("list", &path))?;
        // A start that was killed at once leaves no more than these.
        if !names.iter().all(|name| name == LOCK || name == NEW_SHAPE) && !file.exists() {
            return Err(DevError::Foreign(path));
        }
        let lock_path = path.join(LOCK);
        let lock = OpenOptions::new().write(true).create(true).truncate(false).open(&lock_path);
        let lock = lock.map_err(io("open", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DevError::InUse(path)),
            Err(TryLockError::Error(source)) => return Err(io("lock", &lock_path)(source)),
        }
        let known = match fs::read_to_string(&file) {
            Ok(text) => {
                Some(parse(&text).map_err(|reason| DevError::Unreadable { path: file.clone(), reason })?)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(io("read", &file)(error)),
        };
        let fresh = known.is_none().then_some(Made { directory });
        let (remembered, id) = match known {
            Some((shape, id)) => (Some(shape), id),
            None => (None, format!("{:08x}", rand::random::<u32>())),
        };
        // From here on dropping it removes what was made.
        let mut home = Self { path, shape: Shape::DEFAULT, id, temporary, _lock: lock, fresh };
        home.shape = flags.shape(remembered)?;
        Ok(home)
    }

    /// Remembers the cluster, so that the next start knows the directory, whatever becomes of this one.
    pub(super) fn remember(&self) -> Result<(), DevError> {
        if self.fresh.is_none() {
            return Ok(());
        }
        let Shape { nodes, base_port } = self.shape;
        let content = File1 { format: FORMAT, id: self.id.clone(), nodes, base_port };
        let text = serde_json::to_string(&content).expect("numbers and text are JSON");
        self.write(text.as_bytes()).map_err(io("write", &self.path.join(SHAPE)))
    }

    /// Writes `dev.json` so that after a crash all of it is there, or nothing.
    fn write(&self, content: &[u8]) -> io::Result<()> {
        let new = self.path.join(NEW_SHAPE);
        let mut file = File::create(&new)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&new, self.path.join(SHAPE))?;
        File::open(&self.path)?.sync_all()
    }

    /// There is a cluster now: from here on nothing goes again but a temporary directory.
    pub(super) fn settle(&mut self) {
        self.fresh = None;
    }

    /// The cluster that lives here.
    pub(super) fn shape(&self) -> Shape {
        self.shape
    }

    /// What tells this cluster from others at the same ZooKeeper.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether everything is deleted at the end.
    pub(super) fn is_temporary(&self) -> bool {
        self.temporary.is_some()
    }

    /// The data directory of node `i`.
    pub(super) fn node(&self, i: usize) -> PathBuf {
        self.path.join(format!("node-{i}"))
    }

    /// The log of node `i`.
    pub(super) fn node_log(&self, i: usize) -> PathBuf {
        self.path.join(format!("node-{i}.log"))
    }

    pub(super) fn keeper(&self) -> PathBuf {
        self.path.join("keeper")
    }

    pub(super) fn keeper_log(&self) -> PathBuf {
        self.path.join("keeper.log")
    }

    /// Whether a process uses the data directory of node `i`, whoever has started it.
    pub(super) fn is_in_use(&self, i: usize) -> bool {
        is_locked(&self.node(i), LOCK)
    }

    /// Whether somebody pauses and kills nodes on purpose.
    pub(super) fn has_faults(&self) -> bool {
        is_locked(&self.path, FAULTS)
    }

    /// Leaves a temporary directory where it is: somebody uses it.
    pub(super) fn leave(&mut self) {
        // It is where it was; only the intent to delete it is gone.
        self.temporary.take().map(TempDir::keep);
    }

    /// Deletes a temporary directory.
    pub(super) fn close(mut self) -> Result<(), DevError> {
        self.temporary.take().map_or(Ok(()), TempDir::close).map_err(io("delete", &self.path))
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Some(made) = self.fresh.take() {
            // What stays although it should not, the next start takes for what it is.
            let _ = fs::remove_dir_all(self.keeper());
            let _ = fs::remove_file(self.keeper_log());
            for name in [NEW_SHAPE, SHAPE, LOCK] {
                let _ = fs::remove_file(self.path.join(name));
            }
            if made.directory {
                let _ = fs::remove_dir(&self.path);
            }
        }
    }
}

/// Deletes the temporary directories of clusters whose `kvd dev` was killed and could not do it. Returns which those were.
pub(super) fn sweep() -> Vec<PathBuf> {
    let entries = fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten();
    let ours = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(TEMPORARY));
    ours.map(|entry| entry.path()).filter(|path| delete_if_left(path)).collect()
}

/// Deletes such a directory unless it is somebody else's, or anything in it is used.
fn delete_if_left(path: &Path) -> bool {
    let is_ours = fs::symlink_metadata(path)
        .is_ok_and(|metadata| metadata.is_dir() && metadata.uid() == rustix::process::geteuid().as_raw());
    // One that has just been made is locked before this file is there.
    if !is_ours || !path.join(SHAPE).is_file() {
        return false;
    }
    let Ok(lock) = OpenOptions::new().write(true).open(path.join(LOCK)) else { return false };
    if lock.try_lock().is_err() {
        return false;
    }
    let Ok(entries) = fs::read_dir(path) else { return false };
    // Nodes end by themselves when their parent is gone, and those that were started by hand do not.
    if entries.flatten().any(|entry| is_locked(&entry.path(), LOCK)) {
        return false;
    }
    fs::remove_dir_all(path).is_ok()
}

/// Whether somebody holds a lock in a directory, as far as can be told. It is taken for a moment where nobody does.
fn is_locked(directory: &Path, name: &str) -> bool {
    match OpenOptions::new().write(true).open(directory.join(name)) {
        Ok(lock) => matches!(lock.try_lock(), Err(TryLockError::WouldBlock)),
        // Where a lock cannot be looked at, somebody may hold it.
        Err(error) => !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory),
    }
}

/// The directory by its whole path: what is printed can be used anywhere.
fn absolute(path: &Path) -> Result<PathBuf, DevError> {
    fs::create_dir_all(path).map_err(io("create", path))?;
    path.canonicalize().map_err(io("open", path))
}

/// What the file says.
pub(super) fn parse(text: &str) -> Result<(Shape, String), String> {
    let file: File1 = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if file.format != FORMAT {
        return Err(format!("it has format {}, and this kvd knows {FORMAT}", file.format));
    }
    if file.id.is_empty() || !file.id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(format!("{:?} is no id", file.id));
    }
    let shape = Shape { nodes: file.nodes, base_port: file.base_port };
    let shape = shape.check().map_err(|error| error.to_string())?;
    Ok((shape, file.id))
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DevError {
    let path = path.to_owned();
    move |source| DevError::Io { action, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(path: &Path) -> DevFlags {
        DevFlags { data_dir: Some(path.to_owned()), ..DevFlags::default() }
    }

    #[test]
    fn a_directory_is_one_clusters_and_held_by_one_process() {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("new");
        let five = DevFlags { nodes: Some(5), ..flags(&path) };
        let home = Home::open(&five).expect("a new directory");
        home.remember().expect("written");
        fs::create_dir(home.keeper()).expect("made");
        fs::write(home.keeper_log(), "it does not start").expect("written");
        drop(home);
        assert!(!path.exists(), "nothing came of it");
        let mut home = Home::open(&five).expect("a new directory");
        home.remember().expect("written");
        home.settle();
        let id = home.id().to_owned();
        assert!(matches!(Home::open(&five), Err(DevError::InUse(_))));
        home.close().expect("closed");
        let again = Home::open(&flags(&path)).expect("the directory again");
        assert_eq!((again.shape().nodes, again.id()), (5, id.as_str()));
    }

    #[test]
    fn what_is_not_ours_is_left_alone() {
        let place = tempfile::tempdir().expect("a directory");
        fs::write(place.path().join("letter.txt"), "dear").expect("written");
        assert!(matches!(Home::open(&flags(place.path())), Err(DevError::Foreign(_))));
        fs::write(place.path().join("dev.json"), "{\"format\":1").expect("written");
        assert!(matches!(Home::open(&flags(place.path())), Err(DevError::Unreadable { .. })));
        for text in ["{}", "[]", r#"{"format":2,"id":"a","nodes":3,"base_port":5000}"#] {
            assert!(parse(text).is_err(), "{text}");
        }
        for (nodes, id) in [(0, "a"), (3, "../x"), (3, "")] {
            assert!(
                parse(&format!(r#"{{"format":1,"id":"{id}","nodes":{nodes},"base_port":5000}}"#)).is_err()
            );
        }
    }

    #[test]
    fn a_temporary_directory_is_deleted() {
        let home = Home::open(&DevFlags::default()).expect("a directory");
        let path = home.path().to_owned();
        assert!(home.is_temporary() && path.exists());
        home.close().expect("deleted");
        assert!(!path.exists());
    }

    #[test]
    fn a_start_that_was_killed_while_it_wrote_leaves_a_directory_that_is_as_new() {
        let place = tempfile::tempdir().expect("a directory");
        fs::write(place.path().join(LOCK), "").expect("written");
        fs::write(place.path().join(NEW_SHAPE), "{\"form").expect("written");
        let mut home = Home::open(&flags(place.path())).expect("a new directory");
        home.remember().expect("written");
        home.settle();
        assert!(!place.path().join(NEW_SHAPE).exists());
        let id = home.id().to_owned();
        drop(home);
        assert_eq!(Home::open(&flags(place.path())).expect("the directory again").id(), id);
    }

    #[test]
    fn only_what_nobody_uses_is_swept() {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path();
        assert!(!delete_if_left(path), "one that has just been made");
        fs::write(path.join(LOCK), "").expect("written");
        fs::write(path.join(SHAPE), "").expect("written");
        fs::create_dir(path.join("node-0")).expect("made");
        fs::write(path.join("node-0").join(LOCK), "").expect("written");
        for used in [path.to_owned(), path.join("node-0")] {
            let lock = File::open(used.join(LOCK)).expect("opened");
            lock.lock().expect("locked");
            assert!(!delete_if_left(path), "{used:?} is used");
        }
        assert!(delete_if_left(path) && !path.exists());
    }
}
