//! The read models.
//!
//! `GET /_everfold/admin/v1/projections`, `POST /_everfold/admin/v1/projections/{name}/rebuild`

use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    routing::{get, post},
};
use projections::{Cursor, Generations, Model};
use ruma::api::error::ErrorKind;
use schemas::Lsn;
use serde::Serialize;

use super::Admin;
use crate::{
    fold::RebuildError,
    http::{App, extract::Path, reply::ApiError},
};

pub fn routes() -> Router<App> {
    Router::new()
        .route("/_everfold/admin/v1/projections", get(list))
        .route("/_everfold/admin/v1/projections/{name}/rebuild", post(rebuild))
}

#[derive(Serialize)]
struct Shown {
    name: String,
    version: u16,
    generation: u32,
}

#[derive(Serialize)]
struct List {
    /// The last record that is folded, and log time there.
    lsn: Lsn,
    log_time: u64,
    /// How far a rebuild that is under way has come.
    #[serde(skip_serializing_if = "Option::is_none")]
    rebuilding: Option<Lsn>,
    projections: Vec<Shown>,
}

impl List {
    fn new(app: &App, cursor: &Cursor, generations: &Generations) -> Self {
        let shown =
            |g: &projections::Generation| Shown { name: g.model.clone(), version: g.version, generation: g.generation };
        let projections = generations.iter().map(shown).collect();
        Self { lsn: cursor.lsn, log_time: cursor.log_time.ms, rebuilding: app.rebuilds.at(), projections }
    }
}

async fn list(State(app): State<App>, _: Admin) -> Result<Json<List>, ApiError> {
    let view = app.view()?;
    Ok(Json(List::new(&app, view.cursor(), view.generations())))
}

/// Folds a read model, and those that it reads, anew; answers once the new tables are in use, with the state of all.
async fn rebuild(State(app): State<App>, _: Admin, Path(name): Path<String>) -> Result<Json<List>, ApiError> {
    let model = Model::named(&name).ok_or_else(|| ApiError::not_found(format!("there is no read model {name}")))?;
    tracing::info!(model = name, "folding a read model anew");
    let cursor = app.rebuilds.run(vec![model]).await?;
    tracing::info!(model = name, at = %cursor.lsn, "the read model is folded anew");
    Ok(Json(List::new(&app, &cursor, app.view()?.generations())))
}

impl From<RebuildError> for ApiError {
    fn from(error: RebuildError) -> Self {
        match error {
            RebuildError::Busy => Self::with_status(StatusCode::CONFLICT, ErrorKind::Unknown, error.to_string()),
            RebuildError::Stopped => Self::unavailable(error.to_string()),
            RebuildError::Failed(_) | RebuildError::Elsewhere(_) => Self::internal(&error),
        }
    }
}
