//! Arbitrary text into the file of settings.

use std::path::Path;
use std::time::Duration;

use quorumkv_fuzzing::{Case, fuzz, peak_of};

use super::flags::Flags;
use super::{server_config, settings};
use crate::fuzz::texts;

const ALL: &str = r#"host = "0.0.0.0"
insecure = true
port = 2181
data-dir = "/d"
tick-time = 2000
min-session-timeout = "4s"
max-session-timeout = "1min"
max-client-cnxns = 60
max-connections = 10
snapshot-txns = 5
snapshot-kib = 65536
min-free-mib = 1
4lw = ["srvr", "ruok"]
super-digest = "super:bHVja3kgbnVtYmVycyAxMjM0NTY="
log = "info"
"#;

/// What is accepted is in range.
#[test]
fn settings_file() {
    let tls = "data-dir = \"d\"\nsecure-port = 2\ntls-cert = \"c\"\ntls-key = \"k\"\ntls-client-ca = \"a\"\n";
    let odd = "tickTime=2000\ndataDir=/d\ncontainer-check-interval = \"1day\"\n";
    fuzz!(texts(&[ALL, tls, odd]), |case: &mut Case| {
        let Ok(text) = std::str::from_utf8(&case.bytes) else { return };
        let (flags, taken) = peak_of(|| settings::from_text::<Flags>(Path::new("keeperd.toml"), text));
        assert!(taken <= 256 * text.len() + (64 << 10), "{} bytes took {taken}", text.len());
        let Some(config) = flags.ok().and_then(|flags| server_config(flags).ok()) else { return };
        let day = Duration::from_secs(86_400);
        assert!(!config.tick.is_zero() && config.tick <= day && config.container_check_interval <= day);
        let (least, most) = (config.min_session_timeout, config.max_session_timeout);
        assert!(least.zip(most).is_none_or(|(least, most)| least <= most));
        assert!((1..=1_000_000).contains(&config.limits.connections) && config.storage.snapshot_txns > 0);
        assert!(config.secure.is_none_or(|secure| secure.port != config.port || config.port == 0));
    });
}
