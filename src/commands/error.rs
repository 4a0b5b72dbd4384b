use ruma::api::error::ErrorKind;

/// An expected "no": the request is understood and refused. Never logged above debug.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// The error code; the HTTP layer derives the status from it.
    pub kind: ErrorKind,
    /// What helps whoever asked.
    pub message: String,
}

impl Refusal {
    /// A refusal with an error code.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// `M_FORBIDDEN`.
    #[must_use]
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Forbidden, message)
    }

    /// `M_NOT_FOUND`.
    #[must_use]
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// `M_INVALID_PARAM`.
    #[must_use]
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidParam, message)
    }

    /// `M_BAD_JSON`.
    #[must_use]
    pub fn bad_json(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::BadJson, message)
    }

    /// A code of the specification for which ruma has no name.
    #[must_use]
    pub fn coded(code: &str, message: impl Into<String>) -> Self {
        let kind = serde_json::from_value(serde_json::json!({ "errcode": code }));
        Self::new(kind.unwrap_or(ErrorKind::InvalidParam), message)
    }

    /// `M_INVALID_SIGNATURE`.
    #[must_use]
    pub fn invalid_signature(message: impl Into<String>) -> Self {
        Self::coded("M_INVALID_SIGNATURE", message)
    }

    /// `M_TOO_LARGE`.
    #[must_use]
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::TooLarge, message)
    }
}

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It was refused.
    #[error("{}", .0.message)]
    Refused(Refusal),
    /// It can't be done now, and may be tried again. Nothing has changed; or, where it says so, that is not known yet.
    #[error("{0}")]
    Unavailable(String),
    /// It was carried out on another node, which has answered it.
    #[error("another node has answered")]
    Elsewhere,
    /// The read models can't be read.
    #[error(transparent)]
    Store(#[from] projections::StoreError),
    /// A fault of the server's own.
    #[error("{0}")]
    Internal(String),
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}
