//! What several nodes on one log owe a client that speaks now with one, now with another.
//!
//! - **The room's home decides** what was overtaken twice (`commands::handover`): the same request, with the client's own
//!   access token, goes to that node, and this one answers what that one does, once it has folded as far. What is
//!   handed over stays where it goes.
//! - **Only who has caught up refuses.** A refusal that rests on what is there is given once all that is on the log now
//!   is folded; what was not folded when the request came may make another answer. While the log can't be asked, it is 503.
//!
//! Both only where there may be other nodes. A node knows what another hands it by a seal that only those can make who have the
//! server's signing key; what only looks like it is refused.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    body::Body,
    extract::{Request, State},
    http::{self, HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::future::BoxFuture;
use hmac::{Hmac, KeyInit, Mac};
use schemas::Lsn;
use sha2::{Digest, Sha256, digest::InvalidLength};

use super::{
    App, auth,
    kept::Kept,
    reply::{ApiError, Refused},
};
use crate::{
    commands::handover::{Asked, Courier},
    keys::OwnKey,
    nodes::Member,
};

/// On a request that a node hands to another: its name, how far the node has folded, the client's address, the seal.
const HANDED: &str = "x-everfold-handed";
/// On the answer: how far this node must have folded before the client gets it.
const FOLDED: &str = "x-everfold-folded";
/// A home that lives takes a connection in this time …
const CONNECT: Duration = Duration::from_secs(1);
/// … and answers in this. Beyond it, the decision is made here after all.
const ANSWER: Duration = Duration::from_secs(4);
/// So long it is waited for what is on the log already.
const CATCH_UP: Duration = Duration::from_secs(5);

/// What goes from one node to another.
pub struct Between {
    http: reqwest::Client,
    secret: [u8; 32],
}

impl Between {
    /// For nodes that have this signing key.
    ///
    /// # Errors
    /// When there can be no HTTP client.
    pub fn new(key: &OwnKey) -> reqwest::Result<Self> {
        let http = reqwest::Client::builder().connect_timeout(CONNECT).timeout(ANSWER).no_proxy();
        let http = http.redirect(reqwest::redirect::Policy::none()).build()?;
        Ok(Self { http, secret: key.secret("requests that one node hands to another") })
    }

    /// Seals a mark for one request.
    fn seal(
        &self,
        mark: &str,
        method: &Method,
        uri: &http::Uri,
        headers: &HeaderMap,
    ) -> Result<Hmac<Sha256>, InvalidLength> {
        let mut seal = Hmac::<Sha256>::new_from_slice(&self.secret)?;
        let token = headers.get(header::AUTHORIZATION).map_or(&b""[..], HeaderValue::as_bytes);
        for part in [mark.as_bytes(), method.as_str().as_bytes(), target(uri).as_bytes(), token] {
            seal.update(&Sha256::digest(part));
        }
        Ok(seal)
    }
}

/// Path and query.
fn target(uri: &http::Uri) -> &str {
    uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str)
}

/// The client's address, on a request that another node has handed here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Handed(pub IpAddr);

/// What a node says of a request that it hands over.
struct Mark {
    nonce: String,
    /// How far it has folded.
    folded: Lsn,
    /// The client's address.
    address: IpAddr,
}

impl Mark {
    fn written(&self) -> String {
        format!("{} {} {}", self.nonce, self.folded.0, self.address)
    }

    /// The mark that a request has, if it has one.
    ///
    /// # Errors
    /// When no node of this server made it for this request.
    fn take(app: &App, request: &mut Request) -> Result<Option<Self>, ApiError> {
        let Some(value) = request.headers_mut().remove(HANDED) else { return Ok(None) };
        let mark = value.to_str().ok().and_then(|value| Self::read(app, request, value));
        mark.map(Some).ok_or_else(|| ApiError::forbidden(format!("{HANDED} is for nodes of this server alone")))
    }

    fn read(app: &App, request: &Request, value: &str) -> Option<Self> {
        let (mark, seal) = value.rsplit_once(' ')?;
        let expected = app.between.seal(mark, request.method(), request.uri(), request.headers()).ok()?;
        expected.verify_slice(&hex::decode(seal).ok()?).ok()?;
        let mut words = mark.split(' ');
        let (nonce, folded, address) = (words.next()?, words.next()?, words.next()?);
        Some(Self { nonce: nonce.to_owned(), folded: Lsn(folded.parse().ok()?), address: address.parse().ok()? })
    }
}

/// Gives every request what nodes owe it.
pub(super) async fn among_nodes(State(app): State<App>, mut request: Request, next: Next) -> Response {
    match Mark::take(&app, &mut request) {
        Ok(None) => {}
        Ok(Some(mark)) => return at_home(&app, mark, request, next).await,
        Err(error) => return error.into_response(),
    }
    if app.members.is_alone() {
        return next.run(request).await;
    }
    let (began, nonce) = (app.progress.cursor().lsn, app.random.alphanumeric(22));
    let (head, body) = request.into_parts();
    let body = Kept::new(body);
    let errand =
        Arc::new(Errand { app: app.clone(), head: head.clone(), body: body.clone(), nonce, answer: Mutex::default() });
    let courier = (head.method != Method::GET).then(|| Arc::clone(&errand) as Arc<dyn Courier>);
    let asked = Asked::new(errand.nonce.clone(), courier);
    let request = Request::from_parts(head.clone(), body.read());
    let reply = Arc::clone(&asked).carry_out(next.clone().run(request)).await;
    if let Some(answer) = errand.answer.lock().unwrap_or_else(PoisonError::into_inner).take() {
        return answer;
    }
    if reply.extensions().get::<Refused>().is_none() || asked.is_settled() {
        return reply;
    }
    match app.commands.catch_up().await {
        Ok(end) if end > began => {}
        Ok(_) => return reply,
        Err(error) => {
            tracing::debug!(%error, "a refusal may rest on what is not folded here");
            return ApiError::from(error).into_response();
        }
    }
    app.metrics.refusals_again_total.inc();
    let request = Request::from_parts(head, body.read());
    Asked::again(app.random.alphanumeric(22)).carry_out(next.run(request)).await
}

/// Carries out what another node has handed here. It stays here.
async fn at_home(app: &App, mark: Mark, mut request: Request, next: Next) -> Response {
    app.metrics.handed_requests_total.inc();
    if !app.progress.reached(mark.folded, ANSWER / 2).await {
        return ApiError::unavailable("this node is behind; try again").into_response();
    }
    request.extensions_mut().insert(Handed(mark.address));
    let mut reply = Asked::again(mark.nonce).carry_out(next.run(request)).await;
    reply.headers_mut().insert(FOLDED, HeaderValue::from(app.progress.cursor().lsn.0));
    reply
}

/// A request on its way to the room's home.
struct Errand {
    app: App,
    head: Parts,
    body: Kept,
    nonce: String,
    answer: Mutex<Option<Response>>,
}

impl Courier for Errand {
    fn take_to(&self, home: Member) -> BoxFuture<'_, bool> {
        Box::pin(async move {
            let timer = self.app.metrics.handover_seconds.start_timer();
            let answer = self.ask(&home).await;
            timer.observe_duration();
            let outcome = if answer.is_some() { "answered" } else { "failed" };
            self.app.metrics.handovers_total.with_label_values(&[outcome]).inc();
            let answered = answer.is_some();
            *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = answer;
            answered
        })
    }
}

impl Errand {
    async fn ask(&self, home: &Member) -> Option<Response> {
        let (app, head) = (&self.app, &self.head);
        let address = auth::address(app, head);
        let mark = Mark { nonce: self.nonce.clone(), folded: app.progress.cursor().lsn, address }.written();
        let seal = app.between.seal(&mark, &head.method, &head.uri, &head.headers).ok()?;
        let seal = hex::encode(seal.finalize().into_bytes());
        let url = format!("{}{}", home.url.as_deref()?, target(&head.uri));
        let mut request = app.between.http.request(head.method.clone(), url).header(HANDED, format!("{mark} {seal}"));
        for name in [header::AUTHORIZATION, header::CONTENT_TYPE] {
            if let Some(value) = head.headers.get(&name) {
                request = request.header(name, value);
            }
        }
        let reply = match request.body(self.body.whole()).send().await {
            Ok(reply) => reply,
            Err(error) => {
                tracing::debug!(home = home.node.number, %error, "a room's home did not answer");
                return None;
            }
        };
        let (status, headers) = (reply.status(), reply.headers().clone());
        let folded = headers.get(FOLDED)?.to_str().ok()?.parse().ok().map(Lsn)?;
        if !is_final(status) {
            return None;
        }
        let body = reply.bytes().await.ok()?;
        // What it did is done, whether or not this node sees it in time.
        app.progress.reached(folded, CATCH_UP).await;
        Some(copy(status, &headers, body))
    }
}

/// Whether a home's answer is the client's: not where the home can't decide now, or doesn't know what this node does.
fn is_final(status: StatusCode) -> bool {
    let passing = [StatusCode::UNAUTHORIZED, StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS];
    status.is_success() || status.is_client_error() && !passing.contains(&status)
}

/// An answer without what is between nodes.
fn copy(status: StatusCode, headers: &HeaderMap, body: Bytes) -> Response {
    let mut answer = Response::new(Body::from(body));
    *answer.status_mut() = status;
    if let Some(kind) = headers.get(header::CONTENT_TYPE) {
        answer.headers_mut().insert(header::CONTENT_TYPE, kind.clone());
    }
    answer
}
