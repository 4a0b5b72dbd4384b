//! Replies: a ruma response as HTTP, and every error with its status, code and message.

use std::{error::Error, time::Duration};

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::BytesMut;
use projections::StoreError;
use ruma::{
    api::{
        OutgoingResponse, OutgoingResponseExt,
        client::uiaa::{UiaaInfo, UiaaResponse},
        error::{
            Error as MatrixError, ErrorBody, ErrorKind, LimitExceededErrorData, RetryAfter, StandardErrorBody,
            UnknownTokenErrorData,
        },
    },
    serde::Raw,
};

use schemas::Json;

use super::limit::Limited;
use crate::commands;

/// How long a client should wait when the server can't answer now.
const COME_BACK: Duration = Duration::from_secs(2);

/// A reply that is an error.
#[derive(Debug)]
pub struct ApiError {
    body: Contents,
    retry_after: Option<Duration>,
}

#[derive(Debug)]
enum Contents {
    Matrix(MatrixError),
    Interactive(Box<UiaaInfo>),
}

impl ApiError {
    /// An error with the status that its code usually has.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self::with_status(status_of(&kind), kind, message)
    }

    /// An error with a status of its own, where the specification wants another than usual.
    #[must_use]
    pub fn with_status(status: StatusCode, kind: ErrorKind, message: impl Into<String>) -> Self {
        let retry_after = match &kind {
            ErrorKind::LimitExceeded(LimitExceededErrorData {
                retry_after: Some(RetryAfter::Delay(delay)), ..
            }) => Some(*delay),
            _ => None,
        };
        let body = ErrorBody::Standard(StandardErrorBody::new(kind, message.into()));
        Self { body: Contents::Matrix(MatrixError::new(status, body)), retry_after }
    }

    /// 403 `M_FORBIDDEN`.
    #[must_use]
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Forbidden, message)
    }

    /// 404 `M_NOT_FOUND`.
    #[must_use]
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// 400 `M_INVALID_PARAM`.
    #[must_use]
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidParam, message)
    }

    /// 401 `M_UNKNOWN_TOKEN`. After a soft logout, the client may log in again and keep its device.
    #[must_use]
    pub fn unknown_token(soft_logout: bool, message: impl Into<String>) -> Self {
        let mut data = UnknownTokenErrorData::new();
        data.soft_logout = soft_logout;
        Self::new(ErrorKind::UnknownToken(data), message)
    }

    /// 401 `M_USER_LOCKED`: the client keeps its session until the account is unlocked.
    #[must_use]
    pub fn locked() -> Self {
        let body = serde_json::json!({
            "errcode": "M_USER_LOCKED",
            "error": "this account is locked; ask an administrator of the server",
            "soft_logout": true,
        });
        let error = MatrixError::new(StatusCode::UNAUTHORIZED, ErrorBody::Json(body));
        Self { body: Contents::Matrix(error), retry_after: None }
    }

    /// 401 with the flows of a user-interactive authentication that is not complete.
    #[must_use]
    pub fn interactive(info: UiaaInfo) -> Self {
        Self { body: Contents::Interactive(Box::new(info)), retry_after: None }
    }

    /// 503: nothing is wrong with the request, and it may be made again.
    #[must_use]
    pub fn unavailable(message: impl Into<String>) -> Self {
        let mut error = Self::with_status(StatusCode::SERVICE_UNAVAILABLE, ErrorKind::Unknown, message);
        error.retry_after = Some(COME_BACK);
        error
    }

    /// 500 for a fault of the server's own. The fault is logged here, and nowhere else; the reply doesn't tell it.
    #[must_use]
    pub fn internal(fault: &(impl Error + ?Sized)) -> Self {
        let chain: Vec<String> =
            std::iter::successors(fault.source(), |e| (*e).source()).map(ToString::to_string).collect();
        tracing::error!(fault = %fault, ?chain, "a request failed by a fault of the server");
        Self::new(ErrorKind::Unknown, "the server failed; its log says why")
    }

    /// The status.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        match &self.body {
            Contents::Matrix(error) => error.status_code,
            Contents::Interactive(_) => StatusCode::UNAUTHORIZED,
        }
    }
}

/// The status that an error code usually has: the one place that says so.
#[must_use]
pub fn status_of(kind: &ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::MissingToken | ErrorKind::UnknownToken(_) | ErrorKind::UserLocked | ErrorKind::Unauthorized => {
            StatusCode::UNAUTHORIZED
        }
        ErrorKind::Forbidden
        | ErrorKind::GuestAccessForbidden
        | ErrorKind::UserDeactivated
        | ErrorKind::UserSuspended
        | ErrorKind::InviteBlocked
        | ErrorKind::CannotLeaveServerNoticeRoom
        | ErrorKind::ThreepidDenied
        | ErrorKind::ResourceLimitExceeded(_)
        | ErrorKind::UserLimitExceeded(_)
        | ErrorKind::WrongRoomKeysVersion(_) => StatusCode::FORBIDDEN,
        ErrorKind::NotFound | ErrorKind::Unrecognized => StatusCode::NOT_FOUND,
        ErrorKind::CannotOverwriteMedia => StatusCode::CONFLICT,
        ErrorKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorKind::LimitExceeded(_) => StatusCode::TOO_MANY_REQUESTS,
        ErrorKind::Unknown => StatusCode::INTERNAL_SERVER_ERROR,
        ErrorKind::BadStatus(_) | ErrorKind::ConnectionFailed => StatusCode::BAD_GATEWAY,
        ErrorKind::ConnectionTimeout | ErrorKind::NotYetUploaded => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::BAD_REQUEST,
    }
}

/// On a reply that refuses by what is there: where more has been folded, the answer may be another.
#[derive(Clone, Copy, Debug)]
pub struct Refused;

impl ApiError {
    /// Whether it rests on what the read models say, and not on the request alone.
    fn rests_on_what_is_there(&self) -> bool {
        let Contents::Matrix(MatrixError { status_code, body: ErrorBody::Standard(error), .. }) = &self.body else {
            return false;
        };
        let of_the_request = matches!(
            error.kind,
            ErrorKind::NotJson
                | ErrorKind::BadJson
                | ErrorKind::MissingParam
                | ErrorKind::MissingToken
                | ErrorKind::Unrecognized
                | ErrorKind::WeakPassword
                | ErrorKind::InvalidUsername
        );
        matches!(status_code.as_u16(), 400 | 401 | 403 | 404 | 409) && !of_the_request
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let refused = self.rests_on_what_is_there().then_some(Refused);
        let mut response = match self.body {
            Contents::Matrix(error) => respond(error),
            Contents::Interactive(info) => respond(UiaaResponse::AuthResponse(*info)),
        };
        if let Some(delay) = self.retry_after {
            // Rounded up: whoever waits that long gets through.
            let seconds = delay.as_millis().div_ceil(1000).max(1);
            let value = HeaderValue::from(u64::try_from(seconds).unwrap_or(u64::MAX));
            response.headers_mut().insert(header::RETRY_AFTER, value);
        }
        if let Some(refused) = refused {
            response.extensions_mut().insert(refused);
        }
        response
    }
}

/// A ruma response as HTTP.
pub fn respond<T: OutgoingResponse>(reply: T) -> Response {
    match reply.try_into_http_response::<BytesMut>() {
        Ok(response) => response.map(|body| Body::from(body.freeze())),
        Err(error) => {
            tracing::error!(%error, "a reply could not be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// Recorded JSON as part of a reply, as it is.
///
/// # Errors
/// 500 for what is no JSON, which is never recorded.
pub fn raw<T>(json: Json) -> Result<Raw<T>, ApiError> {
    let text = String::from_utf8(json.0).map_err(|error| ApiError::internal(&error))?;
    Raw::from_json_string(text).map_err(|error| ApiError::internal(&error))
}

impl From<commands::Refusal> for ApiError {
    fn from(refusal: commands::Refusal) -> Self {
        match refusal.kind {
            ErrorKind::UserLocked => Self::locked(),
            // Else this code is for faults of the server; what is refused is the request's.
            kind @ ErrorKind::Unknown => Self::with_status(StatusCode::BAD_REQUEST, kind, refusal.message),
            kind => Self::new(kind, refusal.message),
        }
    }
}

impl From<commands::Error> for ApiError {
    fn from(error: commands::Error) -> Self {
        match error {
            commands::Error::Refused(refusal) => refusal.into(),
            commands::Error::Unavailable(why) => Self::unavailable(why),
            // That node's answer takes the place of this one.
            elsewhere @ commands::Error::Elsewhere => Self::unavailable(elsewhere.to_string()),
            fault => Self::internal(&fault),
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::internal(&error)
    }
}

impl From<Limited> for ApiError {
    fn from(limited: Limited) -> Self {
        let mut data = LimitExceededErrorData::new();
        data.retry_after = Some(RetryAfter::Delay(limited.wait));
        Self::new(ErrorKind::LimitExceeded(data), limited.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_rounded_up() {
        let limited = Limited { limit: "login", wait: Duration::from_millis(1_001) };
        let response = ApiError::from(limited).into_response();
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers()[header::RETRY_AFTER], "2");
        let response = ApiError::unavailable("later").into_response();
        assert_eq!(
            (response.status().as_u16(), &response.headers()[header::RETRY_AFTER]),
            (503, &HeaderValue::from(2))
        );
    }

    #[test]
    fn faults_are_not_told() {
        let error = ApiError::from(StoreError::NoFamily("secret".into()));
        assert_eq!(error.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert!(!format!("{error:?}").contains("secret"));
    }
}
