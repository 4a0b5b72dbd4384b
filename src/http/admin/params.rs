//! The parameters of administrators' requests. What is wrong with one is refused with the status, code and message of
//! Synapse, which its tools show to people: the one place that words them.

use std::convert::Infallible;

use axum::{
    extract::{FromRequest, FromRequestParts, Query, Request},
    http::{StatusCode, request::Parts},
};
use ruma::api::{Direction, error::ErrorKind};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use crate::http::{
    App,
    extract::{body_limit, check_nesting, read_body},
    reply::ApiError,
};

/// The query. Of a parameter that comes twice, the first counts.
pub struct Params(Vec<(String, String)>);

impl FromRequestParts<App> for Params {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Infallible> {
        // Pairs of texts can be read from any query.
        Ok(Self(Query::try_from_uri(&parts.uri).map(|query| query.0).unwrap_or_default()))
    }
}

impl Params {
    /// A text as it came.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| &**value)
    }

    /// All texts of a parameter that may come several times.
    pub fn texts(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| &**value)
    }

    /// A text that must be there, though it may be empty.
    ///
    /// # Errors
    /// 400 `M_MISSING_PARAM`.
    pub fn required_text(&self, name: &str) -> Result<&str, ApiError> {
        self.text(name).ok_or_else(|| missing(format!("Missing string query parameter {name}")))
    }

    /// An integer from zero on. What is larger than can be meant counts as the largest.
    ///
    /// # Errors
    /// 400 `M_INVALID_PARAM` for what is none.
    pub fn integer(&self, name: &str) -> Result<Option<u64>, ApiError> {
        let Some(text) = self.text(name).map(str::trim) else { return Ok(None) };
        let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(ApiError::invalid(format!("Query parameter {name} must be an integer")));
        }
        let size = digits.parse().unwrap_or(u64::MAX);
        if text.starts_with('-') && size > 0 {
            return Err(ApiError::invalid(format!("Query parameter {name} must be a positive integer.")));
        }
        Ok(Some(size))
    }

    /// An integer that must be there.
    ///
    /// # Errors
    /// 400 `M_MISSING_PARAM`, or `M_INVALID_PARAM` for what is none.
    pub fn required_integer(&self, name: &str) -> Result<u64, ApiError> {
        let missing = || missing(format!("Missing required integer query parameter {name}"));
        self.integer(name)?.ok_or_else(missing)
    }

    /// A number of things, if there is one: an integer, as far as this machine counts.
    ///
    /// # Errors
    /// 400 `M_INVALID_PARAM` for what is none.
    pub fn count(&self, name: &str) -> Result<Option<usize>, ApiError> {
        Ok(self.integer(name)?.map(|count| usize::try_from(count).unwrap_or(usize::MAX)))
    }

    /// `true` or `false`.
    ///
    /// # Errors
    /// 400 `M_INVALID_PARAM` for anything else.
    pub fn boolean(&self, name: &str) -> Result<Option<bool>, ApiError> {
        match self.text(name) {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(_) => {
                let message = format!("Boolean query parameter {} must be one of ['true', 'false']", quoted(name));
                Err(ApiError::invalid(message))
            }
        }
    }

    /// One of some words, and what it stands for.
    ///
    /// # Errors
    /// 400 `M_INVALID_PARAM` for any other, which names them in the order given.
    pub fn one_of<T: Copy>(&self, name: &str, words: &[(&str, T)]) -> Result<Option<T>, ApiError> {
        let Some(given) = self.text(name) else { return Ok(None) };
        if let Some((_, meaning)) = words.iter().find(|(word, _)| *word == given) {
            return Ok(Some(*meaning));
        }
        let words = list(words.iter().map(|(word, _)| *word));
        Err(ApiError::invalid(format!("Query parameter {} must be one of {words}", quoted(name))))
    }

    /// `dir`: `f` or `b`, forward if there is none.
    ///
    /// # Errors
    /// 400 `M_INVALID_PARAM` for anything else.
    pub fn direction(&self) -> Result<Direction, ApiError> {
        let words = [("f", Direction::Forward), ("b", Direction::Backward)];
        Ok(self.one_of("dir", &words)?.unwrap_or(Direction::Forward))
    }

    /// JSON of a type.
    ///
    /// # Errors
    /// 400 `M_NOT_JSON`.
    pub fn json<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, ApiError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        check_nesting(text.as_bytes())?;
        let message = format!("Query parameter {name} must be a valid JSON object");
        serde_json::from_str(text).map(Some).map_err(|_| ApiError::new(ErrorKind::NotJson, message))
    }
}

/// A body, which must be an object.
#[derive(Debug, Deserialize)]
pub struct Body(Map<String, Value>);

impl FromRequest<App> for Body {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        Self::read(&read_body(body, &parts.headers, body_limit(app, parts.uri.path())).await?)
    }
}

/// A body, which may be left out: then it is an empty object.
pub struct MaybeBody(pub Body);

impl FromRequest<App> for MaybeBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let json = read_body(body, &parts.headers, body_limit(app, parts.uri.path())).await?;
        Ok(Self(if json.is_empty() { Body(Map::new()) } else { Body::read(&json)? }))
    }
}

impl Body {
    fn read(json: &[u8]) -> Result<Self, ApiError> {
        check_nesting(json)?;
        match serde_json::from_slice(json) {
            Ok(Value::Object(fields)) => Ok(Self(fields)),
            Ok(_) => Err(ApiError::new(ErrorKind::BadJson, "Content must be a JSON object.")),
            Err(_) => Err(ApiError::new(ErrorKind::NotJson, "Content not JSON.")),
        }
    }

    /// Asks for fields, whatever they are.
    ///
    /// # Errors
    /// 400 `M_MISSING_PARAM`, which names those that are not there.
    pub fn require(&self, names: &[&str]) -> Result<(), ApiError> {
        let absent: Vec<&str> = names.iter().copied().filter(|name| !self.0.contains_key(*name)).collect();
        if absent.is_empty() { Ok(()) } else { Err(missing(format!("Missing params: {}", list(absent.into_iter())))) }
    }

    /// A field as it is, null too.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// A field of a type, if it is there: null is of the type or wrong, too. Endpoints word differently what is wrong.
    ///
    /// # Errors
    /// 400 with this code and message for what is not of the type.
    pub fn field<T: DeserializeOwned>(
        &self,
        name: &str,
        wrong: ErrorKind,
        message: &str,
    ) -> Result<Option<T>, ApiError> {
        let Some(value) = self.0.get(name) else { return Ok(None) };
        T::deserialize(value).map(Some).map_err(|_| refused(wrong, message))
    }

    /// A field that is true or false, if it is there.
    ///
    /// # Errors
    /// 400 `M_BAD_JSON` for anything else.
    pub fn boolean(&self, name: &str) -> Result<Option<bool>, ApiError> {
        self.field(name, ErrorKind::BadJson, &format!("Param {} must be a boolean, if given", quoted(name)))
    }

    /// A field that must be there, and be true or false.
    ///
    /// # Errors
    /// 400 `M_MISSING_PARAM`, or `M_BAD_JSON` for anything else.
    pub fn required_boolean(&self, name: &str) -> Result<bool, ApiError> {
        self.require(&[name])?;
        let wrong = || ApiError::new(ErrorKind::BadJson, format!("Param {} must be a boolean.", quoted(name)));
        self.0.get(name).and_then(Value::as_bool).ok_or_else(wrong)
    }

    /// A field that is a text, if it is there; null stands for none.
    ///
    /// # Errors
    /// 400 `M_BAD_JSON` for anything else.
    pub fn text(&self, name: &str) -> Result<Option<String>, ApiError> {
        let message = format!("Param {} must be a string, if given", quoted(name));
        Ok(self.field::<Option<String>>(name, ErrorKind::BadJson, &message)?.flatten())
    }

    /// A field that must be there, and be a text.
    ///
    /// # Errors
    /// 400 `M_MISSING_PARAM`, or `M_BAD_JSON` for anything else.
    pub fn required_text(&self, name: &str) -> Result<String, ApiError> {
        self.require(&[name])?;
        let wrong = || ApiError::new(ErrorKind::BadJson, format!("Param {} must be a string", quoted(name)));
        self.0.get(name).and_then(Value::as_str).map(str::to_owned).ok_or_else(wrong)
    }
}

/// 400 with a code that else may have another status (`M_UNKNOWN` is that of faults).
#[must_use]
pub fn refused(kind: ErrorKind, message: impl Into<String>) -> ApiError {
    ApiError::with_status(StatusCode::BAD_REQUEST, kind, message)
}

/// 400 `M_UNKNOWN`: what Synapse answers where it names no code.
#[must_use]
pub fn unknown(message: impl Into<String>) -> ApiError {
    refused(ErrorKind::Unknown, message)
}

fn missing(message: String) -> ApiError {
    ApiError::new(ErrorKind::MissingParam, message)
}

/// A text as Python shows it, in quotes.
#[must_use]
pub fn quoted(text: &str) -> String {
    format!("'{text}'")
}

/// Texts as Python shows a list of them.
#[must_use]
pub fn list<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    format!("[{}]", texts.map(quoted).collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use axum::{http, response::IntoResponse};
    use futures::FutureExt;
    use serde_json::json;

    use super::*;

    fn query(query: &str) -> Params {
        let uri: http::Uri = format!("/?{query}").parse().unwrap();
        Params(Query::try_from_uri(&uri).unwrap().0)
    }

    /// Status, code and message.
    fn told<T>(outcome: Result<T, ApiError>) -> (u16, String, String) {
        let Err(error) = outcome else { panic!("it was taken") };
        let status = error.status().as_u16();
        let body = axum::body::to_bytes(error.into_response().into_body(), usize::MAX).now_or_never();
        let body: Value = serde_json::from_slice(&body.unwrap().unwrap()).unwrap();
        let text = |name: &str| body[name].as_str().unwrap().to_owned();
        (status, text("errcode"), text("error"))
    }

    fn error(code: &str, message: &str) -> (u16, String, String) {
        (400, code.to_owned(), message.to_owned())
    }

    #[test]
    fn integers() {
        for (text, value) in
            [("0", 0), ("17", 17), ("%2B5", 5), ("-0", 0), (" 7", 7), ("99999999999999999999", u64::MAX)]
        {
            let text = text.replace(' ', "%20");
            assert_eq!(query(&format!("n={text}&n=wrong")).integer("n").unwrap(), Some(value), "{text}");
        }
        for text in ["", "-", "many", "1.5", "1e3", "0x1", "%C3%A4", "--1", "%ff"] {
            let found = told(query(&format!("n={text}")).integer("n"));
            assert_eq!(found, error("M_INVALID_PARAM", "Query parameter n must be an integer"), "{text}");
        }
        let negative = error("M_INVALID_PARAM", "Query parameter n must be a positive integer.");
        assert_eq!(told(query("n=-1").integer("n")), negative);
        assert_eq!(told(query("n=-99999999999999999999").count("n")), negative);
        assert_eq!(query("m=1").integer("n").unwrap(), None);
        let absent = error("M_MISSING_PARAM", "Missing required integer query parameter n");
        assert_eq!(told(query("").required_integer("n")), absent);
    }

    #[test]
    fn booleans_words_and_directions() {
        assert_eq!(query("b=true&b=x").boolean("b").unwrap(), Some(true));
        assert_eq!(query("b=false").boolean("b").unwrap(), Some(false));
        assert_eq!(query("").boolean("b").unwrap(), None);
        let wrong = error("M_INVALID_PARAM", "Boolean query parameter 'b' must be one of ['true', 'false']");
        for text in ["", "True", "1", "yes"] {
            assert_eq!(told(query(&format!("b={text}")).boolean("b")), wrong, "{text}");
        }
        let words = [("name", 1), ("size", 2)];
        assert_eq!(query("o=size").one_of("o", &words).unwrap(), Some(2));
        assert_eq!(query("").one_of("o", &words).unwrap(), None);
        let wrong = error("M_INVALID_PARAM", "Query parameter 'o' must be one of ['name', 'size']");
        assert_eq!(told(query("o=Size").one_of("o", &words)), wrong);
        assert_eq!(query("").direction().unwrap(), Direction::Forward);
        assert_eq!(query("dir=b").direction().unwrap(), Direction::Backward);
        let wrong = error("M_INVALID_PARAM", "Query parameter 'dir' must be one of ['f', 'b']");
        assert_eq!(told(query("dir=d").direction()), wrong);
    }

    #[test]
    fn texts_and_json() {
        assert_eq!(query("t=a%20b&t=c").text("t"), Some("a b"));
        assert_eq!(query("t=").required_text("t").unwrap(), "");
        assert_eq!(told(query("").required_text("t")), error("M_MISSING_PARAM", "Missing string query parameter t"));
        assert_eq!(query("j=%7B%22a%22:1%7D").json::<Value>("j").unwrap(), Some(json!({ "a": 1 })));
        let wrong = error("M_NOT_JSON", "Query parameter j must be a valid JSON object");
        assert_eq!(told(query("j=%7B").json::<Value>("j")), wrong);
    }

    #[test]
    fn bodies() {
        for (json, code, message) in [
            ("", "M_NOT_JSON", "Content not JSON."),
            ("{", "M_NOT_JSON", "Content not JSON."),
            ("[]", "M_BAD_JSON", "Content must be a JSON object."),
            ("null", "M_BAD_JSON", "Content must be a JSON object."),
        ] {
            assert_eq!(told(Body::read(json.as_bytes())), error(code, message), "{json}");
        }
        let body = Body::read(br#"{"yes":true,"none":null,"text":"t","many":3}"#).unwrap();
        assert!(body.require(&["yes", "none"]).is_ok());
        assert_eq!(told(body.require(&["a", "yes", "b"])), error("M_MISSING_PARAM", "Missing params: ['a', 'b']"));
        assert_eq!((body.boolean("yes").unwrap(), body.boolean("a").unwrap()), (Some(true), None));
        for name in ["none", "text", "many"] {
            let message = format!("Param '{name}' must be a boolean, if given");
            assert_eq!(told(body.boolean(name)), error("M_BAD_JSON", &message));
        }
        assert_eq!((body.text("text").unwrap().as_deref(), body.text("none").unwrap()), (Some("t"), None));
        assert_eq!(told(body.text("yes")), error("M_BAD_JSON", "Param 'yes' must be a string, if given"));
        assert_eq!(body.required_text("text").unwrap(), "t");
        assert_eq!(told(body.required_text("a")), error("M_MISSING_PARAM", "Missing params: ['a']"));
        assert_eq!(told(body.required_text("none")), error("M_BAD_JSON", "Param 'none' must be a string"));
        let many = |name| body.field::<Option<u64>>(name, ErrorKind::InvalidParam, "it must be a number or null");
        assert_eq!(
            (many("many").unwrap(), many("none").unwrap(), many("a").unwrap()),
            (Some(Some(3)), Some(None), None)
        );
        assert_eq!(told(many("text")), error("M_INVALID_PARAM", "it must be a number or null"));
    }
}
