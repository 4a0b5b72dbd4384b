//! Long polling: register, take a view, compute, wait.

use std::{sync::Arc, time::Duration};

use projections::{Source, StoreError, View, models::timeline};
use ruma::api::client::sync::sync_events::{DeviceLists, v3::Response};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    Notifier, SyncToken,
    v3::{self, Asker, Wanted},
};
use crate::{ephemeral::Ephemeral, fold::Progress};

/// A token ahead of this node is waited for so long.
pub const AHEAD: Duration = Duration::from_secs(5);

/// Why a sync has no answer.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// The read models can't be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The token is from a time that this node has not come to.
    #[error("this node has not folded as far as the token; try again")]
    Ahead,
}

/// What is wanted by whoever has a token of a future that was lost when an older log was restored: everything since the
/// fork, and all state, since theirs may be nothing that ever was. What anybody else wants stays as it is.
fn landed(view: &View, wanted: Wanted) -> Result<Wanted, StoreError> {
    let Some(since) = &wanted.since else { return Ok(wanted) };
    let Some(fork) = timeline::fork_before(view, since.lsn)? else { return Ok(wanted) };
    let to_device = since.to_device.map(|lsn| lsn.min(fork));
    let since = SyncToken { lsn: fork, to_device, ..since.clone() };
    Ok(Wanted { since: Some(since), full_state: true, lost: true, ..wanted })
}

/// Answers syncs.
pub struct Syncs {
    /// Where views come from.
    pub source: Arc<dyn Source>,
    /// How far the fold has come.
    pub progress: Arc<Progress>,
    /// Typing and presence.
    pub ephemeral: Arc<Ephemeral>,
    /// Who waits.
    pub notifier: Arc<Notifier>,
    /// Whether presence is told.
    pub with_presence: bool,
    /// Is cancelled when the server stops.
    pub stop: CancellationToken,
}

impl Syncs {
    /// What is new since a token; waits for something to be so for up to `timeout`. Initial and `full_state` syncs don't
    /// wait.
    ///
    /// # Errors
    /// When the store fails, or the token is ahead of this node.
    pub async fn sync(&self, asker: &Asker, mut wanted: Wanted, timeout: Duration) -> Result<Response, SyncError> {
        let deadline = Instant::now() + timeout;
        if let Some(since) = &mut wanted.since {
            if !self.progress.reached(since.lsn, AHEAD).await {
                return Err(SyncError::Ahead);
            }
            since.ephemeral = self.ephemeral.news_after(&since.channel, since.ephemeral).await;
            self.ephemeral.channel().clone_into(&mut since.channel);
        }
        let wanted = landed(&self.source.view()?, wanted)?;
        self.answer(asker, &wanted, deadline).await
    }

    async fn answer(&self, asker: &Asker, wanted: &Wanted, deadline: Instant) -> Result<Response, SyncError> {
        loop {
            let mut watch = self.notifier.watch(&asker.user)?;
            let is_quiet = |since: &SyncToken| {
                let owed = since.to_device.is_some() || wanted.full_state;
                !owed && watch.is_quiet_since(since.lsn, since.ephemeral)
            };
            let quiet = wanted.since.as_ref().filter(|since| is_quiet(since));
            if let Some(since) = quiet {
                if Instant::now() >= deadline {
                    return self.nothing(asker, since);
                }
            } else {
                let view = self.source.view()?;
                let answer = v3::answer(&view, &self.ephemeral, self.with_presence, asker, wanted)?;
                let at_once = wanted.since.is_none() || wanted.full_state || Instant::now() >= deadline;
                if at_once || !answer.is_empty {
                    return Ok(answer.response);
                }
            }
            tokio::select! {
                () = watch.changed() => {}
                () = tokio::time::sleep_until(deadline) => {}
                () = self.stop.cancelled() => {
                    let view = self.source.view()?;
                    return Ok(v3::answer(&view, &self.ephemeral, self.with_presence, asker, wanted)?.response);
                }
            }
        }
    }

    /// Whose devices a client had to look at anew between two tokens.
    ///
    /// # Errors
    /// When the store fails, or a token is ahead of this node.
    pub async fn device_lists(
        &self,
        asker: &Asker,
        since: SyncToken,
        until: &SyncToken,
    ) -> Result<DeviceLists, SyncError> {
        if !self.progress.reached(since.lsn.max(until.lsn), AHEAD).await {
            return Err(SyncError::Ahead);
        }
        let view = self.source.view()?;
        let wanted = landed(&view, Wanted { since: Some(since), ..Wanted::default() })?;
        Ok(v3::device_lists(&view, &self.ephemeral, asker, &wanted, until.lsn)?)
    }

    /// The answer when nothing that concerns the user has happened: it costs nothing, however many rooms they are in.
    fn nothing(&self, asker: &Asker, since: &SyncToken) -> Result<Response, SyncError> {
        let view = self.source.view()?;
        Ok(v3::nothing(&view, asker, since)?)
    }
}
