//! What CI sees of `just chaos`: every kind of fault once or more, and nothing comes of it.

use anyhow::{Result, ensure};
use quorumkv_chaos::faults::Kind;
use quorumkv_chaos::run::{Options, run};
use quorumkv_tests::zookeeper::Slot;

/// The first faults are of all kinds, one each; these are some more.
const FAULTS: u64 = 60;

/// Of the kinds, most are to have happened: on a busy machine some find no moment at which they make sense.
const KINDS: usize = 24;

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
    let kinds = report.kinds.values().filter(|of_kind| of_kind.faults > 0).count();
    ensure!(kinds >= KINDS, "of {} kinds of faults, {kinds} have happened", Kind::ALL.len());
    let written = report.operations.get("put").and_then(|outcomes| outcomes.get("ok")).copied().unwrap_or(0);
    ensure!(written > 200, "{written} writes were acknowledged: that shows little");
    Ok(())
}
