//! The directory of a cluster on one machine.
//!
//! | Path | Holds |
//! |---|---|
//! | `dev.json` | the cluster's shape; locked while it runs |
//! | `keeper/`, `keeper.log` | the keeper's data and its log |
//! | `node-0/`, `node-0.log`, … | each node's data directory and its log |

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::DevError;
use super::flags::{DevFlags, Shape};

/// Version of `dev.json`.
const FORMAT: u32 = 1;

/// A directory that this process holds.
#[derive(Debug)]
pub(super) struct Home {
    path: PathBuf,
    shape: Shape,
    id: String,
    /// Deletes the directory when it is dropped.
    temporary: Option<TempDir>,
    /// Held for the process's lifetime.
    lock: File,
    /// Nothing but the locked file stands there yet, and whether the directory was made for it.
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
                let made = tempfile::Builder::new().prefix("kvd-dev-").tempdir();
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
        let file = path.join("dev.json");
        let is_empty = fs::read_dir(&path).map_err(io("list", &path))?.next().is_none();
        if !is_empty && !file.exists() {
            return Err(DevError::Foreign(path));
        }
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&file);
        let mut lock = options.map_err(io("open", &file))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DevError::InUse(path)),
            Err(TryLockError::Error(source)) => return Err(io("lock", &file)(source)),
        }
        let mut text = String::new();
        lock.read_to_string(&mut text).map_err(io("read", &file))?;
        let known = parse(&text).map_err(|reason| DevError::Unreadable { path: file.clone(), reason })?;
        let fresh = known.is_none().then_some(Made { directory });
        let (remembered, id) = match known {
            Some((shape, id)) => (Some(shape), id),
            None => (None, format!("{:08x}", rand::random::<u32>())),
        };
        // From here on dropping it removes what was made.
        let mut home = Self { path, shape: Shape::DEFAULT, id, temporary, lock, fresh };
        home.shape = flags.shape(remembered)?;
        Ok(home)
    }

    /// Remembers the cluster: from now on the directory is its own.
    pub(super) fn settle(&mut self) -> Result<(), DevError> {
        if self.fresh.is_some() {
            let Shape { nodes, base_port } = self.shape;
            let content = File1 { format: FORMAT, id: self.id.clone(), nodes, base_port };
            let text = serde_json::to_string(&content).expect("numbers and text are JSON");
            self.lock.write_all(text.as_bytes()).map_err(io("write", &self.path.join("dev.json")))?;
            self.fresh = None;
        }
        Ok(())
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

    /// Deletes a temporary directory.
    pub(super) fn close(mut self) -> Result<(), DevError> {
        self.temporary.take().map_or(Ok(()), TempDir::close).map_err(io("delete", &self.path))
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Some(made) = self.fresh.take() {
            // What stays although it should not is an empty file, which the next start takes for a new directory.
            let _ = fs::remove_file(self.path.join("dev.json"));
            if made.directory {
                let _ = fs::remove_dir(&self.path);
            }
        }
    }
}

/// The directory by its whole path: what is printed can be used anywhere.
fn absolute(path: &Path) -> Result<PathBuf, DevError> {
    fs::create_dir_all(path).map_err(io("create", path))?;
    path.canonicalize().map_err(io("open", path))
}

/// What the file says; nothing if it is new.
fn parse(text: &str) -> Result<Option<(Shape, String)>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let file: File1 = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if file.format != FORMAT {
        return Err(format!("it has format {}, and this kvd knows {FORMAT}", file.format));
    }
    if file.id.is_empty() || !file.id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(format!("{:?} is no id", file.id));
    }
    let shape = Shape { nodes: file.nodes, base_port: file.base_port };
    let shape = shape.check().map_err(|error| error.to_string())?;
    Ok(Some((shape, file.id)))
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
        drop(Home::open(&five).expect("a new directory"));
        assert!(!path.exists(), "nothing came of it");
        let mut home = Home::open(&five).expect("a new directory");
        home.settle().expect("written");
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
        assert!(home.is_temporary() && path.join("dev.json").exists());
        home.close().expect("deleted");
        assert!(!path.exists());
    }
}
