//! Client-server API, "Receipts" and "Fully read markers".
//!
//! `POST /_matrix/client/v3/rooms/{roomId}/receipt/{receiptType}/{eventId}`,
//! `POST /_matrix/client/v3/rooms/{roomId}/read_markers`

use axum::Router;
use ruma::{
    api::client::{
        read_marker::set_read_marker::v3 as set_read_marker,
        receipt::create_receipt::v3::{self as create_receipt, ReceiptType},
    },
    events::receipt::ReceiptThread,
};
use schemas::facts::ReceiptKind;

use crate::{
    commands::receipts::{Mark, mark},
    http::{
        App,
        extract::{Matrix, Routes},
        reply::ApiError,
    },
};

pub fn routes() -> Router<App> {
    Router::new().matrix(receipt).matrix(markers)
}

async fn receipt(app: App, request: Matrix<create_receipt::Request>) -> Result<create_receipt::Response, ApiError> {
    let create_receipt::Request { room_id, receipt_type, event_id, thread, .. } = request.body;
    let thread = match &thread {
        ReceiptThread::Unthreaded => None,
        ReceiptThread::Main | ReceiptThread::Thread(_) => thread.as_str().map(ToOwned::to_owned),
        _ => return Err(ApiError::invalid("thread_id is `main` or the event id of a thread's root")),
    };
    let of_kind = |kind| Mark::Receipt { kind, thread: thread.clone() };
    let what = match receipt_type {
        ReceiptType::Read => of_kind(ReceiptKind::Public),
        ReceiptType::ReadPrivate => of_kind(ReceiptKind::Private),
        ReceiptType::FullyRead if thread.is_none() => Mark::FullyRead,
        ReceiptType::FullyRead => return Err(ApiError::invalid("m.fully_read is for the whole room: no thread_id")),
        other => return Err(ApiError::invalid(format!("there are no receipts of the type {other}"))),
    };
    mark(&app.commands, &request.who, room_id, vec![(what, event_id)]).await?;
    Ok(create_receipt::Response::new())
}

async fn markers(app: App, request: Matrix<set_read_marker::Request>) -> Result<set_read_marker::Response, ApiError> {
    let set_read_marker::Request { room_id, fully_read, read_receipt, private_read_receipt, .. } = request.body;
    let unthreaded = |kind| Mark::Receipt { kind, thread: None };
    let marks = [
        (Mark::FullyRead, fully_read),
        (unthreaded(ReceiptKind::Public), read_receipt),
        (unthreaded(ReceiptKind::Private), private_read_receipt),
    ];
    let marks = marks.into_iter().filter_map(|(mark, event)| Some((mark, event?))).collect();
    mark(&app.commands, &request.who, room_id, marks).await?;
    Ok(set_read_marker::Response::new())
}
