//! What a node has of the others on its log.

use std::{net::SocketAddr, sync::Arc};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::StartError;
use crate::{
    clock::Clock,
    config::{Backend, Config},
    fold::Progress,
    keys::OwnKey,
    nodes::{self, Alone, Channel, Join, KafkaChannel, Members, Message, Node},
    processes::Link,
};

/// The other nodes, if there can be any.
pub(super) struct Neighbours {
    /// Which of them live.
    pub(super) members: Arc<Members>,
    /// What all of them hear.
    pub(super) channel: Arc<dyn Channel>,
    is_alone: bool,
    /// The public half of the signing key, base64.
    key: String,
}

impl Neighbours {
    /// Hears them from now on; no channel is to be alone.
    pub(super) fn meet(node: &Node, key: &OwnKey, clock: Arc<dyn Clock>, channel: Option<Arc<dyn Channel>>) -> Self {
        let key = key.public().encode();
        let is_alone = channel.is_none();
        let members = Members::new(node.clone(), key.clone(), clock);
        let members = Arc::new(if is_alone { members.alone() } else { members });
        let channel = channel.unwrap_or_else(|| Arc::new(Alone::new(node.clone())));
        let listening = Arc::clone(&members);
        channel.listen(Box::new(move |_, told| listening.hear(told)));
        Self { members, channel, is_alone, key }
    }

    /// Tells them that this node lives, until it stops.
    pub(super) fn greet(
        self,
        config: &Config,
        addresses: &[SocketAddr],
        stop: CancellationToken,
    ) -> Option<JoinHandle<()>> {
        let alive = Message::Alive { url: own_url(config, addresses), key: self.key };
        (!self.is_alone).then(|| tokio::spawn(nodes::beat(self.channel, alive, stop)))
    }
}

/// Joins the other nodes, if there can be any: through the projector that this process serves beside, or, where the log is on
/// Kafka, through a topic beside it.
pub(super) async fn join(
    config: &Config,
    join: Option<Join>,
    link: Option<&Link>,
    node: &Node,
    progress: &Progress,
) -> Result<Option<Arc<dyn Channel>>, StartError> {
    match (join, &config.log.backend) {
        (Some(join), _) => Ok(Some(join(node.clone()))),
        (None, Backend::Embedded) => Ok(link.map(|link| link.join()(node.clone()))),
        (None, Backend::Kafka(topic)) => {
            let (settings, topic, node) = (config.log.kafka.clone(), topic.clone(), node.clone());
            let log_id = progress.cursor().log_id.0;
            let opened = tokio::task::spawn_blocking(move || KafkaChannel::open(&settings, &topic, &log_id, node));
            Ok(Some(Arc::new(opened.await.map_err(|error| StartError::Internal(error.to_string()))??)))
        }
    }
}

/// Where other nodes reach this one; none if nothing says so.
fn own_url(config: &Config, addresses: &[SocketAddr]) -> Option<String> {
    let listened = || addresses.first().filter(|address| !address.ip().is_unspecified());
    config.node.url.as_ref().map(|url| url.as_str().to_owned()).or_else(|| listened().map(|at| format!("http://{at}")))
}
