//! Conversations between a few replicas, step by step, with everything that each step comes to.
//!
//! Each `.txt` beside this file is one: prose after `#`, a command after `>`, and below it the whole list of effects.
//! `UPDATE_EXPECT=1 cargo test -p quorumkv-replica --test scripts` writes the effects anew; read the difference.
//!
//! ```text
//! cluster 3 [comparing [10ms]] starts nodes 1 to 3, connected; their states are compared every second, or so often, or never
//! settle 1 2                  lets these nodes (or all) do everything there is to do, and says where they are then
//! status                      says where all nodes are
//! lead 1 5                    the election names node 1, with counter 5
//! resign 1                    the election wants node 1 to stand down
//! disk 1 is full|free         node 1 is told how much room its disk has
//! write 1 k=v                 a client writes at node 1; its request gets the next token: t1, t2, ...
//! delete 1 k | cas 1 k=v at 3 | read 1 k | scan 1
//! retry 2 t1                  the client of t1 sends the same request to node 2
//! persist 1                   the log of node 1 syncs what was written
//! apply 1                     the state of node 1 applies what was committed
//! work 1                      node 1 does its oldest background task
//! flip 1 k                    the value of k changes on the disk of node 1; with `spoil`, it cannot be read any more
//! trim 1 to 3                 node 1 saves its state and trims its log up to that version
//! deliver 1 -> 2              what node 1 sent to node 2 arrives
//! disconnect 1 2 | connect 1 2
//! refused 2 by 1              the port of node 1 refuses a connection of node 2
//! tick 100ms                  time passes at all nodes
//! restart 2                   node 2 crashes, loses what it had not synced, and starts again
//! kill 2                      node 2 is gone for good
//! add 1 4 | promote 1 4 | remove 1 3 | replace 1 3 by 4 [forced]
//!                             a client asks node 1 to change the members; a new node is started and connected first
//! ```

mod cluster;
#[path = "../../../tests/simulator/src/model/mod.rs"]
mod model;

use std::path::Path;
use std::time::Duration;

use cluster::{Ask, Cluster};
use expect_test::expect_file;
use quorumkv_protocol::membership::Change;
use quorumkv_protocol::{NodeId, Version};
use quorumkv_replica::Input;

fn number(word: &str) -> u64 {
    word.parse().unwrap_or_else(|_| panic!("{word} is not a number"))
}

fn milliseconds(word: &str) -> Duration {
    Duration::from_millis(number(word.trim_end_matches("ms")))
}

fn node(word: &str) -> NodeId {
    NodeId::new(number(word))
}

/// What a client wants of the members. A node that is to be added is started.
fn parse_change(cluster: &mut Cluster, change: &str, nodes: &[&str]) -> Change {
    match (change, nodes) {
        ("add", [new]) => Change::AddLearner(cluster.newcomer(node(new))),
        ("promote", [learner]) => Change::Promote(node(learner)),
        ("remove", [member]) => Change::Remove(node(member)),
        ("replace", [old, "by", new]) => Change::Replace { old: node(old), new: cluster.newcomer(node(new)) },
        _ => panic!("there is no change like: {change} {nodes:?}"),
    }
}

/// Runs one command; returns what it came to.
fn run(cluster: &mut Cluster, command: &str) -> Vec<String> {
    let words: Vec<&str> = command.split_whitespace().collect();
    match words.as_slice() {
        ["cluster", count] => *cluster = Cluster::new(number(count), None),
        ["cluster", count, "comparing"] => {
            *cluster = Cluster::new(number(count), Some(Duration::from_secs(1)));
        }
        ["cluster", count, "comparing", every] => {
            *cluster = Cluster::new(number(count), Some(milliseconds(every)));
        }
        ["settle", nodes @ ..] => {
            return cluster.settle(&nodes.iter().map(|word| node(word)).collect::<Vec<_>>());
        }
        ["status"] => return cluster.describe(),
        ["lead", id, counter] => cluster.input(node(id), Input::Lead { counter: number(counter) }),
        ["resign", id] => cluster.input(node(id), Input::StandDown),
        ["disk", id, "is", how] => cluster.input(node(id), Input::DiskFull(*how == "full")),
        ["write", id, pair] => {
            let (key, value) = pair.split_once('=').expect("key=value");
            cluster.ask(node(id), &Ask::Put(key, value));
        }
        ["delete", id, key] => cluster.ask(node(id), &Ask::Delete(key)),
        ["cas", id, pair, "at", version] => {
            let (key, value) = pair.split_once('=').expect("key=value");
            cluster.ask(node(id), &Ask::CompareAndSet(key, value, number(version)));
        }
        ["read", id, key] => cluster.ask(node(id), &Ask::Read(key)),
        ["scan", id] => cluster.ask(node(id), &Ask::Scan),
        ["retry", id, token] => cluster.retry(node(id), number(token.trim_start_matches('t'))),
        ["persist", id] => cluster.persist(node(id)),
        ["apply", id] => cluster.apply(node(id)),
        ["work", id] => cluster.work(node(id)),
        ["flip", id, key] => cluster.damage(node(id), key, true),
        ["spoil", id, key] => cluster.damage(node(id), key, false),
        ["trim", id, "to", version] => cluster.trim(node(id), Version::new(number(version))),
        ["deliver", from, "->", to] => cluster.deliver(node(from), node(to)),
        ["disconnect", one, other] => cluster.disconnect(node(one), node(other)),
        ["connect", one, other] => cluster.connect(node(one), node(other)),
        ["refused", id, "by", peer] => cluster.input(node(id), Input::PeerRefused(node(peer))),
        ["tick", time] => cluster.tick(milliseconds(time)),
        ["restart", id] => cluster.restart(node(id)),
        ["kill", id] => cluster.kill(node(id)),
        [change @ ("add" | "promote" | "remove" | "replace"), at, rest @ ..] => {
            let (rest, forced) = match rest {
                [rest @ .., "forced"] => (rest, true),
                rest => (rest, false),
            };
            let change = parse_change(cluster, change, rest);
            cluster.change(node(at), change, forced);
        }
        _ => panic!("there is no command like: {command}"),
    }
    cluster.take_output()
}

/// The script with the effects of its commands written below them.
fn play(script: &str) -> String {
    let mut cluster = Cluster::new(1, None);
    let mut lines: Vec<String> = Vec::new();
    for line in script.lines() {
        if let Some(command) = line.strip_prefix("> ") {
            lines.push(line.to_owned());
            lines.extend(run(&mut cluster, command).into_iter().map(|effect| format!("  {effect}")));
        } else if line.starts_with('#') || line.is_empty() {
            lines.push(line.to_owned());
        }
    }
    lines.join("\n") + "\n"
}

#[expect(clippy::disallowed_methods, reason = "a test reads its scripts; the code under test reads nothing")]
fn scripts() -> Vec<(std::path::PathBuf, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let files = std::fs::read_dir(folder).expect("the folder of scripts can be read");
    let paths = files.map(|file| file.expect("a folder can be listed").path());
    let mut scripts: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .map(|path| {
            let text = std::fs::read_to_string(&path).expect("a script can be read");
            (path, text)
        })
        .collect();
    scripts.sort();
    scripts
}

#[test]
fn scripts_play_as_written() {
    let scripts = scripts();
    assert!(!scripts.is_empty(), "the scripts are not where they should be");
    for (path, script) in scripts {
        eprintln!("{}", path.display());
        expect_file![path].assert_eq(&play(&script));
    }
}
