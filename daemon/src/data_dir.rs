//! The data directory: who this node is, and that nobody else uses it.
//!
//! | Path | Holds |
//! |---|---|
//! | `LOCK` | locked while a daemon runs |
//! | `node.json` | identity of the node, and the cluster once it belongs to one |
//! | `log/` | the write-ahead log |
//! | `state/` | the applied state |
//! | `removed` | is there if the node was removed from its cluster: it is not needed any more |
//! | `damaged-1`, … | what was there before, set aside because a part of it was lost |

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use quorumkv_protocol::membership::{Configuration, Member};
use quorumkv_protocol::{ClusterId, EntryId, Epoch, NodeId, Version};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What may stand in the directory. The last is there where a file system is mounted.
const KNOWN: [&str; 7] = ["LOCK", "node.json", "node.json.new", "log", "state", REMOVED, "lost+found"];

/// The file that says that the node was removed.
const REMOVED: &str = "removed";

/// How the names of directories begin in which damaged data is kept.
const ASIDE: &str = "damaged-";

/// Version of the layout of the directory.
const FORMAT: u32 = 1;

/// A data directory that this process holds.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    identity: Identity,
    /// Held for the process's lifetime.
    _lock: File,
}

/// Who the node is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// Made at random with the directory.
    pub node: NodeId,
    /// The cluster that it belongs to, once it does.
    pub membership: Option<Membership>,
}

/// The cluster that a node belongs to, and its members at one time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Membership {
    /// Its identity.
    pub cluster: ClusterId,
    /// In a data directory: the first members, or [`Configuration::UNKNOWN`] if the node came later. Who belongs to the
    /// cluster now is in the log.
    pub configuration: Configuration,
}

/// Why a directory cannot be used.
#[derive(Debug, Error)]
pub enum DataDirError {
    /// Another daemon has it.
    #[error("the data directory {0} is in use by another kvd: stop that one, or choose another --data-dir")]
    Locked(PathBuf),
    /// It cannot be read or written.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file that says who the node is makes no sense.
    #[error(
        "{path} does not say who this node is ({reason}): restore the file, or move the directory away to start as a new node"
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// It holds something else.
    #[error("{0} is not empty and no data directory of kvd: choose another --data-dir")]
    Foreign(PathBuf),
}

/// `node.json` as it stands on disk. Ids are hexadecimal text, as in logs and tables.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File1 {
    format: u32,
    node: String,
    cluster: Option<Cluster1>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cluster1 {
    id: String,
    members: Vec<Member1>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    learners: Vec<Member1>,
    /// That of the entry which made them members; 0 for the first.
    #[serde(default, skip_serializing_if = "is_zero")]
    version: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Member1 {
    node: String,
    address: String,
}

impl DataDir {
    /// Opens the directory, or makes it with a new identity if it is not there or empty.
    ///
    /// # Errors
    /// See [`DataDirError`].
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        let io = |action, path: &Path| {
            let path = path.to_owned();
            move |source| DataDirError::Io { action, path, source }
        };
        fs::create_dir_all(path).map_err(io("create", path))?;
        let names: Vec<_> = fs::read_dir(path)
            .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.file_name())).collect())
            .map_err(io("list", path))?;
        let node_file = path.join("node.json");
        let is_aside = |name: &OsString| name.to_str().is_some_and(|name| name.starts_with(ASIDE));
        if !names.iter().all(|name| KNOWN.iter().any(|known| name == known) || is_aside(name)) {
            return Err(DataDirError::Foreign(path.to_owned()));
        }
        let lock_path = path.join("LOCK");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(io("open", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DataDirError::Locked(path.to_owned())),
            Err(TryLockError::Error(source)) => return Err(io("lock", &lock_path)(source)),
        }
        let identity = if names.iter().any(|name| name == "node.json") {
            read_identity(&node_file)?
        } else if names.iter().any(|name| name == "log" || name == "state") {
            return Err(DataDirError::Unreadable { path: node_file, reason: "it is missing".to_owned() });
        } else {
            let identity = Identity { node: NodeId::new(rand::random()), membership: None };
            write_identity(path, &identity).map_err(io("write", &node_file))?;
            identity
        };
        Ok(Self { path: path.to_owned(), identity, _lock: lock })
    }

    /// Who this node is.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Where the log is.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    /// Where the state is.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.path.join("state")
    }

    /// Notes, durably, that this node was removed from its cluster.
    ///
    /// # Errors
    /// [`DataDirError::Io`]
    pub fn note_removed(&self) -> Result<(), DataDirError> {
        let path = self.path.join(REMOVED);
        File::create(&path)
            .and_then(|file| file.sync_all())
            .and_then(|()| File::open(&self.path)?.sync_all())
            .map_err(|source| DataDirError::Io { action: "write", path, source })
    }

    /// Whether this node was removed from its cluster.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        self.path.join(REMOVED).exists()
    }

    /// Moves all that is there into a directory beside it, whose path is returned, and begins anew with a new identity: a part
    /// of what this node has promised is lost, so it must not be who it was.
    ///
    /// # Errors
    /// See [`DataDirError`]. If it is cut short, what is missing then is found missing at the next start.
    pub fn set_aside(mut self) -> Result<(Self, PathBuf), DataDirError> {
        let io = |action, path: &Path| {
            let path = path.to_owned();
            move |source| DataDirError::Io { action, path, source }
        };
        let aside = (1..u32::MAX).map(|n| self.path.join(format!("{ASIDE}{n}"))).find(|path| !path.exists());
        let aside = aside.expect("there are fewer directories than numbers");
        fs::create_dir(&aside).map_err(io("create", &aside))?;
        // The identity goes last: without it, the rest would belong to nobody.
        for name in ["log", "state", "node.json"] {
            let path = self.path.join(name);
            if path.exists() {
                fs::rename(&path, aside.join(name)).map_err(io("set aside", &path))?;
            }
        }
        self.renew()?;
        Ok((self, aside))
    }

    /// Removes all that this node has kept, and begins anew with a new identity.
    ///
    /// # Errors
    /// See [`DataDirError`].
    pub fn wipe(mut self) -> Result<Self, DataDirError> {
        for path in [self.log(), self.state()] {
            match fs::remove_dir_all(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(DataDirError::Io { action: "remove", path, source });
                }
                _ => {}
            }
        }
        self.renew()?;
        Ok(self)
    }

    fn renew(&mut self) -> Result<(), DataDirError> {
        let identity = Identity { node: NodeId::new(rand::random()), membership: None };
        let path = self.path.join("node.json");
        write_identity(&self.path, &identity).map_err(|source| DataDirError::Io {
            action: "write",
            path,
            source,
        })?;
        self.identity = identity;
        Ok(())
    }

    /// Notes, durably, which cluster this node belongs to.
    ///
    /// # Errors
    /// [`DataDirError::Io`]; nothing has changed then.
    pub fn join(&mut self, membership: Membership) -> Result<(), DataDirError> {
        let identity = Identity { membership: Some(membership), ..self.identity };
        write_identity(&self.path, &identity).map_err(|source| DataDirError::Io {
            action: "write",
            path: self.path.join("node.json"),
            source,
        })?;
        self.identity = identity;
        Ok(())
    }
}

/// Writes `node.json` so that after a crash there is the old one or the new one.
fn write_identity(dir: &Path, identity: &Identity) -> io::Result<()> {
    let new = dir.join("node.json.new");
    let mut file = File::create(&new)?;
    file.write_all(&encode(identity))?;
    file.sync_all()?;
    fs::rename(&new, dir.join("node.json"))?;
    File::open(dir)?.sync_all()
}

fn read_identity(path: &Path) -> Result<Identity, DataDirError> {
    let bytes = fs::read(path).map_err(|source| DataDirError::Io {
        action: "read",
        path: path.to_owned(),
        source,
    })?;
    decode(&bytes).map_err(|reason| DataDirError::Unreadable { path: path.to_owned(), reason })
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn encode(identity: &Identity) -> Vec<u8> {
    let member = |member: &Member| Member1 { node: member.node.to_string(), address: member.address.clone() };
    let cluster = identity.membership.as_ref().map(|membership| Cluster1 {
        id: membership.cluster.to_string(),
        members: membership.configuration.voters.iter().map(member).collect(),
        learners: membership.configuration.learners.iter().map(member).collect(),
        version: membership.configuration.id.version.get(),
    });
    let file = File1 { format: FORMAT, node: identity.node.to_string(), cluster };
    let mut bytes = serde_json::to_vec_pretty(&file).expect("text and numbers always encode");
    bytes.push(b'\n');
    bytes
}

fn decode(bytes: &[u8]) -> Result<Identity, String> {
    let file: File1 = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if file.format != FORMAT {
        return Err(format!("its format is {}, and this kvd knows {FORMAT}", file.format));
    }
    let member = |member: Member1| {
        let node = member.node.parse().map_err(|_| format!("{:?} is no node id", member.node))?;
        Ok::<_, String>(Member { node, address: member.address })
    };
    let membership = match file.cluster {
        None => None,
        Some(cluster) => {
            let members = cluster.members.into_iter().map(member).collect::<Result<_, _>>()?;
            let learners = cluster.learners.into_iter().map(member).collect::<Result<_, _>>()?;
            let id = cluster.id.parse().map_err(|_| format!("{:?} is no cluster id", cluster.id))?;
            // Along the log of one cluster the version alone says which configuration is newer.
            let entry = EntryId::new(Epoch::ZERO, Version::new(cluster.version));
            let configuration = Configuration { id: entry, learners, ..Configuration::first(members) };
            Some(Membership { cluster: id, configuration })
        }
    };
    let node = file.node.parse().map_err(|_| format!("{:?} is no node id", file.node))?;
    Ok(Identity { node, membership })
}

/// The form in which a configuration is kept in ZooKeeper: the same as in `node.json`, without a node. Of its entry the
/// version is kept, and not the epoch.
#[must_use]
pub fn encode_membership(membership: &Membership) -> Vec<u8> {
    encode(&Identity { node: NodeId::new(0), membership: Some(membership.clone()) })
}

/// Reads what [`encode_membership`] wrote.
///
/// # Errors
/// What is wrong with it, for people.
pub fn decode_membership(bytes: &[u8]) -> Result<Membership, String> {
    decode(bytes)?.membership.ok_or_else(|| "it names no cluster".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_made_once_and_kept() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut first = DataDir::open(dir.path()).expect("opened");
        let members = vec![Member { node: first.identity().node, address: "h:1".to_owned() }];
        let configuration = Configuration::first(members);
        first.join(Membership { cluster: ClusterId::new(9), configuration }).expect("joined");
        let identity = first.identity().clone();
        drop(first);
        assert_eq!(*DataDir::open(dir.path()).expect("opened again").identity(), identity);
    }

    #[test]
    fn what_is_set_aside_is_kept_and_the_node_is_another() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut first = DataDir::open(dir.path()).expect("opened");
        let configuration = Configuration::UNKNOWN;
        first.join(Membership { cluster: ClusterId::new(9), configuration }).expect("joined");
        let old = first.identity().clone();
        fs::create_dir(first.log()).expect("made");
        fs::write(first.log().join("1.wal"), "x").expect("written");
        let (second, aside) = first.set_aside().expect("set aside");
        assert!(second.identity().node != old.node && second.identity().membership.is_none());
        assert_eq!(read_identity(&aside.join("node.json")).expect("kept"), old);
        assert!(aside.join("log").join("1.wal").exists() && !second.log().exists());
        let identity = second.identity().clone();
        drop(second);
        let third = DataDir::open(dir.path()).expect("opened again");
        assert_eq!(*third.identity(), identity);
        fs::create_dir(third.log()).expect("made");
        let fourth = third.wipe().expect("wiped");
        assert!(fourth.identity().node != identity.node && !fourth.log().exists() && aside.exists());
    }

    #[test]
    fn a_directory_in_use_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let _first = DataDir::open(dir.path()).expect("opened");
        assert!(matches!(DataDir::open(dir.path()), Err(DataDirError::Locked(_))));
    }

    #[test]
    fn other_peoples_directories_are_left_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("thesis.tex"), "x").expect("written");
        assert!(matches!(DataDir::open(dir.path()), Err(DataDirError::Foreign(_))));
    }

    #[test]
    fn a_lost_or_broken_identity_is_not_made_anew() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(dir.path().join("log")).expect("made");
        assert!(matches!(DataDir::open(dir.path()), Err(DataDirError::Unreadable { .. })));
        fs::write(dir.path().join("node.json"), "{").expect("written");
        assert!(matches!(DataDir::open(dir.path()), Err(DataDirError::Unreadable { .. })));
    }
}
