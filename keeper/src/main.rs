//! `keeperd`, the coordination server.

use std::io::Write;
use std::process::ExitCode;

use clap::CommandFactory;
use quorumkv_keeper::config::Config;
use quorumkv_keeper::config::flags::Flags;
use quorumkv_keeper::process::{
    USAGE, arguments, fail, frugal_runtime, log_to_stderr, raise_file_limit, warn_of_variables,
};
use quorumkv_keeper::server::Server;
use tokio::signal::unix::{Signal, SignalKind, signal};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const NAME: &str = "keeperd";

/// Files that are open besides connections: the log, snapshots, and what libraries need.
const OTHER_FILES: u64 = 100;

fn main() -> ExitCode {
    start().unwrap_or_else(|code| code)
}

fn start() -> Result<ExitCode, ExitCode> {
    let usage = |reason: &str| fail(NAME, reason, USAGE);
    let matches = arguments(NAME, Flags::command())?;
    let mut config = Config::from_matches(&matches).map_err(|error| usage(&error.to_string()))?;
    let own = ["keeperd", "quorumkv_keeper", "quorumkv_wal"];
    log_to_stderr(&config.log, config.log_format, &own, &[]).map_err(|error| usage(&error))?;
    warn_of_variables("KEEPERD_", &Flags::command());
    if let Some(files) = raise_file_limit() {
        let connections = usize::try_from(files.saturating_sub(OTHER_FILES)).unwrap_or(usize::MAX).max(1);
        config.server.limits.connections = config.server.limits.connections.min(connections);
    }
    let ended = frugal_runtime(NAME)?.block_on(run(config));
    ended.map_err(|error| fail(NAME, &error, 1))?;
    Ok(ExitCode::SUCCESS)
}

/// Serves until a signal comes. An error is what to tell people.
async fn run(config: Config) -> Result<(), String> {
    let refused = |error| format!("the system refuses a signal handler: {error}");
    let mut terminate = signal(SignalKind::terminate()).map_err(refused)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(refused)?;
    let server = Server::start(config.server).await.map_err(|error| error.to_string())?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "started");
    say(&format!("listening on {}", server.address()));
    if let Some(address) = server.secure_address() {
        say(&format!("listening on {address} for TLS"));
    }
    let name = tokio::select! {
        name = next(&mut terminate, &mut interrupt) => name,
        reason = server.failed() => return Err(format!("{reason}; the server stops")),
    };
    tracing::info!("got {name}; stopping");
    tokio::select! {
        stopped = server.stop() => stopped,
        name = next(&mut terminate, &mut interrupt) => Err(format!("got {name} again while stopping")),
    }
}

async fn next(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! { _ = terminate.recv() => "SIGTERM", _ = interrupt.recv() => "SIGINT" }
}

/// For whoever has started this with `--port 0`.
fn say(line: &str) {
    // Nobody may be reading.
    let _ = writeln!(std::io::stdout(), "{line}");
}
