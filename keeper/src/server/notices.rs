//! What the keeper notices, as it is logged.

use std::time::Instant;

use super::pace::Pace;
use crate::core::Notice;

/// Logs what the keeper notices, and what there may be a lot of only now and then.
#[derive(Debug, Default)]
pub(super) struct Notices {
    expired: Pace,
    refused: Pace,
}

impl Notices {
    pub(super) fn log(&mut self, notice: Notice) {
        let pace = match notice {
            Notice::SessionOpened { session, timeout_ms, address } => {
                tracing::debug!(session = format_args!("{session:#x}"), timeout_ms, %address, "session opened");
                return;
            }
            Notice::SessionExpired { .. } => &mut self.expired,
            Notice::SessionRefused { .. } | Notice::FromTheFuture { .. } | Notice::Malformed { .. } => {
                &mut self.refused
            }
        };
        let Some(untold) = pace.next(Instant::now()) else { return };
        if untold > 0 {
            tracing::info!(untold, "more like the following was not logged");
        }
        match notice {
            Notice::SessionOpened { .. } => {}
            Notice::SessionExpired { session, timeout_ms } => {
                tracing::info!(session = format_args!("{session:#x}"), timeout_ms, "session expired");
            }
            Notice::SessionRefused { session, address } => {
                tracing::info!(
                    session = format_args!("{session:#x}"), %address,
                    "refused to go on with a session: it is over, or the password is wrong"
                );
            }
            Notice::FromTheFuture { address, zxid } => {
                tracing::warn!(
                    %address, zxid = format_args!("{zxid:#x}"),
                    "refused a client that has seen a later state than this server has: it must try another server"
                );
            }
            Notice::Malformed { address, problem } => {
                tracing::warn!(%address, "closes a connection: {problem}");
            }
        }
    }
}
