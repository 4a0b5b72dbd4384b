//! What every request goes through, from the outside in: cross-origin headers, a span with figures, the last resort
//! against panics, secrets hidden from logs, a time limit.

use std::any::Any;

use axum::{
    Router,
    extract::{MatchedPath, Request, State},
    http::{Method, StatusCode, header},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
};
use ruma::api::error::ErrorKind;
use tower_http::{
    catch_panic::CatchPanicLayer,
    cors::{Any as AnyOrigin, CorsLayer},
    sensitive_headers::SetSensitiveRequestHeadersLayer,
};
use tracing::Instrument;

use super::{App, handover, reply::ApiError};
use crate::{commands, log::AppendError, telemetry};

/// Requests that wait for news, or for a rebuild, as long as their client wants.
const LONG_POLLS: &[&str] = &["/sync", "/events", "/initialSync", "/rebuild"];

/// Adds the layers, and the answers to what has no route.
pub(super) fn wrap(routes: Router<App>, app: &App) -> Router<App> {
    routes
        .route_layer(from_fn_with_state(app.clone(), refuse_changes))
        .fallback(async || ApiError::new(ErrorKind::Unrecognized, "there is no such endpoint"))
        .method_not_allowed_fallback(async || {
            let status = StatusCode::METHOD_NOT_ALLOWED;
            ApiError::with_status(status, ErrorKind::Unrecognized, "the endpoint has no such method")
        })
        .layer(from_fn_with_state(app.clone(), handover::among_nodes))
        .layer(from_fn_with_state(app.clone(), limit_time))
        .layer(SetSensitiveRequestHeadersLayer::new([header::AUTHORIZATION]))
        .layer(CatchPanicLayer::custom(answer_panic))
        .layer(from_fn_with_state(app.clone(), observe))
        .layer(
            // Client-server API, "Web Browser Clients".
            CorsLayer::new()
                .allow_origin(AnyOrigin)
                .allow_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS])
                .allow_headers([
                    header::HeaderName::from_static("x-requested-with"),
                    header::CONTENT_TYPE,
                    header::AUTHORIZATION,
                ]),
        )
}

/// The hook in `telemetry` has logged where and why.
fn answer_panic(_: Box<dyn Any + Send>) -> Response {
    ApiError::new(ErrorKind::Unknown, "the server failed; its log says why").into_response()
}

/// Where history is shown, refuses at once what is to change something by its method. A POST may only ask: of those, the
/// log refuses what comes to it.
async fn refuse_changes(State(app): State<App>, request: Request, next: Next) -> Response {
    match app.read_only {
        Some(lsn) if matches!(*request.method(), Method::PUT | Method::DELETE) => {
            ApiError::from(commands::Error::from(AppendError::ReadOnly(lsn))).into_response()
        }
        _ => next.run(request).await,
    }
}

async fn limit_time(State(app): State<App>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    if LONG_POLLS.iter().any(|end| route.ends_with(end)) || is_waited_for(request.method(), route) {
        return next.run(request).await;
    }
    tokio::time::timeout(app.config.http.request_timeout, next.run(request)).await.unwrap_or_else(|_| {
        ApiError::unavailable("the request took too long; it may still take effect").into_response()
    })
}

/// Deleting a room, which takes as long as the room is large.
fn is_waited_for(method: &Method, route: &str) -> bool {
    method == Method::DELETE && route == "/_synapse/admin/v1/rooms/{room_id}"
}

async fn observe(State(app): State<App>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    let method = request.method().clone();
    let span = telemetry::request_span(&method, route);
    let start = app.clock.elapsed();
    let response = next.run(request).instrument(span.clone()).await;
    let (status, seconds) = (response.status(), (app.clock.elapsed() - start).as_secs_f64());
    span.in_scope(|| {
        if status.is_server_error() {
            tracing::warn!(target: "everfold::http", status = status.as_u16(), seconds, "answered");
        } else {
            tracing::debug!(target: "everfold::http", status = status.as_u16(), seconds, "answered");
        }
    });
    let labels = [known(&method), route, status.as_str()];
    app.metrics.http_requests_total.with_label_values(&labels).inc();
    app.metrics.http_request_seconds.with_label_values(&[route]).observe(seconds);
    response
}

/// A method may be any word, and each label costs memory.
fn known(method: &Method) -> &str {
    match *method {
        Method::GET | Method::HEAD | Method::POST | Method::PUT | Method::DELETE | Method::OPTIONS => method.as_str(),
        _ => "other",
    }
}
