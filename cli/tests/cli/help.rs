//! Help, usage errors, and completion.

use expect_test::expect_file;

use crate::run::kvctl;

const COMMANDS: [&str; 14] = [
    "put",
    "get",
    "del",
    "cas",
    "scan",
    "status",
    "leader",
    "kill-leader",
    "kill",
    "import",
    "export",
    "bench",
    "verify",
    "completions",
];

#[test]
fn help_is_as_in_the_snapshot() {
    let mut help = kvctl(&["--help"]).text().to_owned();
    for command in COMMANDS {
        let ran = kvctl(&[command, "--help"]);
        assert_eq!(ran.code, 0, "{command}");
        assert!(ran.text().contains("Example"), "{command} has no example");
        help.push_str(&format!("\n$ kvctl {command} --help\n{}", ran.text()));
    }
    expect_file!["help.txt"].assert_eq(&help);
}

#[test]
fn a_wrong_command_line_ends_with_2_and_says_why() {
    for (arguments, reason) in [
        (&["frobnicate"][..], "unrecognized subcommand"),
        (&["put", "k"], "required"),
        (&["put", "k", "v", "--file", "f"], "cannot be used with"),
        (&["cas", "k", "v"], "--expect-version"),
        (&["cas", "k", "v", "--expect-version", "-1"], "--expect-version"),
        (&["get", "k", "--consistency", "eventual"], "quorum, local"),
        (&["get", ""], "at least one byte"),
        (&["get", "k", "--timeout", "soon"], "expected something like"),
        (&["get", "k", "-e", "nowhere"], "host:port"),
        (&["kill", "zebra"], "neither an endpoint"),
        (&["export", "--resume"], "--file"),
        (&["bench", "--clients", "0"], "--clients must be from 1"),
        (&["bench", "--compare", "consul=127.0.0.1:8500"], "no system \"consul\""),
        (&["bench", "--compare", "127.0.0.1:2379"], "expected etcd=HOST:PORT"),
        (&["bench", "--compare", "etcd=localhost"], "no port"),
        (&["bench", "--compare", "redis="], "no address"),
        (&["verify", "--clients", "0"], "--clients must be"),
        (&["verify", "--keys", "0"], "--keys must be"),
        (&["verify", "--seconds", "0"], "--seconds must be"),
        (&["verify", "--consistency", "eventual"], "quorum, local"),
    ] {
        let ran = kvctl(arguments);
        assert_eq!((ran.code, ran.text()), (2, ""), "{arguments:?}");
        assert!(ran.stderr.contains(reason), "{arguments:?}: {}", ran.stderr);
    }
}

#[test]
fn usage_errors_are_json_where_json_is_asked_for() {
    for format in [&["-o", "json"][..], &["--output", "json"], &["-ojson"], &["--output=json"]] {
        let arguments = [&["put", "k"], format].concat();
        let ran = kvctl(&arguments);
        let error: serde_json::Value = serde_json::from_str(&ran.stderr).expect(&ran.stderr);
        assert_eq!((ran.code, &error["error"]["code"]), (2, &"usage".into()), "{arguments:?}");
        assert_eq!(error["error"]["exit_code"], 2);
    }
}

#[test]
fn nothing_at_all_shows_the_help_and_ends_with_2() {
    let ran = kvctl(&[]);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("Usage: kvctl"), "{}", ran.stderr);
}

#[test]
fn completions_exist_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ran = kvctl(&["completions", shell]);
        assert_eq!(ran.code, 0);
        assert!(ran.text().contains("kill-leader"), "{shell}");
    }
}

#[test]
fn a_page_that_could_not_be_written_is_named_before_anything_is_asked() {
    let ran = kvctl(&["verify", "--html", "/nonexistent/page.html", "-e", "127.0.0.1:1"]);
    assert_eq!((ran.code, ran.text()), (1, ""));
    assert!(ran.stderr.contains("/nonexistent/page.html") && ran.stderr.contains("--html"), "{}", ran.stderr);
}
