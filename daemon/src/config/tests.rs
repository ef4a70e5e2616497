use std::io::Write;

use clap::CommandFactory;

use super::flags::CommandLine;
use super::{Config, ConfigError};

fn parse(arguments: &[&str]) -> Result<Config, ConfigError> {
    let matches = CommandLine::command().try_get_matches_from([&["kvd"], arguments].concat());
    Config::from_matches(&matches.expect("flags that clap accepts"))
}

fn error(arguments: &[&str]) -> String {
    parse(arguments).expect_err("settings that make no sense").to_string()
}

#[test]
fn the_command_line_is_well_formed() {
    CommandLine::command().debug_assert();
}

#[test]
fn the_defaults_are_those_of_the_help() {
    let config = parse(&["--data-dir", "d"]).expect("settings");
    assert_eq!(config.advertise.to_string(), "127.0.0.1:5000");
    assert_eq!(config.admin_port, Some(6000));
    assert_eq!(config.zookeeper.to_string(), "127.0.0.1:2181/quorumkv");
    assert_eq!(config.cluster_size, 3);
}

#[test]
fn a_port_for_zookeeper_fills_in_where_none_is_given() {
    let config =
        parse(&["--data-dir", "d", "--zookeeper", "a,b:1/x", "--zookeeper-port", "7"]).expect("settings");
    assert_eq!(config.zookeeper.to_string(), "a:7,b:1/x");
}

#[test]
fn flags_win_over_the_file() {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    writeln!(file, "port = 7000\ncluster-size = 5\ninsecure = true\nheartbeat = 50").expect("written");
    let path = file.path().to_str().expect("a path");
    let flags = ["--data-dir", "d", "--config", path, "--port", "7001", "--session-timeout", "8000"];
    let config = parse(&flags).expect("settings");
    assert_eq!((config.port, config.cluster_size), (7001, 5));
    assert_eq!((config.heartbeat.as_millis(), config.session_timeout.as_secs()), (50, 8));
    let refused = error(&[&flags[..], &["--host", "0.0.0.0", "--insecure=no"]].concat());
    assert!(refused.contains("--insecure"), "{refused}");
}

#[test]
fn a_file_with_an_unknown_key_is_refused() {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    writeln!(file, "prot = 7000").expect("written");
    assert!(error(&["--data-dir", "d", "--config", file.path().to_str().expect("a path")]).contains("prot"));
    assert!(error(&["--config", "/nowhere/kvd.toml"]).contains("cannot read"));
}

#[test]
fn what_makes_no_sense_is_refused_with_a_remedy() {
    assert!(error(&[]).contains("--data-dir"));
    assert!(error(&["--data-dir", "d", "--host", "0.0.0.0"]).contains("--insecure"));
    assert!(error(&["--data-dir", "d", "--host", "0.0.0.0", "--insecure"]).contains("--advertise"));
    assert!(error(&["--data-dir", "d", "--host", "here"]).contains("IP address"));
    assert!(error(&["--data-dir", "d", "--port", "0"]).contains("--port"));
    assert!(error(&["--data-dir", "d", "--port", "65000"]).contains("--admin-port"));
    assert!(error(&["--data-dir", "d", "--advertise", "x"]).contains("--advertise"));
    assert!(error(&["--data-dir", "d", "--zookeeper", "a:b"]).contains("--zookeeper"));
    assert!(error(&["--data-dir", "d", "--heartbeat", "0s"]).contains("above zero"));
    for longest in ["18446744073709551615s", "2days"] {
        assert!(error(&["--data-dir", "d", "--heartbeat", longest]).contains("1day"), "{longest}");
    }
    // In bytes this is 2 to the 64th, which would be no memory at all.
    for flag in ["--cache-mib", "--min-free-mib", "--log-retain-kib"] {
        assert!(error(&["--data-dir", "d", flag, "17592186044416"]).contains("1073741824"), "{flag}");
    }
    assert!(error(&["--data-dir", "d", "--failover-timeout", "150ms"]).contains("two of the --heartbeat"));
    assert!(error(&["--data-dir", "d", "--cluster-size", "0"]).contains("1 to 64"));
}
