//! Arbitrary text into the file of settings.

use std::path::Path;
use std::time::Duration;

use quorumkv_fuzzing::{Case, fuzz, peak_of};
use quorumkv_keeper::config::settings;

use super::{Config, Flags};
use crate::fuzz::texts;

const ALL: &str = r#"host = "0.0.0.0"
port = 5000
advertise = "h:1"
insecure = true
zookeeper = "zk:1/kv"
zookeeper-port = 2181
session-timeout = "6s"
cluster-size = 5
data-dir = "/d"
admin-port = 6000
allow-remote-kill = true
heartbeat = 100
failover-timeout = "1min"
read-timeout = "30s"
max-connections = 10
cache-mib = 64
log-retain-kib = 65536
log-segment-kib = 32768
min-free-mib = 256
log = "info"
log-format = "json"
"#;

/// What is accepted is in range, whatever the numbers were.
#[test]
fn settings_file() {
    let small = "data-dir = \"d\"\nheartbeat = \"1day\"\nfailover-timeout = 18446744073709551615\n";
    let memory = "storage = \"memory\"\nport = 1\nadmin-port = 0\ncache-mib = 9223372036854775807\n";
    fuzz!(texts(&[ALL, small, memory]), |case: &mut Case| {
        let Ok(text) = std::str::from_utf8(&case.bytes) else { return };
        let (flags, taken) = peak_of(|| settings::from_text::<Flags>(Path::new("kvd.toml"), text));
        assert!(taken <= 256 * text.len() + (64 << 10), "{} bytes took {taken}", text.len());
        let Ok(flags) = flags else { return };
        let Ok(config) = Config::from_flags(flags.clone()) else { return };
        for time in [config.heartbeat, config.failover_timeout, config.read_timeout, config.session_timeout] {
            assert!(!time.is_zero() && time <= Duration::from_secs(86_400), "{time:?}");
        }
        let given = [flags.cache_mib, flags.min_free_mib, flags.log_retain_kib, flags.log_segment_kib];
        let bytes = [
            config.cache_bytes >> 20,
            config.min_free_bytes >> 20,
            config.log_retain_bytes >> 10,
            config.log_segment_bytes >> 10,
        ];
        for (given, bytes) in given.into_iter().zip(bytes) {
            assert!(given.is_none_or(|given| given == bytes), "{given:?} became {bytes}");
        }
        assert!(config.port > 0 && config.admin_port != Some(0));
    });
}
