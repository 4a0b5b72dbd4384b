use serde_json::{Value, json};

use crate::common::{Client, TestServer};

const PATH: &str = "/_synapse/admin/v1/rooms";

/// Asks for a page.
async fn list(admin: &Client, query: &str) -> Value {
    admin.get(&format!("{PATH}?{query}")).await.ok()
}

/// The names of a page's rooms; ids where they have none.
fn names(page: &Value) -> Vec<String> {
    let name = |room: &Value| room["name"].as_str().or(room["room_id"].as_str()).unwrap().to_owned();
    page["rooms"].as_array().unwrap().iter().map(name).collect()
}

#[tokio::test]
async fn a_room_is_listed_with_all_that_is_known_of_it() {
    let server = TestServer::start().await;
    let (admin, anna) = (server.admin("root").await, server.user("anna").await);
    let page = list(&admin, "").await;
    assert_eq!(page, json!({ "rooms": [], "offset": 0, "total_rooms": 0 }));

    let bare = anna.create(json!({ "room_version": "10", "creation_content": { "m.federate": false } })).await;
    let space = json!({
        "name": "Garden", "room_alias_name": "garden", "preset": "public_chat", "visibility": "public",
        "creation_content": { "type": "m.space" }, "room_version": "11",
    });
    let space = anna.create(space).await;
    anna.set(&space, "m.room.encryption", "", json!({ "algorithm": "m.megolm.v1.aes-sha2" })).await;
    admin.join(&space).await;
    let page = list(&admin, "").await;
    let expected = json!({
        "room_id": space, "name": "Garden", "canonical_alias": "#garden:test.example", "joined_members": 2,
        "joined_local_members": 2, "version": "11", "creator": "@anna:test.example",
        "encryption": "m.megolm.v1.aes-sha2", "federatable": true, "public": true, "join_rules": "public",
        "guest_access": "forbidden", "history_visibility": "shared", "state_events": page["rooms"][0]["state_events"],
        "room_type": "m.space",
    });
    assert_eq!(page["rooms"][0], expected);
    assert!(expected["state_events"].as_u64().unwrap() > 8);
    let other = &page["rooms"][1];
    assert_eq!(
        (&other["room_id"], &other["federatable"], &other["public"]),
        (&json!(bare), &json!(false), &json!(false))
    );
    for unknown in ["name", "canonical_alias", "encryption", "room_type"] {
        assert_eq!(other.get(unknown), Some(&Value::Null), "{unknown}");
    }
    assert_eq!(other.as_object().unwrap().len(), expected.as_object().unwrap().len());
    server.finish().await;
}

#[tokio::test]
async fn every_order_goes_both_ways_a_page_at_a_time() {
    let server = TestServer::start().await;
    let (admin, anna) = (server.admin("root").await, server.user("anna").await);
    for (n, name) in ["e", "c", "a", "d", "b"].into_iter().enumerate() {
        let public = json!({ "name": name, "preset": "public_chat", "visibility": "public" });
        let room = anna.create(if n < 2 { public } else { json!({ "name": name, "room_version": "10" }) }).await;
        if n == 0 {
            admin.join(&room).await;
        }
    }
    anna.create(json!({ "room_version": "9" })).await;

    let all = list(&admin, "order_by=name").await;
    let rooms = all["rooms"].as_array().unwrap();
    let nameless = rooms[5]["room_id"].as_str().unwrap();
    assert_eq!(names(&all), ["a", "b", "c", "d", "e", nameless]);
    assert_eq!(names(&list(&admin, "").await), names(&all));
    assert_eq!(names(&list(&admin, "order_by=alphabetical&dir=b").await), [nameless, "e", "d", "c", "b", "a"]);
    assert_eq!(names(&list(&admin, "order_by=size&limit=1").await), ["e"]);
    let last = names(&list(&admin, "order_by=joined_members&dir=b").await);
    assert_eq!((last[5].as_str(), last.len()), ("e", 6));
    // As text, 9 is more than 10 and all that is newer.
    assert_eq!(names(&list(&admin, "order_by=version").await)[0], nameless);
    let public = names(&list(&admin, "order_by=public&dir=b").await);
    assert!(public[..2].contains(&"e".to_owned()) && public[..2].contains(&"c".to_owned()));

    for order in [
        "alphabetical",
        "size",
        "name",
        "canonical_alias",
        "joined_members",
        "joined_local_members",
        "version",
        "creator",
        "encryption",
        "federatable",
        "public",
        "join_rules",
        "guest_access",
        "history_visibility",
        "state_events",
    ] {
        let forward = names(&list(&admin, &format!("order_by={order}&dir=f")).await);
        let mut backward = names(&list(&admin, &format!("order_by={order}&dir=b")).await);
        backward.reverse();
        assert_eq!(forward, backward, "{order}");
        let mut pages = Vec::new();
        let mut from = Some(0);
        while let Some(at) = from {
            let page = list(&admin, &format!("order_by={order}&limit=4&from={at}")).await;
            assert_eq!((page["offset"].as_u64(), page["total_rooms"].as_u64()), (Some(at), Some(6)));
            let before = if at == 0 { Value::Null } else { json!(at.saturating_sub(4)) };
            assert_eq!(page["prev_batch"], before);
            pages.extend(names(&page));
            from = page.get("next_batch").map(|next| next.as_u64().unwrap());
        }
        assert_eq!(pages, forward, "{order}");
    }
    let page = list(&admin, "from=3&limit=2").await;
    assert_eq!((&page["prev_batch"], &page["next_batch"]), (&json!(1), &json!(5)));
    let page = list(&admin, "from=1&limit=2").await;
    assert_eq!((&page["prev_batch"], &page["next_batch"]), (&json!(0), &json!(3)));
    let beyond = list(&admin, "from=99999999999999999999&limit=2").await;
    assert_eq!((names(&beyond).len(), &beyond["total_rooms"], beyond.get("next_batch")), (0, &json!(6), None));
    let none = list(&admin, "limit=0").await;
    assert_eq!((names(&none).len(), &none["total_rooms"], none.get("next_batch")), (0, &json!(6), None));
    server.finish().await;
}

#[tokio::test]
async fn rooms_are_searched_and_filtered_at_once() {
    let server = TestServer::start().await;
    let (admin, anna) = (server.admin("root").await, server.user("anna").await);
    let tea = anna.create(json!({ "name": "Green TEA 100%", "visibility": "public" })).await;
    let house = anna.create(json!({ "name": "house", "room_alias_name": "Tea_House" })).await;
    let left = anna.create(json!({ "name": "teaspoon" })).await;
    anna.leave(&left).await;
    let find = async |query: &str| {
        let page = list(&admin, query).await;
        assert_eq!(page["total_rooms"], page["rooms"].as_array().unwrap().len(), "{query}");
        names(&page)
    };
    assert_eq!(find("search_term=tea").await, ["Green TEA 100%", "house", "teaspoon"]);
    assert_eq!(find("search_term=Tea&dir=b").await, ["teaspoon", "house", "Green TEA 100%"]);
    assert_eq!(find("search_term=tea&public_rooms=true").await, ["Green TEA 100%"]);
    assert_eq!(find("search_term=tea&public_rooms=false").await, ["house", "teaspoon"]);
    assert_eq!(find("search_term=tea&empty_rooms=true").await, ["teaspoon"]);
    assert_eq!(find("search_term=tea&public_rooms=false&empty_rooms=false").await, ["house"]);
    assert_eq!(find("public_rooms=true&empty_rooms=true").await, [""; 0]);
    assert_eq!(find("empty_rooms=false").await, ["Green TEA 100%", "house"]);
    // These are characters like others; and the server's name is not looked at.
    assert_eq!(find("search_term=%25").await, ["Green TEA 100%"]);
    assert_eq!(find("search_term=a_h").await, ["house"]);
    assert_eq!(find("search_term=g%25a").await, [""; 0]);
    assert_eq!(find("search_term=test.example").await, [""; 0]);
    assert_eq!(find(&format!("search_term={tea}")).await, ["Green TEA 100%"]);
    assert_eq!(find(&format!("search_term={house}&public_rooms=true")).await, [""; 0]);
    anna.set(&tea, "m.room.name", "", json!({ "name": "Coffee" })).await;
    assert_eq!(find("search_term=tea&order_by=size").await, ["house", "teaspoon"]);

    let page = list(&admin, "search_term=tea&limit=1").await;
    assert_eq!((names(&page), &page["total_rooms"], &page["next_batch"]), (vec!["house".into()], &json!(2), &json!(1)));
    let page = list(&admin, "search_term=tea&limit=1&from=1").await;
    assert_eq!((names(&page), page.get("next_batch")), (vec!["teaspoon".into()], None));
    server.finish().await;
}

#[tokio::test]
async fn wrong_parameters_are_named() {
    let server = TestServer::start().await;
    let admin = server.admin("root").await;
    for (query, message) in [
        ("from=x", "Query parameter from must be an integer"),
        ("limit=-1", "Query parameter limit must be a positive integer."),
        ("search_term=", "search_term cannot be an empty string"),
        ("dir=up", "Query parameter 'dir' must be one of ['f', 'b']"),
        ("public_rooms=1", "Boolean query parameter 'public_rooms' must be one of ['true', 'false']"),
        ("empty_rooms=", "Boolean query parameter 'empty_rooms' must be one of ['true', 'false']"),
        (
            "order_by=age",
            "Query parameter 'order_by' must be one of ['alphabetical', 'size', 'name', 'canonical_alias', \
             'joined_members', 'joined_local_members', 'version', 'creator', 'encryption', 'federatable', 'public', \
             'join_rules', 'guest_access', 'history_visibility', 'state_events']",
        ),
    ] {
        let reply = admin.get(&format!("{PATH}?{query}")).await;
        assert_eq!((reply.error(), &reply.json["error"]), ((400, "M_INVALID_PARAM"), &json!(message)), "{query}");
    }
    assert_eq!(server.client().get(PATH).await.error(), (401, "M_MISSING_TOKEN"));
    let anna = server.user("anna").await;
    assert_eq!(anna.get(&format!("{PATH}?from=x")).await.error(), (403, "M_FORBIDDEN"));
    server.finish().await;
}
