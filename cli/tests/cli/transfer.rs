//! import, export and bench.

use std::path::Path;

use quorumkv_protocol::ErrorCode;
use quorumkv_protocol::client::{Request, Write};

use crate::fake::{FakeNode, failed};
use crate::run::{kvctl_at, kvctl_with};

/// Lines of all kinds of keys and values, in the order of their keys.
fn lines(number: usize) -> String {
    let text = |n| format!("{{\"key\":\"k/{n:05}\",\"value\":\"grün \\\"{n}\\\"\\n\"}}\n");
    let mut lines: String = (0..number).map(text).collect();
    lines.push_str("{\"key_base64\":\"/wA=\",\"value_base64\":\"/w==\"}\n");
    lines
}

fn path(path: &Path) -> &str {
    path.to_str().expect("temporary paths are UTF-8")
}

#[test]
fn what_is_imported_is_exported_byte_for_byte() {
    let (node, folder) = (FakeNode::start(), tempfile::tempdir().unwrap());
    let (input, file) = (folder.path().join("in.jsonl"), folder.path().join("out.jsonl"));
    let lines = lines(3_000);
    std::fs::write(&input, &lines).unwrap();

    let ran = kvctl_at(&[&node], &["import", path(&input), "-o", "json"]);
    assert_eq!(ran.all(), "exit 0\n{\"records\":\"3001\",\"lines\":\"3001\",\"resumed_after\":\"0\"}\n");
    assert_eq!(node.content().len(), 3_001);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no checkpoint is left after success");

    assert_eq!(kvctl_at(&[&node], &["export"]).text(), lines);
    let ran = kvctl_at(&[&node], &["export", "--file", path(&file)]);
    assert_eq!(ran.all(), "exit 0\n3001\n");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), lines);
    assert_eq!(kvctl_at(&[&node], &["export", "k/0000"]).text().lines().count(), 10);
    assert_eq!(kvctl_at(&[&node], &["export", "k/", "--after", "k/02997"]).text().lines().count(), 2);

    let other = FakeNode::start();
    assert_eq!(kvctl_with(&other, &["import", "-"], lines.as_bytes()).text(), "3001\n");
    assert_eq!(other.content(), node.content());
    let scanned = kvctl_at(&[&node], &["scan", "", "-o", "json"]).stdout;
    assert_eq!(kvctl_with(&other, &["import", "-"], &scanned).code, 0, "the output of a scan is importable");
}

#[test]
fn of_lines_with_the_same_key_the_last_wins() {
    let node = FakeNode::start();
    let lines: String =
        (0..2_000).map(|n| format!("{{\"key\":\"k{}\",\"value\":\"{n}\"}}\n", n % 3)).collect();
    assert_eq!(kvctl_with(&node, &["import", "-"], lines.as_bytes()).code, 0);
    let held: Vec<_> = node.content().into_iter().map(|(_, value)| value).collect();
    assert_eq!(held, ["1998", "1999", "1997"]);
}

#[test]
fn a_malformed_line_stops_an_import_with_its_number_and_a_rerun_goes_on() {
    let (node, folder) = (FakeNode::start(), tempfile::tempdir().unwrap());
    let input = folder.path().join("in.jsonl");
    let good = lines(600);
    std::fs::write(&input, format!("{good}\n{{\"key\":\"x\"}}\n")).unwrap();
    let ran = kvctl_at(&[&node], &["import", path(&input)]);
    assert_eq!((ran.code, ran.text()), (1, ""));
    assert!(ran.stderr.contains("line 603 of the input is malformed: neither value"), "{}", ran.stderr);
    assert!(ran.stderr.contains("the first 602 lines are written") && ran.stderr.contains("kvctl import"));
    assert_eq!(node.content().len(), 601);

    std::fs::write(&input, format!("{good}\n{{\"key\":\"x\",\"value\":\"y\"}}\n")).unwrap();
    let ran = kvctl_at(&[&node], &["import", path(&input), "-o", "json"]);
    assert_eq!(
        ran.text(),
        "{\"records\":\"1\",\"lines\":\"603\",\"resumed_after\":\"602\"}\n",
        "{}",
        ran.stderr
    );
    assert_eq!(node.content().len(), 602);
}

#[test]
fn a_checkpoint_is_used_only_for_its_input_and_its_cluster() {
    let (node, folder) = (FakeNode::start(), tempfile::tempdir().unwrap());
    let input = folder.path().join("in.jsonl");
    let checkpoint = folder.path().join("progress");
    let import = || kvctl_at(&[&node], &["import", path(&input), "--checkpoint", path(&checkpoint)]);
    std::fs::write(&input, format!("{}junk\n", lines(5))).unwrap();
    assert_eq!(import().code, 1);
    let noted = std::fs::read_to_string(&checkpoint).unwrap();

    std::fs::write(&input, lines(7).replace("grün", "grau")).unwrap();
    let ran = import();
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("is of another input") && ran.stderr.contains("delete it"), "{}", ran.stderr);

    std::fs::write(&input, lines(5)).unwrap();
    std::fs::write(&checkpoint, noted.replace("0000000000000007", "0000000000000008")).unwrap();
    let ran = import();
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("is of cluster 0000000000000008"), "{}", ran.stderr);
    assert_eq!(std::fs::read_to_string(&checkpoint).unwrap(), noted.replace("07\"", "08\""));

    std::fs::write(&checkpoint, noted).unwrap();
    assert_eq!(import().code, 0);
}

/// A node that answers writes of one key with `code`, the first `times` times.
fn failing(code: ErrorCode, times: usize) -> FakeNode {
    let mut left = times;
    FakeNode::scripted(1, move |request| match request {
        Request::Write(write) if write.write.key() == "k/00300" && left > 0 => {
            left -= 1;
            Some(failed(code, "not now"))
        }
        _ => None,
    })
}

#[test]
fn what_only_time_can_heal_is_waited_for() {
    for code in [ErrorCode::NoQuorum, ErrorCode::OutcomeUnknown, ErrorCode::NotLeader] {
        let node = failing(code, 3);
        let ran = kvctl_with(&node, &["import", "-"], lines(600).as_bytes());
        assert_eq!(ran.all(), "exit 0\n601\n", "{code}");
        assert_eq!(node.content().len(), 601);
    }
}

#[test]
fn an_outcome_that_stays_unknown_ends_an_import_with_7_and_the_command_that_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("in put.jsonl");
    std::fs::write(&input, lines(600)).unwrap();
    for (code, exit) in [(ErrorCode::OutcomeUnknown, 7), (ErrorCode::NoQuorum, 6), (ErrorCode::DiskFull, 9)] {
        let node = failing(code, usize::MAX);
        let ran = kvctl_at(&[&node], &["import", path(&input), "--timeout", "200ms"]);
        assert_eq!(ran.code, exit, "{}", ran.stderr);
        assert!(
            ran.stderr.contains("the first 300 lines are written; to go on after them:"),
            "{}",
            ran.stderr
        );
        assert!(ran.stderr.contains(&format!("import '{}'", input.display())), "{}", ran.stderr);

        let healed = FakeNode::start();
        let ran = kvctl_at(&[&healed], &["import", path(&input), "-o", "json"]);
        assert_eq!(ran.text(), "{\"records\":\"301\",\"lines\":\"601\",\"resumed_after\":\"300\"}\n");
    }
}

#[test]
fn an_interrupted_export_keeps_what_it_has_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("out.jsonl");
    let mut pages = 0;
    let node = FakeNode::scripted(1, move |request| match request {
        Request::Scan { .. } => {
            pages += 1;
            (pages == 3).then(|| failed(ErrorCode::Corruption, "two replicas differ"))
        }
        _ => None,
    });
    (0..3_500).for_each(|n| node.hold(format!("k{n:05}"), "v"));
    let ran = kvctl_at(&[&node], &["export", "--file", path(&file)]);
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("two replicas differ") && ran.stderr.contains("--resume"), "{}", ran.stderr);
    assert!(!file.exists());
    let partial = std::fs::read_to_string(folder.path().join("out.jsonl.partial")).unwrap();
    assert_eq!(partial.lines().count(), 2_000);

    let ran = kvctl_at(&[&node], &["export", "--file", path(&file), "--resume"]);
    assert_eq!(ran.all(), "exit 0\n3500\n");
    let all = std::fs::read_to_string(&file).unwrap();
    assert!(all.starts_with(&partial) && all.lines().count() == 3_500);
}

#[test]
fn a_benchmark_is_one_line_of_json_with_its_numbers() {
    let node = FakeNode::start();
    for op in ["put", "get", "get-local", "mixed"] {
        let arguments =
            ["bench", "--op", op, "--clients", "4", "--seconds", "0.1", "--keys", "50", "-o", "json"];
        let ran = kvctl_at(&[&node], &arguments);
        let line: serde_json::Value = serde_json::from_slice(&ran.stdout).expect(&ran.stderr);
        assert_eq!((line["op"].as_str(), line["clients"].as_u64()), (Some(op), Some(4)));
        for figure in ["ops_per_s", "mean_ms", "p50_ms", "p99_ms", "p999_ms", "max_ms"] {
            assert!(line[figure].as_f64().is_some_and(|figure| figure > 0.0), "{figure} in {line}");
        }
        assert_eq!(line["errors"], 0);
        assert_eq!(line["system"], "kvd");
        let buckets = line["histogram"].as_array().expect("buckets");
        let bound = |bucket: &serde_json::Value| bucket[0].as_f64().expect("an upper bound in ms");
        assert!(buckets.windows(2).all(|pair| bound(&pair[0]) < bound(&pair[1])), "{line}");
        assert!(buckets.last().is_some_and(|last| bound(last) >= line["max_ms"].as_f64().expect("a time")));
        assert!(buckets.iter().all(|bucket| bucket[1].is_u64()), "{line}");
    }
    assert!(node.content().iter().all(|(_, value)| value.len() == 256));
}

#[test]
fn a_benchmark_shows_people_how_latencies_are_spread_and_programs_one_row() {
    let node = FakeNode::start();
    let bench = ["bench", "--op", "put", "--clients", "2", "--seconds", "0.1", "-o"];
    let table = kvctl_at(&[&node], &[&bench[..], &["table"]].concat());
    let lines: Vec<_> = table.text().lines().collect();
    assert!(
        lines[0].starts_with("OP ") && lines[1].starts_with("put ") && lines[2].is_empty(),
        "{}",
        table.all()
    );
    assert!(lines[3].contains("UP TO MS") && (5..=18).contains(&lines.len()), "{}", table.all());
    assert!(lines.last().is_some_and(|last| last.contains("100.000")), "{}", table.all());
    let raw = kvctl_at(&[&node], &[&bench[..], &["raw"]].concat());
    assert_eq!((raw.text().lines().count(), raw.text().split('\t').count()), (1, 9), "{}", raw.all());
}

#[test]
fn a_benchmark_without_a_single_success_says_why() {
    let node = FakeNode::scripted(1, |request| match request {
        Request::Write(write) if matches!(write.write, Write::Put { .. }) => {
            Some(failed(ErrorCode::DiskFull, "the disk is full"))
        }
        _ => None,
    });
    let ran = kvctl_at(&[&node], &["bench", "--op", "put", "--seconds", "0.1", "--clients", "2"]);
    assert_eq!(ran.code, 9, "{}", ran.stderr);
    assert!(ran.stderr.contains("the disk is full"), "{}", ran.stderr);
}

#[test]
fn a_benchmark_with_errors_shows_its_figures_and_fails() {
    let mut asked = 0;
    let node = FakeNode::scripted(1, move |request| match request {
        Request::Write(_) => {
            asked += 1;
            (asked % 2 == 0).then(|| failed(ErrorCode::DiskFull, "the disk is full"))
        }
        _ => None,
    });
    let arguments = ["bench", "--op", "put", "--seconds", "0.2", "--clients", "2", "-o", "json"];
    let ran = kvctl_at(&[&node], &arguments);
    assert_eq!(ran.code, 9, "{}", ran.stderr);
    let line: serde_json::Value = serde_json::from_slice(&ran.stdout).expect(&ran.stderr);
    assert!(line["errors"].as_u64() > Some(0) && line["ops_per_s"].as_f64() > Some(0.0), "{line}");
    assert!(ran.stderr.contains("operations failed, the last: "), "{}", ran.stderr);
}

#[test]
fn a_call_that_hangs_over_the_end_of_a_benchmark_is_an_error() {
    let node = FakeNode::scripted(1, |request| {
        if matches!(request, Request::Write(_)) {
            std::thread::sleep(std::time::Duration::from_secs(60));
        }
        None
    });
    // The warm-up takes a second, so the deadline of the first call passes after the end.
    let bench =
        ["bench", "--op", "put", "--seconds", "0.1", "--clients", "1", "--timeout", "2s", "-o", "json"];
    let ran = kvctl_at(&[&node], &bench);
    assert_eq!(ran.code, 7, "{}", ran.stderr);
    let line: serde_json::Value = serde_json::from_slice(&ran.stdout).expect(&ran.stderr);
    assert_eq!(line["errors"], 1, "{line}");
}
