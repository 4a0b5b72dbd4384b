//! JSON that clients give, on its way to the log.

use ruma::CanonicalJsonObject;
use schemas::Json;
use serde_json::{Map, Value};

use super::Refusal;

/// An object as it is recorded: without insignificant space, doubled keys, or numbers that can't be read again.
///
/// # Errors
/// `M_BAD_JSON` for what is no object.
pub fn object(text: &str) -> Result<Json, Refusal> {
    let object: Map<String, Value> =
        serde_json::from_str(text).map_err(|error| Refusal::bad_json(format!("this must be an object: {error}")))?;
    written(&object)
}

/// An object that can be signed, as canonical JSON (appendices, "Canonical JSON").
///
/// # Errors
/// `M_BAD_JSON` for what is no object, or has numbers in it that are not integers.
pub fn canonical(text: &str) -> Result<CanonicalJsonObject, Refusal> {
    serde_json::from_str(text).map_err(|error| Refusal::bad_json(format!("this must be canonical JSON: {error}")))
}

/// The text of a value.
///
/// # Errors
/// `M_BAD_JSON` for what can't be written as JSON.
pub fn written<T: serde::Serialize + ?Sized>(value: &T) -> Result<Json, Refusal> {
    Json::of(value).map_err(|error| Refusal::bad_json(error.to_string()))
}

/// Refuses a name (a type, a tag, a field) that is longer than the 255 bytes which the specification gives names.
///
/// # Errors
/// `M_INVALID_PARAM`.
pub fn check_name(what: &str, name: &str) -> Result<(), Refusal> {
    if name.is_empty() || name.len() > 255 {
        return Err(Refusal::invalid(format!("a {what} must have 1 to 255 bytes")));
    }
    Ok(())
}
