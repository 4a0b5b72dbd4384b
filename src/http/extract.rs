//! A request of a ruma type out of an HTTP request, and the routes of such a type.

use std::{error::Error, net::IpAddr};

use axum::{
    Router,
    body::Body,
    extract::{FromRequest, FromRequestParts, MatchedPath, RawPathParams, Request, State},
    http::{self, HeaderMap, StatusCode, header, request::Parts},
    routing::{MethodFilter, on},
};
use bytes::Bytes;
use http_body_util::LengthLimitError;
use ruma::{
    TransactionId,
    api::{
        IncomingRequest, IncomingRequestExt, Metadata,
        auth_scheme::AuthScheme,
        error::{DeserializationError, ErrorKind, FromHttpRequestError, HeaderDeserializationError},
        path_builder::PathBuilder,
    },
};
use schemas::RecordId;
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use super::{
    App,
    auth::{self, Caller, Identify, Session},
    reply::{ApiError, respond},
};
use crate::commands;

/// JSON of requests may nest so deep. serde_json gives up at 128, and what is wrapped into events and replies nests
/// deeper than what came.
const MAX_NESTING: usize = 100;

/// A parsed request and its sender.
pub struct Matrix<R>
where
    R: IncomingRequest,
    R::Authentication: Identify,
{
    /// What is asked.
    pub body: R,
    /// Who asks.
    pub who: <R::Authentication as Identify>::Who,
    /// How it came.
    pub received: Received,
}

/// A request as it came.
pub struct Received {
    /// From where.
    pub address: IpAddr,
    /// Path and query.
    pub uri: http::Uri,
    /// The parameters of the path, decoded, in its order. ruma's event types have aliases: where the letter counts, it
    /// is here.
    pub args: Vec<String>,
    /// The body.
    pub raw: Bytes,
}

impl Received {
    /// A parameter of the query as it came, for what ruma's types leave out of it.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<String> {
        let parameters = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&self.uri).ok()?;
        parameters.0.into_iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }
}

impl<R> Matrix<R>
where
    R: IncomingRequest,
    R::Authentication: Identify<Who = Session>,
{
    /// The request with this transaction id: repeated, it has no second effect, by whichever version of the endpoint.
    #[must_use]
    pub fn once(&self, txn: &TransactionId) -> commands::Request {
        let sender = &self.who.sender;
        let (user, device) = (sender.user.as_str(), sender.administrator().unwrap_or(sender.device.as_str()));
        let path = self.received.uri.path();
        let versioned = path.strip_prefix("/_matrix/client/").and_then(|rest| rest.split_once('/'));
        let path = versioned.map_or(path, |(_, path)| path);
        let id = RecordId::of_request(user, device, R::METHOD.as_str(), path, txn.as_str());
        commands::Request { id: Some(id), ..(&self.who.sender).into() }
    }
}

impl<R> FromRequest<App> for Matrix<R>
where
    R: IncomingRequest,
    R::Authentication: Identify,
{
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let (mut parts, body) = request.into_parts();
        // Decoded, and in the order of the path, as ruma wants its arguments.
        let params = RawPathParams::from_request_parts(&mut parts, app)
            .await
            .map_err(|error| ApiError::invalid(format!("the path is malformed: {error}")))?;
        let address = auth::address(app, &parts);
        let route = parts.extensions.get::<MatchedPath>().cloned();
        let head = http::Request::from_parts(parts, ());
        // The sender comes before the body: nobody else makes the server read much.
        let token = R::Authentication::extract_authentication(&head).map_err(|error| {
            let error: Box<dyn Error + Send + Sync> = error.into();
            auth::missing_token(error.to_string())
        })?;
        let caller = Caller::new(address, head.headers());
        let who = R::Authentication::identify(app, token, route.as_ref().map_or("", MatchedPath::as_str), caller)?;
        let limit = body_limit(app, head.uri().path());
        let raw = read_body(body, head.headers(), limit).await?;
        check_nesting(&raw)?;
        let args: Vec<&str> = params.iter().map(|(_, value)| value).collect();
        let (parts, ()) = head.into_parts();
        let uri = parts.uri.clone();
        // Clients leave out the body of a POST where every field is optional.
        let json = if raw.is_empty() && parts.method == http::Method::POST { b"{}" } else { &raw[..] };
        let request = http::Request::from_parts(parts, json);
        let body = R::try_from_http_request(request, &args).map_err(|error| refuse(&error))?;
        let args = args.into_iter().map(str::to_owned).collect();
        Ok(Self { body, who, received: Received { address, uri, args, raw } })
    }
}

/// How many bytes a body on a path may have.
#[must_use]
pub fn body_limit(app: &App, path: &str) -> usize {
    if path.starts_with("/_matrix/federation/") {
        app.config.http.federation_body_bytes
    } else {
        app.config.http.body_bytes
    }
}

/// Reads a body of at most `limit` bytes.
///
/// # Errors
/// 413 for a larger one, 400 for one that breaks off.
pub async fn read_body(body: Body, headers: &HeaderMap, limit: usize) -> Result<Bytes, ApiError> {
    let too_large =
        || ApiError::new(ErrorKind::TooLarge, format!("the body is larger than {limit} bytes, the most that is taken"));
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limit as u64) {
        return Err(too_large());
    }
    axum::body::to_bytes(body, limit).await.map_err(|error| {
        if error.source().is_some_and(<dyn Error>::is::<LengthLimitError>) {
            too_large()
        } else {
            ApiError::with_status(StatusCode::BAD_REQUEST, ErrorKind::Unknown, "the body broke off")
        }
    })
}

/// Refuses JSON that nests deeper than [`MAX_NESTING`].
///
/// # Errors
/// 400 `M_BAD_JSON`.
pub fn check_nesting(json: &[u8]) -> Result<(), ApiError> {
    if json.len() <= MAX_NESTING {
        return Ok(());
    }
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            _ if in_text => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_NESTING {
            return Err(ApiError::new(ErrorKind::BadJson, format!("the JSON nests deeper than {MAX_NESTING}")));
        }
    }
    Ok(())
}

/// The error for what is not a request of its type.
fn refuse(error: &FromHttpRequestError) -> ApiError {
    let FromHttpRequestError::Deserialization(error) = error else {
        return ApiError::with_status(StatusCode::METHOD_NOT_ALLOWED, ErrorKind::Unrecognized, error.to_string());
    };
    let kind = match error {
        DeserializationError::Json(error) => return refuse_json(error),
        DeserializationError::Header(HeaderDeserializationError::MissingHeader(_)) => ErrorKind::MissingParam,
        _ if error.to_string().starts_with(MISSING) => ErrorKind::MissingParam,
        _ => ErrorKind::InvalidParam,
    };
    ApiError::new(kind, error.to_string())
}

/// How serde begins to say that something is missing.
const MISSING: &str = "missing field";

fn refuse_json(error: &serde_json::Error) -> ApiError {
    let kind = match error.classify() {
        Category::Syntax | Category::Eof | Category::Io => ErrorKind::NotJson,
        Category::Data if error.to_string().starts_with(MISSING) => ErrorKind::MissingParam,
        Category::Data => ErrorKind::BadJson,
    };
    ApiError::new(kind, error.to_string())
}

/// A JSON body of a type that is not ruma's.
pub struct Json<T>(pub T);

impl<T: DeserializeOwned> FromRequest<App> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let raw = read_body(body, &parts.headers, body_limit(app, parts.uri.path())).await?;
        check_nesting(&raw)?;
        // As ruma has it: nothing is an empty object.
        let json = if raw.is_empty() { b"{}" } else { &raw[..] };
        serde_json::from_slice(json).map(Self).map_err(|error| refuse_json(&error))
    }
}

/// The parameters of a path that is not ruma's.
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<App> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let path = axum::extract::Path::from_request_parts(parts, app).await;
        path.map(|path| Self(path.0)).map_err(|error| ApiError::invalid(error.body_text()))
    }
}

/// The query of a request that is not ruma's.
pub struct Query<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<App> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let query = axum::extract::Query::from_request_parts(parts, app).await;
        query.map(|query| Self(query.0)).map_err(|error| ApiError::invalid(error.body_text()))
    }
}

/// Routes of ruma's request types.
pub trait Routes: Sized {
    /// Serves a handler on every path that ruma knows for its request: r0, v3, v1, unstable.
    #[must_use]
    fn matrix<R, F, Fut>(self, handler: F) -> Self
    where
        R: IncomingRequest + Send + 'static,
        R::Authentication: Identify,
        R::OutgoingResponse: 'static,
        F: Fn(App, Matrix<R>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<R::OutgoingResponse, ApiError>> + Send + 'static;

    /// Serves a handler on one more path, whose parameters must be those of ruma's paths.
    #[must_use]
    fn matrix_at<R, F, Fut>(self, path: &str, handler: F) -> Self
    where
        R: IncomingRequest + Send + 'static,
        R::Authentication: Identify,
        R::OutgoingResponse: 'static,
        F: Fn(App, Matrix<R>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<R::OutgoingResponse, ApiError>> + Send + 'static;
}

impl Routes for Router<App> {
    fn matrix<R, F, Fut>(self, handler: F) -> Self
    where
        R: IncomingRequest + Send + 'static,
        R::Authentication: Identify,
        R::OutgoingResponse: 'static,
        F: Fn(App, Matrix<R>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<R::OutgoingResponse, ApiError>> + Send + 'static,
    {
        <R as Metadata>::PATH_BUILDER.all_paths().fold(self, |router, path| router.matrix_at(path, handler.clone()))
    }

    #[expect(clippy::expect_used, reason = "no request type of ruma has a method that axum can't route")]
    fn matrix_at<R, F, Fut>(self, path: &str, handler: F) -> Self
    where
        R: IncomingRequest + Send + 'static,
        R::Authentication: Identify,
        R::OutgoingResponse: 'static,
        F: Fn(App, Matrix<R>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<R::OutgoingResponse, ApiError>> + Send + 'static,
    {
        let method = MethodFilter::try_from(R::METHOD).expect("a method that axum knows");
        let serve = move |State(app): State<App>, request: Matrix<R>| {
            let reply = handler(app, request);
            async move { reply.await.map(respond) }
        };
        self.route(path, on(method, serve))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nesting_is_bounded_outside_of_texts() {
        let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        assert!(check_nesting(nested(MAX_NESTING).as_bytes()).is_ok());
        assert!(check_nesting(nested(MAX_NESTING + 1).as_bytes()).is_err());
        assert!(check_nesting(format!("[\"\\\"{}\"]", "[".repeat(500)).as_bytes()).is_ok());
        assert!(check_nesting(&[b'['; 500]).is_err());
        assert!(check_nesting("[]".repeat(500).as_bytes()).is_ok());
    }
}
