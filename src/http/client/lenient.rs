//! Requests that ruma reads more strictly than the specification.

use axum::http;
use ruma::api::{
    IncomingRequest, Metadata,
    client::{
        account::{change_password, deactivate},
        device::{delete_device, delete_devices},
        keys::upload_signing_keys,
        profile::set_profile_field,
        push::set_pushrule,
        session::get_login_token,
        typing::create_typing_event,
    },
    error::DeserializationError,
};
use serde::de::Error as _;
use serde_json::{Error, Map, Value, json};

/// A request whose body is put into shape before ruma reads it.
pub trait Shape: IncomingRequest {
    /// Shapes the body.
    ///
    /// # Errors
    /// For what the specification does not allow either.
    fn shape(body: &mut Map<String, Value>, path_args: &[&str]) -> Result<(), Error>;
}

impl Shape for create_typing_event::v3::Request {
    fn shape(body: &mut Map<String, Value>, _: &[&str]) -> Result<(), Error> {
        body.entry("timeout").or_insert_with(|| json!(30_000));
        Ok(())
    }
}

impl Shape for set_pushrule::v3::Request {
    fn shape(body: &mut Map<String, Value>, _: &[&str]) -> Result<(), Error> {
        body.entry("conditions").or_insert_with(|| json!([]));
        Ok(())
    }
}

impl Shape for set_profile_field::v3::Request {
    /// The field that the path names is the one that counts; ruma stops at any other.
    fn shape(body: &mut Map<String, Value>, path_args: &[&str]) -> Result<(), Error> {
        let field = path_args.get(1).copied().unwrap_or_default();
        let value = body.remove(field).ok_or_else(|| Error::custom(format!("missing field `{field}`")))?;
        *body = Map::from_iter([(field.to_owned(), value)]);
        Ok(())
    }
}

/// Requests for which somebody authenticates anew.
macro_rules! authenticated {
    ($($request:ty),* $(,)?) => {
        $(impl Shape for $request {
            fn shape(body: &mut Map<String, Value>, _: &[&str]) -> Result<(), Error> {
                identify(body);
                Ok(())
            }
        })*
    };
}

authenticated! {
    change_password::v3::Request,
    deactivate::v3::Request,
    delete_device::v3::Request,
    delete_devices::v3::Request,
    get_login_token::v1::Request,
    upload_signing_keys::v3::Request,
}

/// A password whose user is not named is that of the access token's user, which an empty name stands for; older
/// clients name the user beside the identifier.
fn identify(body: &mut Map<String, Value>) {
    let Some(auth) = body.get_mut("auth").and_then(Value::as_object_mut) else { return };
    if auth.get("type").is_some_and(|stage| stage == "m.login.password") && !auth.contains_key("identifier") {
        let user = auth.get("user").cloned().unwrap_or_else(|| json!(""));
        auth.insert("identifier".to_owned(), json!({ "type": "m.id.user", "user": user }));
    }
}

/// A request of which ruma read the shaped body.
pub struct Lenient<R>(pub R);

impl<R: Metadata> Metadata for Lenient<R> {
    const METHOD: http::Method = R::METHOD;
    const RATE_LIMITED: bool = R::RATE_LIMITED;
    type Authentication = R::Authentication;
    type PathBuilder = R::PathBuilder;
    const PATH_BUILDER: R::PathBuilder = R::PATH_BUILDER;
}

impl<R: Shape> IncomingRequest for Lenient<R> {
    type EndpointError = R::EndpointError;
    type OutgoingResponse = R::OutgoingResponse;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        path_args: &[&str],
    ) -> Result<Self, DeserializationError> {
        // What may be left out altogether has nothing to be shaped.
        if request.body().is_empty() {
            return R::try_from_http_request_inner(request, path_args).map(Self);
        }
        let mut body = serde_json::from_slice(request.body())?;
        R::shape(&mut body, path_args)?;
        let body = serde_json::to_vec(&body)?;
        R::try_from_http_request_inner(request.map(|_| &body[..]), path_args).map(Self)
    }
}
