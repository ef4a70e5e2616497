//! What `kvd dev` prints: to stdout, because it is what was asked for.

use std::env;
use std::io::{self, Write};
use std::path::Path;
use std::time::Instant;

use super::flags::Shape;
use super::home::Home;

/// Where kvctl looks for nodes unless told otherwise.
const KVCTL_DEFAULT: Shape = Shape { nodes: 3, base_port: 5000 };

/// The variable by which kvctl is told otherwise.
const KVCTL_ENDPOINTS: &str = "KVCTL_ENDPOINTS";

/// Tells a story line by line, each with the time since it began.
#[derive(Debug)]
pub(super) struct Teller {
    begun: Instant,
}

impl Teller {
    pub(super) fn new() -> Self {
        Self { begun: Instant::now() }
    }

    pub(super) fn tell(&self, line: &str) {
        say(&format!("{:>7.1}s  {line}\n", self.begun.elapsed().as_secs_f64()));
    }

    pub(super) fn tell_all(&self, lines: &[String]) {
        for line in lines {
            self.tell(line);
        }
    }
}

/// Prints. Whoever has closed the stream does not want to read it; the cluster runs on.
pub(super) fn say(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// A cluster that serves, as its user is told of it.
#[derive(Debug)]
pub(super) struct Greeting<'a> {
    pub(super) home: &'a Home,
    /// The row of what stands in ZooKeeper's place.
    pub(super) coordination: [String; 4],
    pub(super) binary: &'a Path,
    pub(super) restart: bool,
}

impl Greeting<'_> {
    /// The table of endpoints, where the data is, and what to do next.
    pub(super) fn text(&self) -> String {
        let shape = self.home.shape();
        let mut rows = vec![["NODE", "ENDPOINT", "HEALTH AND METRICS", "LOG"].map(str::to_owned)];
        rows.extend((0..shape.nodes).map(|i| {
            let health = format!("http://127.0.0.1:{}/health/ready", shape.admin_port(i));
            [i.to_string(), shape.endpoint(i), health, self.home.node_log(i).display().to_string()]
        }));
        rows.push(self.coordination.clone());
        let keeps = if self.home.is_temporary() {
            "and is deleted at the end (--data-dir DIR keeps it)"
        } else {
            "and is there again at the next start"
        };
        let killing = if self.restart {
            "kill-leader ends a node for real; --restart starts it again a moment later."
        } else {
            "kill-leader ends a node for real; how to start it again is told then (--restart does it by itself)."
        };
        format!(
            "\n{}\nThe data is in {} {keeps}.\n\nTo paste into another terminal:\n\n{}\n{killing}\nCtrl-C stops everything.\n\n",
            table(&rows),
            self.home.path().display(),
            self.kvctl_lines(),
        )
    }

    /// Lines that work in any terminal, whatever its directory is.
    fn kvctl_lines(&self) -> String {
        let shape = self.home.shape();
        let beside = self.binary.with_file_name("kvctl");
        let program =
            if beside.exists() { quoted(&beside.display().to_string()) } else { "kvctl".to_owned() };
        let all: Vec<String> = (0..shape.nodes).map(|i| shape.endpoint(i)).collect();
        let all = all.join(",");
        let found = shape == KVCTL_DEFAULT && env::var_os(KVCTL_ENDPOINTS).is_none();
        let endpoints = if found { String::new() } else { format!(" -e {all}") };
        let mut lines = String::new();
        for command in ["put greeting hello", "get greeting", "kill-leader"] {
            lines.push_str(&format!("  {program}{endpoints} {command}\n"));
        }
        if !found {
            lines.push_str(&format!("\nFor kvctl without -e:\n\n  export {KVCTL_ENDPOINTS}={all}\n"));
        }
        if !beside.exists() {
            lines.push_str(
                "\n(kvctl is not beside kvd; in the project's directory: cargo build --release -p kvctl)\n",
            );
        }
        lines
    }
}

/// Columns side by side.
fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> = row
            .iter()
            .enumerate()
            .map(|(column, cell)| format!("{cell:<width$}", width = width(column)))
            .collect();
        text.push_str(&format!("  {}\n", cells.join("  ").trim_end()));
    }
    text
}

/// A word as a shell takes it.
pub(super) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:,=@+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["A", "BCD"], ["long", ""], ["x", "y"]].map(|row| row.map(str::to_owned));
        assert_eq!(table(&rows), "  A     BCD\n  long\n  x     y\n");
    }

    #[test]
    fn words_can_be_pasted() {
        assert_eq!(quoted("target/release/kvd"), "target/release/kvd");
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }
}
