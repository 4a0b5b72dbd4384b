use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{Channel, HEARTBEAT, Message};

/// At a stop, the last words of a node have so long to get to the others.
const FAREWELL: Duration = Duration::from_secs(1);

/// Tells again and again that this node lives, first and last that it comes and leaves.
pub async fn beat(channel: Arc<dyn Channel>, alive: Message, stop: CancellationToken) {
    channel.tell(alive.clone());
    channel.tell(Message::WhoIsThere);
    let mut seconds = tokio::time::interval(HEARTBEAT);
    while stop.run_until_cancelled(seconds.tick()).await.is_some() {
        channel.tell(alive.clone());
    }
    channel.tell(Message::Leaving);
    // Whether or not anybody hears it: they notice, only later.
    let _heard = tokio::time::timeout(FAREWELL, channel.caught_up()).await;
}
