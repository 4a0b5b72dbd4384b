//! The face to the world: a request is parsed by its ruma type, its sender found, one thing called, and the reply
//! written. A handler calls `commands` or reads one `View`.
//!
//! | File | What |
//! |---|---|
//! | `extract` | a request of a ruma type out of an HTTP request, and the routes of such a type |
//! | `auth` | who sends it |
//! | `reply` | every error: its status, code and message |
//! | `uia`, `passwords` | user-interactive authentication |
//! | `limit` | how often |
//! | `seen` | when and from where devices show up |
//! | `layers`, `listen` | what all requests go through |
//! | `handover` | what several nodes owe a client: the room's home decides, and who refuses has caught up |
//! | `client` | the client-server API, a file a chapter |
//! | `admin` | what administrators do, with Synapse's paths and shapes |
//! | `health` | live, ready, metrics |

mod admin;
pub mod auth;
mod client;
pub mod extract;
mod handover;
pub mod health;
mod kept;
mod layers;
pub mod limit;
pub mod listen;
pub mod passwords;
pub mod reply;
pub mod seen;
pub mod tokens;
pub mod uia;

pub use self::{admin::register::SharedSecret, handover::Between};

use std::{ops::Deref, sync::Arc};

use axum::Router;
use projections::{Source, StoreError, View};
use schemas::{Lsn, facts::RateLimit};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::{Clock, Random},
    commands::Commands,
    config::Config,
    ephemeral::Ephemeral,
    fold::{Progress, Rebuilds},
    log::LogReader,
    metrics::Metrics,
    nodes::{Channel, Members},
    snapshot::Snapshots,
    sync::{Acknowledged, Syncs},
};

/// What handlers are made of.
pub struct Parts {
    /// The settings.
    pub config: Config,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
    /// Figures about the process.
    pub metrics: Arc<Metrics>,
    /// The log's reading half: only `commands` appends.
    pub reader: Arc<dyn LogReader>,
    /// Where views come from.
    pub source: Arc<dyn Source>,
    /// How far the fold has come.
    pub progress: Arc<Progress>,
    /// What is shown is history up to here, and can't be changed.
    pub read_only: Option<Lsn>,
    /// The way to fold models anew.
    pub rebuilds: Rebuilds,
    /// The way to make snapshots.
    pub snapshots: Snapshots,
    /// The only way to write.
    pub commands: Commands,
    /// Which nodes live.
    pub members: Arc<Members>,
    /// What nodes tell each other.
    pub channel: Arc<dyn Channel>,
    /// Typing and presence.
    pub ephemeral: Arc<Ephemeral>,
    /// Answers syncs.
    pub syncs: Syncs,
    /// What devices have got of the messages to them.
    pub acknowledged: Arc<Acknowledged>,
    /// When devices were last seen.
    pub seen: seen::Seen,
    /// How often something may be done.
    pub limits: limit::Limits,
    /// User-interactive authentications under way.
    pub interactions: uia::Interactions,
    /// Hashes and checks passwords.
    pub passwords: passwords::Passwords,
    /// What goes from one node to another.
    pub between: Between,
    /// Registration by the shared secret.
    pub shared_secret: SharedSecret,
    /// Is cancelled when the server stops: what waits for news then answers at once.
    pub stop: CancellationToken,
}

/// What every handler gets; a cheap clone.
#[derive(Clone)]
pub struct App(Arc<Parts>);

impl App {
    /// Wraps the parts.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// One consistent state of the read models. All that a reply says comes from one.
    ///
    /// # Errors
    /// When the store fails.
    pub fn view(&self) -> Result<View, StoreError> {
        self.source.view()
    }

    /// Takes one from a user's share of something. Administrators are exempt, and whom they exempt; for others they may have
    /// set how often they may send.
    ///
    /// # Errors
    /// 429 when there is nothing left.
    pub fn throttle(&self, limit: limit::Limit, session: &auth::Session) -> Result<(), limit::Limited> {
        match session.rate_limit {
            _ if session.admin => Ok(()),
            Some(RateLimit { per_second: 0, .. }) => Ok(()),
            Some(own) if limit == limit::Limit::Message => self.limits.take_at(limit, own, &session.user),
            _ => self.limits.take(limit, &session.user),
        }
    }
}

impl Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// Everything that is served, with all layers.
pub fn router(app: App) -> Router {
    let routes = Router::new().merge(client::routes()).merge(admin::routes()).merge(health::routes());
    layers::wrap(routes, &app).with_state(app)
}
