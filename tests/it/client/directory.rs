use futures::future::join_all;
use serde_json::{Value, json};

use crate::common::{Client, TestServer};

async fn point(who: &Client, alias: &str, room: &str) -> crate::common::Reply {
    who.put(&format!("/directory/room/%23{alias}:test.example"), json!({ "room_id": room })).await
}

#[tokio::test]
async fn aliases_are_made_found_and_removed() {
    let server = TestServer::start().await;
    let (alice, bob, admin) = (server.user("alice").await, server.user("bob").await, server.admin("admin").await);
    let room = alice.room_with(&[&bob]).await;
    point(&bob, "tea", &room).await.ok();
    assert_eq!(point(&alice, "tea", &room).await.error().0, 409);
    let found = server.client().get("/directory/room/%23tea:test.example").await.ok();
    assert_eq!(found, json!({ "room_id": room, "servers": ["test.example"] }));
    point(&alice, "cake", &room).await.ok();
    // Members ask, and administrators, whose tools do.
    for who in [&alice, &admin] {
        let aliases = who.get(&format!("/rooms/{room}/aliases")).await.ok();
        assert_eq!(aliases["aliases"], json!(["#cake:test.example", "#tea:test.example"]));
    }
    let stranger = server.user("stranger").await;
    assert_eq!(point(&stranger, "x", &room).await.error(), (403, "M_FORBIDDEN"));
    assert_eq!(point(&alice, "x", "!none:test.example").await.error(), (403, "M_FORBIDDEN"));
    assert_eq!(alice.put("/directory/room/%23x:elsewhere.example", json!({ "room_id": room })).await.error().0, 400);
    assert_eq!(alice.put("/directory/room/nonsense", json!({ "room_id": room })).await.error().0, 400);
    assert_eq!(alice.get("/directory/room/%23none:test.example").await.error(), (404, "M_NOT_FOUND"));

    let remove = |who: &Client, alias: &str| {
        let (who, path) = (who.clone(), format!("/directory/room/%23{alias}:test.example"));
        async move { who.delete(&path).await }
    };
    assert_eq!(remove(&bob, "cake").await.error(), (403, "M_FORBIDDEN"));
    assert_eq!(remove(&bob, "none").await.error(), (404, "M_NOT_FOUND"));
    remove(&bob, "tea").await.ok();
    remove(&admin, "cake").await.ok();
    assert_eq!(alice.get(&format!("/rooms/{room}/aliases")).await.ok()["aliases"], json!([]));
    server.finish().await;
}

#[tokio::test]
async fn one_room_gets_a_contended_alias() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let rooms = join_all((0..8).map(|_| alice.create(json!({})))).await;
    let replies = join_all(rooms.iter().map(|room| point(&alice, "one", room))).await;
    let winners: Vec<_> = replies.iter().zip(&rooms).filter(|(reply, _)| reply.status == 200).collect();
    assert_eq!(winners.len(), 1);
    assert!(replies.iter().all(|reply| reply.status == 200 || reply.error().0 == 409));
    assert_eq!(alice.get("/directory/room/%23one:test.example").await.ok()["room_id"], json!(winners[0].1));
    server.finish().await;
}

async fn names(who: &Client, query: &str) -> (Vec<String>, Value) {
    let page = who.get(&format!("/publicRooms{query}")).await.ok();
    (of(&page), page)
}

fn of(page: &Value) -> Vec<String> {
    let rooms = page["chunk"].as_array().unwrap();
    rooms.iter().map(|room| room["name"].as_str().unwrap_or_default().to_owned()).collect()
}

#[tokio::test]
async fn the_public_list_is_paged_and_searched() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    for (name, topic) in [("Tea", "hot leaves"), ("Cake", "sweet"), ("Apple", "Fruit"), ("Secret", "")] {
        let visibility = if name == "Secret" { "private" } else { "public" };
        let body = json!({
            "preset": "public_chat", "visibility": visibility, "name": name, "topic": topic,
            "room_alias_name": name.to_lowercase(), "room_version": "10",
            "creation_content": if name == "Apple" { json!({ "type": "m.space" }) } else { json!({}) },
        });
        let room = alice.create(body).await;
        if name == "Cake" {
            bob.join(&room).await;
        }
    }
    let anybody = server.client();
    let (all, page) = names(&anybody, "").await;
    assert_eq!((all.len(), &all[0]), (3, &"Cake".to_owned()));
    assert_eq!(
        (&page["total_room_count_estimate"], page.get("next_batch"), page.get("prev_batch")),
        (&3.into(), None, None)
    );
    let cake = &page["chunk"][0];
    assert_eq!(
        (&cake["num_joined_members"], &cake["canonical_alias"], &cake["topic"]),
        (&2.into(), &"#cake:test.example".into(), &"sweet".into())
    );
    assert_eq!(
        (&cake["world_readable"], &cake["guest_can_join"], &cake["join_rule"]),
        (&false.into(), &false.into(), &Value::Null)
    );

    let (first, page) = names(&anybody, "?limit=2").await;
    assert_eq!((&first[..], page.get("prev_batch")), (&all[..2], None));
    let next = page["next_batch"].as_str().unwrap();
    let (second, page) = names(&anybody, &format!("?limit=2&since={next}")).await;
    assert_eq!((&second[..], page.get("next_batch")), (&all[2..], None));
    let previous = page["prev_batch"].as_str().unwrap();
    let (back, page) = names(&anybody, &format!("?limit=1&since={previous}")).await;
    assert_eq!(back, all[1..2]);
    assert!(page["next_batch"].is_string() && page["prev_batch"].is_string());
    assert_eq!(anybody.get("/publicRooms?since=x").await.error(), (400, "M_INVALID_PARAM"));
    assert_eq!(anybody.get("/publicRooms?limit=-1").await.error().0, 400);
    assert_eq!(anybody.get("/publicRooms?server=elsewhere.example").await.error().0, 400);
    assert_eq!(anybody.get("/publicRooms?server=test.example").await.status, 200);

    let search = |body: Value| {
        let bob = bob.clone();
        async move { of(&bob.post("/publicRooms", body).await.ok()) }
    };
    assert_eq!(search(json!({ "filter": { "generic_search_term": "FRUIT" } })).await, ["Apple"]);
    assert_eq!(search(json!({ "filter": { "generic_search_term": "tea" } })).await, ["Tea"]);
    assert_eq!(search(json!({ "filter": { "room_types": ["m.space"] } })).await, ["Apple"]);
    assert_eq!(search(json!({ "filter": { "room_types": [null] } })).await.len(), 2);
    assert_eq!(search(json!({ "limit": 1 })).await, ["Cake"]);
    assert_eq!(search(json!({ "third_party_instance_id": "irc" })).await.len(), 0);
    assert_eq!(anybody.post("/publicRooms", json!({})).await.error(), (401, "M_MISSING_TOKEN"));
    server.finish().await;
}

#[tokio::test]
async fn who_may_set_the_canonical_alias_publishes() {
    let server = TestServer::start().await;
    let (alice, bob, admin) = (server.user("alice").await, server.user("bob").await, server.admin("admin").await);
    let room = alice.room_with(&[&bob]).await;
    let path = format!("/directory/list/room/{room}");
    assert_eq!(server.client().get(&path).await.ok(), json!({ "visibility": "private" }));
    assert_eq!(bob.put(&path, json!({ "visibility": "public" })).await.error(), (403, "M_FORBIDDEN"));
    alice.put(&path, json!({ "visibility": "public" })).await.ok();
    alice.put(&path, json!({ "visibility": "public" })).await.ok();
    assert_eq!(server.client().get(&path).await.ok(), json!({ "visibility": "public" }));
    admin.put(&path, json!({ "visibility": "private" })).await.ok();
    assert_eq!(names(&bob, "").await.0.len(), 0);
    let none = "/directory/list/room/!none:test.example";
    assert_eq!(server.client().get(none).await.error(), (404, "M_NOT_FOUND"));
    assert_eq!(alice.put(none, json!({ "visibility": "public" })).await.error(), (403, "M_FORBIDDEN"));
    server.finish().await;
}
