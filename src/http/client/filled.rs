//! Requests whose ruma type asks for more than the specification does.

use axum::http;
use ruma::api::{
    IncomingRequest, Metadata,
    client::{push::set_pushrule, typing::create_typing_event},
    error::DeserializationError,
};
use serde_json::{Map, Value, json};

/// What stands for members of a request's body that are not there.
pub trait Defaults: IncomingRequest {
    /// The members.
    fn defaults() -> Vec<(&'static str, Value)>;
}

impl Defaults for create_typing_event::v3::Request {
    fn defaults() -> Vec<(&'static str, Value)> {
        vec![("timeout", json!(30_000))]
    }
}

impl Defaults for set_pushrule::v3::Request {
    fn defaults() -> Vec<(&'static str, Value)> {
        vec![("conditions", json!([]))]
    }
}

/// A request whose body was filled with defaults before ruma read it.
pub struct Filled<R>(pub R);

impl<R: Metadata> Metadata for Filled<R> {
    const METHOD: http::Method = R::METHOD;
    const RATE_LIMITED: bool = R::RATE_LIMITED;
    type Authentication = R::Authentication;
    type PathBuilder = R::PathBuilder;
    const PATH_BUILDER: R::PathBuilder = R::PATH_BUILDER;
}

impl<R: Defaults> IncomingRequest for Filled<R> {
    type EndpointError = R::EndpointError;
    type OutgoingResponse = R::OutgoingResponse;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        path_args: &[&str],
    ) -> Result<Self, DeserializationError> {
        let mut body: Map<String, Value> = serde_json::from_slice(request.body())?;
        for (name, value) in R::defaults() {
            body.entry(name).or_insert(value);
        }
        let body = serde_json::to_vec(&body)?;
        R::try_from_http_request_inner(request.map(|_| &body[..]), path_args).map(Self)
    }
}
