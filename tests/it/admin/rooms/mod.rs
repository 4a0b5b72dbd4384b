mod actions;
mod details;
mod events;
mod extremities;
mod hierarchy;
mod list;

use crate::common::Reply;

/// The path of something of a room.
fn of(room: &str, what: &str) -> String {
    format!("/_synapse/admin/v1/rooms/{room}{what}")
}

/// Status, code and message of an error.
fn told(reply: &Reply) -> (u16, &str, &str) {
    let (status, code) = reply.error();
    (status, code, reply["error"].as_str().unwrap())
}
