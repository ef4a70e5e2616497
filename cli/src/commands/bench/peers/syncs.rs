//! How often a peer has synced its log while it was loaded.

use quorumkv_client::Endpoint;
use serde_json::json;

use super::super::system::Facts;

/// Syncs of a log since its server started.
#[derive(Clone, Copy, Debug)]
pub(super) struct Syncs {
    pub(super) count: f64,
    /// How long all of them took, if that is told precisely enough.
    pub(super) ms: Option<f64>,
}

/// Says how many there were of a server's log between two questions: before the load, and after it.
pub(super) fn tell(
    facts: &mut Facts,
    endpoint: &Endpoint,
    log: &str,
    before: Result<Syncs, String>,
    after: Result<Syncs, String>,
) {
    let path = ["log_syncs", endpoint.as_str()];
    let (count, ms) = match before.and_then(|before| Ok((before, after?))) {
        Ok((before, after)) => (after.count - before.count, after.ms.zip(before.ms)),
        Err(why) => return facts.unknown(&path, &format!("syncs of {endpoint}'s {log}"), &why),
    };
    // It may have been started again meanwhile, and counts from zero then.
    if count < 0.0 {
        return facts.unknown(
            &path,
            &format!("syncs of {endpoint}'s {log}"),
            "it was started again meanwhile",
        );
    }
    if count == 0.0 {
        let json = json!({"count": count, "mean_ms": null});
        return facts.known(&path, json, format!("{endpoint} did not sync its {log} meanwhile"));
    }
    let mean_ms = ms.map(|(after, before)| ((after - before) / count * 1000.0).round() / 1000.0);
    let average = mean_ms.map_or_else(String::new, |ms| format!(", in {ms} ms on average"));
    let line = format!("{endpoint} synced its {log} {count} times meanwhile{average}");
    facts.known(&path, json!({"count": count, "mean_ms": mean_ms}), line);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_is_never_synced_is_told() {
        let endpoint: Endpoint = "e:2379".parse().expect("an endpoint");
        let at = |count, ms| Ok(Syncs { count, ms: Some(ms) });
        let counted = |count| Ok(Syncs { count, ms: None });
        let mut facts = Facts::default();
        tell(&mut facts, &endpoint, "WAL", at(5.0, 100.0), at(15.0, 120.0));
        tell(&mut facts, &endpoint, "log", counted(5.0), counted(6.0));
        tell(&mut facts, &endpoint, "WAL", at(5.0, 100.0), at(5.0, 100.0));
        tell(&mut facts, &endpoint, "WAL", at(5.0, 100.0), at(1.0, 20.0));
        tell(&mut facts, &endpoint, "WAL", Err("connection refused".to_owned()), at(5.0, 100.0));
        assert_eq!(
            facts.lines(),
            [
                "e:2379 synced its WAL 10 times meanwhile, in 2 ms on average",
                "e:2379 synced its log 1 times meanwhile",
                "e:2379 did not sync its WAL meanwhile",
                "syncs of e:2379's WAL: unknown (it was started again meanwhile)",
                "syncs of e:2379's WAL: unknown (connection refused)",
            ]
        );
    }
}
