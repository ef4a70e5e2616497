use std::io::Write;
use std::time::Duration;

use clap::CommandFactory;

use super::flags::Flags;
use super::{Config, ConfigError};
use crate::process::LogFormat;
use crate::server::{Secure, Whitelist};

fn parse(arguments: &[&str]) -> Result<Config, ConfigError> {
    let matches = Flags::command().try_get_matches_from([&["keeperd"], arguments].concat());
    Config::from_matches(&matches.expect("flags that clap accepts"))
}

fn error(arguments: &[&str]) -> String {
    parse(&[&["--data-dir", "d"], arguments].concat()).expect_err("settings that make no sense").to_string()
}

#[test]
fn the_command_line_is_well_formed() {
    Flags::command().debug_assert();
}

#[test]
fn the_defaults_are_those_of_the_help_and_of_zookeeper() {
    let config = parse(&["--data-dir", "d"]).expect("settings");
    let server = config.server;
    assert_eq!((server.host.to_string().as_str(), server.port), ("127.0.0.1", 2181));
    assert_eq!(server.data_dir, std::env::current_dir().expect("a directory").join("d"));
    assert_eq!(server.tick, Duration::from_secs(2));
    assert_eq!((server.min_session_timeout, server.max_session_timeout), (None, None));
    assert_eq!((server.super_digest, server.secure), (None, None));
    assert_eq!(server.four_letter_words, Whitelist::default());
    assert_eq!((server.max_client_connections, server.limits.connections), (60, 50_000));
    assert_eq!((server.storage.snapshot_txns, server.storage.snapshot_bytes), (100_000, 64 << 20));
    assert_eq!((config.log.as_str(), config.log_format), ("info", LogFormat::Human));
}

#[test]
fn flags_say_what_the_server_is_to_be() {
    let digest = "super:xQJmxLMiHGwaqBvst5y6rkB6HQs=";
    let arguments = "--host 0.0.0.0 --insecure --port 0 --secure-port 2281 --tls-cert c.pem --tls-key k.pem --tls-client-ca a.pem \
        --tick-time 500ms --min-session-timeout 1s --max-session-timeout 1min --4lw ruok,mntr --max-client-cnxns 0 \
        --log debug --log-format json";
    let arguments: Vec<_> = arguments.split_whitespace().collect();
    let config =
        parse(&[&arguments[..], &["--data-dir", "d", "--super-digest", digest]].concat()).expect("settings");
    let server = config.server;
    assert_eq!((server.host.to_string().as_str(), server.port), ("0.0.0.0", 0));
    let secure = Secure {
        port: 2281,
        certificate: "c.pem".into(),
        key: "k.pem".into(),
        client_ca: Some("a.pem".into()),
    };
    assert_eq!(server.secure, Some(secure));
    assert_eq!(server.tick, Duration::from_millis(500));
    assert_eq!(server.min_session_timeout, Some(Duration::from_secs(1)));
    assert_eq!(server.max_session_timeout, Some(Duration::from_secs(60)));
    assert_eq!(server.super_digest.as_deref(), Some(digest));
    assert_eq!(Ok(server.four_letter_words), "mntr,ruok".parse());
    assert_eq!(server.max_client_connections, 0);
    assert_eq!((config.log.as_str(), config.log_format), ("debug", LogFormat::Json));
}

#[test]
fn flags_win_over_the_file() {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    writeln!(file, "port = 7000\ninsecure = true\ndata-dir = 'x'\n4lw = '*'\nmax-client-cnxns = 7")
        .expect("written");
    let path = file.path().to_str().expect("a path");
    let config = parse(&["--config", path, "--port", "7001", "--host", "0.0.0.0"]).expect("settings");
    assert_eq!((config.server.port, config.server.max_client_connections), (7001, 7));
    assert_eq!(config.server.four_letter_words, Whitelist::all());
    let refused =
        parse(&["--config", path, "--host", "0.0.0.0", "--insecure=no"]).expect_err("--insecure=no");
    assert!(refused.to_string().contains("--insecure"), "{refused}");
}

#[test]
fn a_number_alone_is_a_time_in_milliseconds_as_in_zookeepers_file() {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    writeln!(file, "tick-time = 3000\nmin-session-timeout = '4s'").expect("written");
    let path = file.path().to_str().expect("a path");
    let file = ["--data-dir", "d", "--config", path];
    let server = parse(&[&file[..], &["--max-session-timeout", "9000"]].concat()).expect("settings").server;
    assert_eq!(server.tick, Duration::from_secs(3));
    assert_eq!(server.min_session_timeout, Some(Duration::from_secs(4)));
    assert_eq!(server.max_session_timeout, Some(Duration::from_secs(9)));
}

#[test]
fn yes_and_no_are_said_in_many_ways() {
    for (word, is) in [("yes", true), ("1", true), ("on", true), ("TRUE", true), ("no", false), ("0", false)]
    {
        let flag = format!("--insecure={word}");
        assert_eq!(parse(&["--data-dir", "d", "--host", "0.0.0.0", &flag]).is_ok(), is, "{word}");
    }
    assert!(parse(&["--data-dir", "d", "--host", "0.0.0.0", "--insecure"]).is_ok());
}

#[test]
fn a_file_with_an_unknown_key_is_refused() {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    writeln!(file, "tick-time = '1s'\nprot = 7000").expect("written");
    let refused = error(&["--config", file.path().to_str().expect("a path")]);
    assert!(refused.contains("line 2") && refused.contains("prot"), "{refused}");
    assert!(error(&["--config", "/nowhere/keeperd.toml"]).contains("cannot read"));
    for value in ["'soon'", "true", "-5", "2.5"] {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        writeln!(file, "port = 1\ntick-time = {value}").expect("written");
        let refused = error(&["--config", file.path().to_str().expect("a path")]);
        assert!(refused.contains("line 2") && refused.contains("no time"), "{refused}");
    }
}

#[test]
fn what_makes_no_sense_is_refused_with_a_remedy() {
    assert!(parse(&[]).expect_err("no directory").to_string().contains("--data-dir"));
    assert!(error(&["--host", "0.0.0.0"]).contains("--insecure"));
    assert!(error(&["--host", "here"]).contains("IP address"));
    assert!(error(&["--secure-port", "2281"]).contains("--secure-port needs --tls-cert"));
    assert!(error(&["--tls-client-ca", "a.pem"]).contains("--tls-client-ca needs --secure-port"));
    let twice = ["--secure-port", "2181", "--tls-cert", "c", "--tls-key", "k"];
    assert!(error(&twice).contains("must differ"));
    assert!(error(&["--tick-time", "0s"]).contains("--tick-time"));
    assert!(error(&["--max-session-timeout", "2days"]).contains("--max-session-timeout must be 1ms to 1day"));
    assert!(error(&["--max-session-timeout", "3s"]).contains("--min-session-timeout"));
    assert!(error(&["--super-digest", "secret"]).contains("USER:HASH"));
    assert!(error(&["--4lw", "ruok,rm"]).contains("\"rm\""));
    assert!(error(&["--max-connections", "0"]).contains("1 to 1000000"));
    assert!(error(&["--snapshot-txns", "0"]).contains("at least 1"));
}

#[test]
fn a_list_in_the_file_is_written_either_way_and_zookeepers_own_file_is_told_from_ours() {
    let with = |text: &str| {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        writeln!(file, "{text}").expect("written");
        let config = ["--data-dir", "d", "--config", file.path().to_str().expect("a path")];
        parse(&config).map(|config| config.server.four_letter_words).map_err(|error| error.to_string())
    };
    let words = "ruok,mntr".parse().expect("words");
    assert_eq!(with("4lw = 'ruok,mntr'").as_ref(), Ok(&words));
    assert_eq!(with("4lw = ['ruok', 'mntr']").as_ref(), Ok(&words));
    assert!(with("4lw = 5").expect_err("a number").contains("list of texts"));
    let refused = with("tickTime=2000\ndataDir=/var/lib/zookeeper").expect_err("a zoo.cfg");
    assert!(refused.contains("zoo.cfg") && refused.contains("tick-time"), "{refused}");
}
