//! Client-server API, "Send-to-Device messaging".
//!
//! `PUT /_matrix/client/v3/sendToDevice/{eventType}/{txnId}`

use axum::Router;
use ruma::api::client::to_device::send_event_to_device::v3 as send_event_to_device;

use crate::{
    commands::{
        Refusal, content,
        to_device::{self, Messages},
    },
    http::{
        App,
        extract::{Matrix, Routes},
        reply::ApiError,
    },
};

pub fn routes() -> Router<App> {
    Router::new().matrix(send)
}

async fn send(
    app: App,
    request: Matrix<send_event_to_device::Request>,
) -> Result<send_event_to_device::Response, ApiError> {
    let once = request.once(&request.body.txn_id);
    let messages = request.body.messages.iter().map(|(user, by_device)| {
        let contents = by_device.iter().map(|(to, content)| Ok((to.clone(), content::object(content.json().get())?)));
        Ok((user.clone(), contents.collect::<Result<_, Refusal>>()?))
    });
    let messages = messages.collect::<Result<Messages, Refusal>>()?;
    let event_type = request.body.event_type.to_string();
    to_device::send(&app.commands, once, &request.who, &event_type, messages).await?;
    Ok(send_event_to_device::Response::new())
}
