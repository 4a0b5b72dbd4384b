//! What a node has of the others on its log.

use std::{net::SocketAddr, sync::Arc};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    config::Config,
    keys::OwnKey,
    nodes::{self, Alone, Channel, Join, Members, Message, Node},
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
    /// Hears them from now on; none to join is to be alone.
    pub(super) fn meet(node: &Node, key: &OwnKey, clock: Arc<dyn Clock>, join: Option<Join>) -> Self {
        let key = key.public().encode();
        let is_alone = join.is_none();
        let members = Members::new(node.clone(), key.clone(), clock);
        let members = Arc::new(if is_alone { members.alone() } else { members });
        let channel = join.map_or_else(|| Arc::new(Alone::new(node.clone())) as _, |join| join(node.clone()));
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

/// Where other nodes reach this one; none if nothing says so.
fn own_url(config: &Config, addresses: &[SocketAddr]) -> Option<String> {
    let listened = || addresses.first().filter(|address| !address.ip().is_unspecified());
    config.node.url.as_ref().map(|url| url.as_str().to_owned()).or_else(|| listened().map(|at| format!("http://{at}")))
}
