//! What CI sees of `just chaos`: every kind of fault once or more, and nothing comes of it.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use quorumkv_chaos::faults::Kind;
use quorumkv_chaos::run::{Options, run};
use quorumkv_tests::zookeeper::Slot;

/// The first faults are of all kinds, one each; these are some more, and a kind that made no sense when it was its turn gets another.
const FAULTS: u64 = 60;

/// Kinds that may not happen at all. They wait until all voters have caught up, and two of them for a long log: a slow machine may
/// never come so far within a short run.
const MAY_BE_SKIPPED: [Kind; 5] =
    [Kind::CorruptLog, Kind::CorruptLogRunning, Kind::Wipe, Kind::AddOrRemove, Kind::Replace];

#[tokio::test(flavor = "multi_thread")]
async fn sixty_faults_of_all_kinds_lose_nothing() -> Result<()> {
    let _slot = tokio::task::spawn_blocking(Slot::acquire).await??;
    let options = Options {
        nodes: 3,
        seed: 1,
        faults: Some(FAULTS),
        duration: None,
        history: None,
        page: std::env::temp_dir().join("quorumkv-chaos-violation.html"),
    };
    let report = run(&options).await?;
    println!("{report}");
    ensure!(report.is_good(), "something is wrong: see above");
    ensure!(report.faults >= FAULTS, "there were {} faults", report.faults);
    let happened = |kind: &&Kind| report.kinds.get(kind.name()).is_some_and(|of_kind| of_kind.faults > 0);
    let (happened, missing): (Vec<&Kind>, Vec<&Kind>) = Kind::ALL.iter().partition(happened);
    for kind in missing.iter().filter(|kind| !MAY_BE_SKIPPED.contains(kind)) {
        let skips = report.kinds.get(kind.name()).map(|of_kind| &of_kind.skips);
        ensure!(false, "{} has not happened: {skips:?}", kind.name());
    }
    let groups = |kinds: &[&Kind]| kinds.iter().map(|kind| kind.group()).collect::<BTreeSet<_>>();
    let (all, seen) = (groups(&Kind::ALL.iter().collect::<Vec<_>>()), groups(&happened));
    ensure!(seen == all, "of the groups {all:?} only {seen:?} have happened");
    let written = report.operations.get("put").and_then(|outcomes| outcomes.get("ok")).copied().unwrap_or(0);
    ensure!(written > 200, "{written} writes were acknowledged: that shows little");
    Ok(())
}
