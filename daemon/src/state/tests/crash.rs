use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use tempfile::tempdir;

use super::*;

const DIRECTORY: &str = "KVD_TEST_STATE_DIRECTORY";

/// The process to be killed: applies entries for ever and says how far it is.
fn apply_until_killed(dir: &Path) {
    let state = open(dir);
    loop {
        let next = state.applied().version.get() + 1;
        state.apply(&entries(next..=next + next % 50)).expect("apply");
        if next.is_multiple_of(7) {
            println!("moved {}", state.view().expect("a view").applied().version);
        }
    }
}

#[test]
fn a_killed_process_loses_nothing_that_was_moved_and_leaves_nothing_half_done() {
    if let Some(dir) = std::env::var_os(DIRECTORY) {
        apply_until_killed(Path::new(&dir));
    }
    let dir = tempdir().expect("a directory");
    for until in [1000, 3000, 6000] {
        let name = format!("{}::a_killed_process", module_path!().split_once("::").expect("a module").1);
        let mut child = Command::new(std::env::current_exe().expect("this test"))
            .args([&name, "--nocapture"])
            .env(DIRECTORY, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start the process to be killed");
        let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let mut said =
            lines.filter_map(|line| line.expect("a line").split_once("moved ")?.1.parse::<u64>().ok());
        let seen = said.find(|moved| *moved >= until).expect("it applies until it is killed");
        child.kill().expect("kill it");
        child.wait().expect("it is dead");
        let state = open(dir.path());
        assert!(
            state.applied().version.get() >= seen,
            "the system has what the process has moved into the database"
        );
        Model::at(state.applied().version.get()).check(&state);
    }
}
