//! What crosses nodes without being history: who lives, who types, who is there, who authenticates.

use everfold::nodes::{Message, Node, Told};
use http::StatusCode;
use serde_json::json;

use crate::common::{HeldLog, Nodes, TestServer, until};

/// The numbers of the nodes that one takes for alive, besides itself.
fn alive(node: &TestServer) -> Vec<u32> {
    node.app().members.others_alive().iter().map(|member| member.node.number).collect()
}

#[tokio::test]
async fn nodes_learn_of_each_other_and_of_the_end() {
    let nodes = Nodes::start().await;
    until(async || alive(&nodes.first) == [1] && alive(&nodes.second) == [0]).await;
    let third = nodes.first.node(nodes.log.beside()).await;
    until(async || alive(&nodes.first) == [1, 2] && alive(&third) == [0, 1]).await;
    let urls = nodes.second.app().members.others_alive().into_iter().map(|member| member.url);
    let urls: Vec<_> = urls.map(Option::unwrap).collect();
    assert_eq!(urls, [nodes.first.url(), third.url()]);
    third.stop().await;
    until(async || alive(&nodes.first) == [1] && alive(&nodes.second) == [0]).await;
    nodes.finish().await;
}

#[tokio::test]
async fn nodes_that_are_not_of_one_server_are_not_ready() {
    let (server, log) = TestServer::with_log(HeldLog::over).await;
    let twin = server.node_with(log.beside(), &[("node.number", "0")]).await;
    let reason = "another process has this node's number, 0: give each its own (node.number)";
    for node in [&server, &twin] {
        let client = node.client();
        until(async || client.get("/health/ready").await.status == StatusCode::SERVICE_UNAVAILABLE).await;
        assert_eq!(client.get("/health/ready").await.json["conflict"], json!(reason));
    }
    twin.stop().await;

    let stranger = server.hub().join()(Node { number: 7, boot: "stranger".into() });
    stranger.tell(Message::Alive { url: None, key: "another key".into() });
    let told = |told: &Told| told.from.number == 7;
    until(async || server.hub().told().iter().any(told) && server.app().members.conflict().is_some()).await;
    let client = server.client();
    let reason = "node 7 signs by another key: give all nodes a copy of one signing.key";
    until(async || client.get("/health/ready").await.json["conflict"] == json!(reason)).await;
    assert!(alive(&server).is_empty());
    server.finish().await;
}
