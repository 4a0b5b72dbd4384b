//! What a server does by itself.

use std::{sync::Arc, time::Duration};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{
    commands::{Commands, jobs::Executor},
    ephemeral::Ephemeral,
    http::App,
    sync::{Acknowledged, Notifier},
};

/// Begins what goes on the log by itself.
pub(super) fn appending(app: &App, stop: &CancellationToken) -> [JoinHandle<()>; 4] {
    let acknowledged = Arc::clone(&app.acknowledged);
    [
        tokio::spawn(acknowledge(acknowledged, app.commands.clone(), stop.clone())),
        tokio::spawn(follow(app.commands.clone(), stop.clone())),
        tokio::spawn(tell_who_was_seen(app.clone(), stop.clone())),
        tokio::spawn(Executor::new(app.commands.clone()).run(stop.clone())),
    ]
}

/// Ends typing and presence that nobody renews, and forgets who has not synced for long.
pub(super) async fn expire(ephemeral: Arc<Ephemeral>, notifier: Arc<Notifier>, stop: CancellationToken) {
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    while stop.run_until_cancelled(seconds.tick()).await.is_some() {
        ephemeral.expire();
        notifier.forget_idle();
    }
}

/// Lets rooms follow what an earlier run, a node that died, or a log that could not be written kept from them. Changes of
/// the last seconds are still in the hands of who made them.
async fn follow(commands: Commands, stop: CancellationToken) {
    let parts = Arc::clone(commands.parts());
    let mut ticks = tokio::time::interval(Duration::from_secs(3));
    let mut before = parts.progress.cursor().lsn;
    let due = async |ticks: &mut tokio::time::Interval| {
        tokio::select! {
            _ = ticks.tick() => {}
            () = parts.members.somebody_left() => {}
        }
    };
    while stop.run_until_cancelled(due(&mut ticks)).await.is_some() {
        let now = parts.progress.cursor().lsn;
        if let Some(Err(error)) = stop.run_until_cancelled(commands.let_all_rooms_follow(before)).await {
            tracing::warn!(%error, "some rooms have yet to follow a change of a profile or the end of an account");
        }
        before = now;
    }
}

/// Puts on the log what devices have got, once a minute and at the end.
async fn acknowledge(acknowledged: Arc<Acknowledged>, commands: Commands, stop: CancellationToken) {
    let mut minutes = tokio::time::interval(Duration::from_secs(60));
    loop {
        let goes_on = stop.run_until_cancelled(minutes.tick()).await.is_some();
        if let Err(error) = acknowledged.flush(&commands).await {
            tracing::warn!(%error, "what devices have got is not noted yet");
        }
        if !goes_on {
            return;
        }
    }
}

/// Puts on the log where devices were seen, once a minute and at the end.
async fn tell_who_was_seen(app: App, stop: CancellationToken) {
    let mut minutes = tokio::time::interval(Duration::from_secs(60));
    loop {
        let goes_on = stop.run_until_cancelled(minutes.tick()).await.is_some();
        if let Err(error) = app.seen.flush(&app.commands).await {
            tracing::warn!(%error, "where devices were seen is not noted yet");
        }
        if !goes_on {
            return;
        }
    }
}
