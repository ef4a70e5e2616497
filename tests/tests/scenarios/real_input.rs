//! Real input: Debian's own package lists are imported while the leader is killed twice, and come out as they went in.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, Result, bail, ensure};
use quorumkv_tests::cluster::{Cluster, PATIENCE, wait_until};
use quorumkv_tests::zookeeper::ZooKeeper;

use crate::contents::wait_identical;

/// Fewer records than this are no test of anything.
const RECORDS: usize = 50_000;

/// Names and versions of packages, with their descriptions.
type Packages = BTreeMap<String, String>;

#[tokio::test(flavor = "multi_thread")]
async fn debian_s_packages_are_imported_through_two_dead_leaders_and_exported_byte_for_byte() -> Result<()> {
    let packages = packages()?;
    let directory = tempfile::tempdir()?;
    let (input, exported) = (directory.path().join("packages.jsonl"), directory.path().join("export.jsonl"));
    write_lines(&packages, &input)?;

    let zookeeper = ZooKeeper::start(3)?;
    let cluster = Cluster::builder().nodes(3).start(&zookeeper).await?;
    import(&cluster, &input, packages.len() as u64).await?;
    cluster.wait_ready().await?;

    let export_path = exported.to_str().context("a path in UTF-8")?;
    let ended = cluster.kvctl(&["export", "--file", export_path]).await?;
    ensure!(ended.status.success(), "export: {}", described(&ended));
    check_lines(&packages, &exported)?;
    let contents = wait_identical(&cluster).await?;
    ensure!(contents.len() == packages.len());
    for ((key, value), (name, description)) in contents.iter().zip(&packages) {
        ensure!(
            key == name.as_bytes() && value.value == description.as_bytes(),
            "{name:?} differs at a node"
        );
    }
    cluster.end().await?;
    Ok(())
}

/// Imports the file, and kills the leader twice meanwhile.
async fn import(cluster: &Cluster, file: &Path, records: u64) -> Result<()> {
    let arguments = ["import", file.to_str().context("a path in UTF-8")?];
    let import = cluster.kvctl(&arguments);
    tokio::pin!(import);
    for part in [records / 8, records / 3] {
        tokio::select! {
            ended = &mut import => bail!("it ended before the leader was killed: {}", described(&ended?)),
            killed = kill_leader_at(cluster, part) => killed?,
        }
    }
    let ended = import.await?;
    ensure!(ended.status.success(), "import: {}", described(&ended));
    Ok(())
}

/// Kills the leader as soon as it has committed that many entries, waits for the next, and starts the first again.
async fn kill_leader_at(cluster: &Cluster, entries: u64) -> Result<()> {
    let leader = cluster.leader().await?;
    let reached = async || -> Result<()> {
        let committed = cluster.status(leader).await?.committed.get();
        ensure!(committed >= entries, "{committed} of {entries} entries are committed");
        Ok(())
    };
    wait_until(PATIENCE, "the import has come that far", reached).await?;
    cluster.kill(leader)?;
    let next = cluster.leader().await?;
    ensure!(next != leader);
    cluster.start_node(leader)?;
    Ok(())
}

/// The packages that apt knows; their lists are fetched if this machine has none.
fn packages() -> Result<Packages> {
    let mut packages = known_packages()?;
    if packages.len() < RECORDS {
        run(Command::new("apt-get").args(["-q", "update"]))?;
        packages = known_packages()?;
    }
    ensure!(
        packages.len() >= RECORDS,
        "apt knows {} packages, and this test needs {RECORDS}: as root, run `apt-get update` with Debian's main \
         section among the sources",
        packages.len()
    );
    Ok(packages)
}

fn known_packages() -> Result<Packages> {
    let output = run(Command::new("apt-cache").arg("dumpavail"))?;
    let text = String::from_utf8(output.stdout).context("package lists are UTF-8")?;
    let mut packages = Packages::new();
    for paragraph in text.split("\n\n") {
        if let (Some(name), Some(version), Some(description)) =
            (field(paragraph, "Package"), field(paragraph, "Version"), field(paragraph, "Description"))
        {
            packages.insert(format!("{name} {version}"), description.to_owned());
        }
    }
    Ok(packages)
}

/// A field of a paragraph, with the lines that continue it.
fn field<'a>(paragraph: &'a str, name: &str) -> Option<&'a str> {
    let mut start = 0;
    for line in paragraph.split_inclusive('\n') {
        start += line.len();
        if let Some(rest) = line.strip_prefix(name).and_then(|rest| rest.strip_prefix(": ")) {
            let more = paragraph[start..].split_inclusive('\n').take_while(|line| line.starts_with(' '));
            let begin = start - rest.len();
            return Some(paragraph[begin..start + more.map(str::len).sum::<usize>()].trim_end_matches('\n'));
        }
    }
    None
}

fn run(command: &mut Command) -> Result<Output> {
    let name = format!("{command:?}");
    let output = command.output().with_context(|| {
        format!(
            "cannot run {name}: this test takes its input from Debian's package lists, on a Debian machine"
        )
    })?;
    ensure!(output.status.success(), "{name}: {}", described(&output));
    Ok(output)
}

fn described(output: &Output) -> String {
    format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim())
}

fn write_lines(packages: &Packages, path: &Path) -> Result<()> {
    let mut text = String::new();
    for (key, value) in packages {
        text += &serde_json::json!({ "key": key, "value": value }).to_string();
        text.push('\n');
    }
    fs::write(path, text)?;
    Ok(())
}

/// Checks that every record is in the file exactly once, in the order of the keys, and nothing else.
fn check_lines(packages: &Packages, path: &Path) -> Result<()> {
    let text = fs::read_to_string(path)?;
    let mut expected = packages.iter();
    for line in text.lines() {
        let record: serde_json::Value = serde_json::from_str(line)?;
        let (key, value) = expected.next().with_context(|| format!("{line} comes after the last record"))?;
        ensure!(record["key"] == *key && record["value"] == *value, "{line} stands where {key:?} should");
    }
    ensure!(expected.next().is_none(), "{} records are missing at the end", expected.count() + 1);
    Ok(())
}
