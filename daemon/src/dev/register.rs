//! What `kvd dev` tells other programs of this machine while it runs: which processes its nodes are.
//!
//! It stands in a file of the directory for temporary files, named after the first node's port, so that it is found without
//! knowing where the cluster's own directory is. `kvctl verify --chaos` reads it, and takes the lock `FAULTS` in the cluster's
//! directory as long as it pauses and kills nodes.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::home::Home;

/// Version of what the file says.
const FORMAT: u32 = 1;

/// A file that is there as long as the cluster runs.
#[derive(Debug)]
pub(super) struct Register {
    path: PathBuf,
}

/// The file as it stands on disk.
#[derive(Serialize)]
struct Content<'a> {
    format: u32,
    /// This process.
    pid: u32,
    directory: &'a Path,
    nodes: Vec<Node>,
}

#[derive(Serialize)]
struct Node {
    endpoint: String,
    /// Its process; none where it does not run, or was started by hand.
    pid: Option<u32>,
}

impl Register {
    /// The register of a cluster, not written.
    pub(super) fn new(home: &Home) -> Self {
        let name = format!("quorumkv-dev-{}.json", home.shape().base_port);
        Self { path: std::env::temp_dir().join(name) }
    }

    /// Says which processes the nodes are, in the order of the nodes. Readers see all of it or what it was before.
    pub(super) fn write(&self, home: &Home, processes: &[Option<u32>]) -> io::Result<()> {
        let nodes = processes.iter().enumerate();
        let nodes = nodes.map(|(i, &pid)| Node { endpoint: home.shape().endpoint(i), pid }).collect();
        let content = Content { format: FORMAT, pid: std::process::id(), directory: home.path(), nodes };
        let directory = self.path.parent().expect("it is in a directory");
        // Nobody else may write to it.
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        file.write_all(serde_json::to_string(&content)?.as_bytes())?;
        file.persist(&self.path)?;
        Ok(())
    }
}

impl Drop for Register {
    fn drop(&mut self) {
        // One that stays is not believed by anybody: the cluster's lock is not held.
        let _ = std::fs::remove_file(&self.path);
    }
}
