use std::sync::Arc;

use everfold::{
    commands::{Sender, leases::Shard, membership::Move},
    log::LogReader,
};
use projections::{
    Model, View,
    models::{self, events, jobs, rooms},
    read::{Range, Read, Table},
};
use reqwest::Method;
use ruma::{OwnedRoomId, OwnedUserId};
use schemas::{
    Lsn, Record,
    facts::{AccountDeactivated, UserKind, UserRegistered},
};
use serde_json::{Value, json};

use crate::common::{Client, HeldLog, Nodes, PATIENCE, Reply, TestServer, rooms::text, until};

/// What of a room may be in a key: its id, its short id, those of its events.
pub fn names_of(view: &View, room: &str) -> Vec<Vec<u8>> {
    let nid = events::room_nid(view, room).unwrap().unwrap();
    let mut names = vec![room.as_bytes().to_vec(), nid.to_bytes().to_vec()];
    for event in events::of_room(view, nid) {
        let event = event.unwrap();
        names.extend([event.to_bytes().to_vec(), events::head(view, event).unwrap().unwrap().id.into_bytes()]);
    }
    names
}

/// Where administrators' blocks are, which stay.
const BLOCKS: (Model, u8) = (Model::Rooms, 5);

/// All keys with one of these names in them, but for those that are kept by purpose: the trail, the jobs themselves, blocks
/// and reports.
pub fn keys_with(view: &View, names: &[Vec<u8>]) -> Vec<String> {
    let mut found = Vec::new();
    for projection in models::ALL {
        if matches!(projection.model, Model::Admission | Model::Audit | Model::Jobs | Model::Reports) {
            continue;
        }
        for prefix in (0..=64).filter(|prefix| (projection.model, *prefix) != BLOCKS) {
            let table = Table { model: projection.model, prefix };
            for row in view.scan(table, Range::prefix([])) {
                let (key, _) = row.unwrap();
                if names.iter().any(|name| key.windows(name.len()).any(|part| part == name)) {
                    found.push(format!("{table}: {}", String::from_utf8_lossy(&key)));
                }
            }
        }
    }
    found
}

pub fn v1(room: &str) -> String {
    format!("/_synapse/admin/v1/rooms/{room}")
}

fn v2(room: &str) -> String {
    format!("/_synapse/admin/v2/rooms/{room}")
}

async fn delete(admin: &Client, path: &str, body: Value) -> Reply {
    admin.send_raw(Method::DELETE, path, body.to_string()).await
}

/// Waits for the end of a deletion, and says how it ended.
async fn ended(admin: &Client, id: &str) -> Value {
    let path = format!("/_synapse/admin/v2/rooms/delete_status/{id}");
    until(async || ["complete", "failed"].map(Value::from).contains(&admin.get(&path).await.ok()["status"])).await;
    admin.get(&path).await.ok()
}

fn sorted(list: &Value) -> Vec<String> {
    let mut list: Vec<_> = list.as_array().unwrap().iter().map(text).collect();
    list.sort();
    list
}

/// A room with something of every kind, whose creator is the first of its members.
async fn lively(members: &[&Client], alias: &str) -> String {
    let creator = members[0];
    let room = creator
        .create(json!({ "preset": "public_chat", "visibility": "public", "room_alias_name": alias, "name": "Lively" }))
        .await;
    for member in &members[1..] {
        member.join(&room).await;
    }
    let root = creator.say(&room, "Hello").await;
    for member in members {
        let relates = json!({ "rel_type": "m.annotation", "event_id": root, "key": "+" });
        member.send(&room, "m.reaction", json!({ "m.relates_to": relates })).await;
        let relates = json!({ "rel_type": "m.thread", "event_id": root });
        let mentions = json!({ "user_ids": [creator.user] });
        let content = json!({ "msgtype": "m.text", "body": "so", "m.relates_to": relates, "m.mentions": mentions });
        let last = member.send(&room, "m.room.message", content).await;
        member.post(&format!("/rooms/{room}/receipt/m.read/{last}"), json!({})).await.ok();
        member.put(&format!("/user/{}/rooms/{room}/account_data/x", member.user), json!({})).await.ok();
        member.put(&format!("/user/{}/rooms/{room}/tags/u.x", member.user), json!({})).await.ok();
    }
    let wrong = creator.say(&room, "wrong").await;
    creator.redact(&room, &wrong).await;
    room
}

#[tokio::test]
async fn a_room_is_deleted_its_people_come_into_another_and_nothing_is_left_of_it() {
    let server = TestServer::start().await;
    let admin = server.admin("root").await;
    let (anna, bert, carl) = (server.user("anna").await, server.user("bert").await, server.user("carl").await);
    let other = bert.room_with(&[&anna]).await;
    let room = lively(&[&anna, &bert], "lively").await;
    anna.invite(&room, &carl).await;
    let mut since = Vec::new();
    for user in [&anna, &bert, &carl] {
        since.push(text(&user.get("/sync").await.ok()["next_batch"]));
    }
    let names = names_of(&server.app().view().unwrap(), &room);
    assert!(keys_with(&server.app().view().unwrap(), &names).len() > 100);

    let body = json!({
        "block": true, "new_room_user_id": admin.user, "room_name": "What was", "message": "It was deleted.",
    });
    let id = text(&delete(&admin, &v2(&room), body).await.ok()["delete_id"]);
    assert_eq!(id.len(), 16);
    let status = ended(&admin, &id).await;
    let new_room = text(&status["shutdown_room"]["new_room_id"]);
    assert_eq!(
        (&status["status"], &status["delete_id"], &status["room_id"]),
        (&json!("complete"), &json!(id), &json!(room))
    );
    assert_eq!(sorted(&status["shutdown_room"]["kicked_users"]), [&*anna.user, &bert.user, &carl.user]);
    assert_eq!(status["shutdown_room"]["failed_to_kick_users"], json!([]));
    assert_eq!(status["shutdown_room"]["local_aliases"], json!(["#lively:test.example"]));
    assert!(status["purged"]["keys"].as_u64() > Some(100) && status["purged"]["bytes"].as_u64() > Some(5_000));
    assert_eq!(status["error"], Value::Null);
    let by_room = admin.get(&format!("{}/delete_status", v2(&room))).await.ok();
    assert_eq!(by_room, json!({ "results": [status] }));

    let view = server.app().view().unwrap();
    assert_eq!(keys_with(&view, &names), [""; 0]);
    assert_eq!(rooms::block(&view, &room).unwrap().map(|block| block.by), Some(admin.user.clone()));
    drop(view);
    for user in [&anna, &bert] {
        let joined = sorted(&user.get("/joined_rooms").await.ok()["joined_rooms"]);
        let mut expected = vec![other.clone(), new_room.clone()];
        expected.sort();
        assert_eq!(joined, expected);
    }
    assert_eq!(carl.get("/joined_rooms").await.ok()["joined_rooms"], json!([]), "who was invited is not brought in");
    let state = |kind: &str| format!("/rooms/{new_room}/state/{kind}");
    assert_eq!(anna.get(&state("m.room.power_levels")).await.ok()["users_default"], -10);
    assert_eq!(anna.get(&state("m.room.name")).await.ok()["name"], "What was");
    let page = anna.page(&new_room, "dir=b").await;
    assert_eq!(page["chunk"][0]["content"]["body"], "It was deleted.");
    let alias = anna.get("/directory/room/%23lively:test.example").await.ok();
    assert_eq!(alias["room_id"], json!(new_room));

    // Syncs go on, from before and anew.
    for (user, since) in [&anna, &bert, &carl].into_iter().zip(&since) {
        for query in [format!("?since={since}"), String::new(), format!("?since={since}&full_state=true")] {
            let sync = user.get(&format!("/sync{query}")).await.ok();
            assert_eq!(sync["rooms"]["join"][&room], Value::Null);
            assert_eq!(sync["rooms"]["invite"][&room], Value::Null);
            assert_eq!(
                sync["rooms"]["leave"][&room].is_object(),
                !query.is_empty(),
                "who was away hears that it is gone"
            );
        }
        let sync = user.get("/sync?filter=%7B%22room%22:%7B%22include_leave%22:true%7D%7D").await.ok();
        assert_eq!(sync["rooms"]["leave"][&room], Value::Null);
    }
    let unknown = anna.get(&format!("/rooms/{room}/messages?dir=b")).await;
    assert_eq!(unknown.error(), (403, "M_FORBIDDEN"));
    assert_eq!(anna.post(&format!("/join/{room}"), json!({})).await.status, 404);
    assert_eq!(admin.get(&v1(&room)).await.error(), (404, "M_NOT_FOUND"));
    server.finish().await;
}

#[tokio::test]
async fn whoever_waits_for_news_hears_of_the_leaving() {
    let server = TestServer::start().await;
    let admin = server.admin("root").await;
    let anna = server.user("anna").await;
    let room = lively(&[&anna], "lively").await;
    let since = text(&anna.get("/sync").await.ok()["next_batch"]);
    delete(&admin, &v1(&room), json!({ "purge": false })).await.ok();
    let sync = anna.get(&format!("/sync?since={since}")).await.ok();
    let left = &sync["rooms"]["leave"][&room]["timeline"]["events"];
    assert_eq!(left.as_array().unwrap().last().unwrap()["content"]["membership"], "leave", "{sync}");
    server.finish().await;
}

#[tokio::test]
async fn the_first_version_replies_the_result_and_refuses_what_makes_no_sense() {
    let server = TestServer::start().await;
    let admin = server.admin("root").await;
    let anna = server.user("anna").await;
    let room = lively(&[&anna], "lively").await;
    let nothing = json!({ "kicked_users": [], "failed_to_kick_users": [], "local_aliases": [], "new_room_id": null });
    let unknown = "!nowhere:test.example";
    assert_eq!(delete(&admin, &v1(unknown), json!({})).await.ok(), nothing);
    assert_eq!(delete(&admin, &v1(unknown), json!({ "block": true })).await.ok(), nothing);
    assert!(rooms::block(&server.app().view().unwrap(), unknown).unwrap().is_some());

    for path in [v1(&room), v2(&room)] {
        for param in ["block", "purge", "force_purge"] {
            let refused = delete(&admin, &path, json!({ param: "yes" })).await;
            assert_eq!(refused.error(), (400, "M_BAD_JSON"));
            assert_eq!(refused["error"], json!(format!("Param '{param}' must be a boolean, if given")));
        }
        let stranger = delete(&admin, &path, json!({ "new_room_user_id": "@x:other.example" })).await;
        assert_eq!(stranger.error(), (400, "M_UNKNOWN"));
        assert_eq!(stranger["error"], "User must be our own: @x:other.example");
        assert_eq!(delete(&anna, &path, json!({})).await.error(), (403, "M_FORBIDDEN"));
        assert_eq!(admin.send_raw(Method::DELETE, &path, "").await.error(), (400, "M_NOT_JSON"));
    }
    let illegal = delete(&admin, &v2("room"), json!({})).await;
    assert_eq!((illegal.error(), &illegal["error"]), ((400, "M_UNKNOWN"), &json!("room is not a legal room ID")));
    let none = admin.get(&format!("{}/delete_status", v2(&room))).await;
    assert_eq!(none.error(), (404, "M_NOT_FOUND"));
    let none = admin.get("/_synapse/admin/v2/rooms/delete_status/none").await;
    assert_eq!((none.error(), &none["error"]), ((404, "M_NOT_FOUND"), &json!("delete id 'none' not found")));

    // Emptied, but not purged; then purged, when nobody is there any more.
    let emptied = delete(&admin, &v1(&room), json!({ "purge": false })).await.ok();
    assert_eq!(emptied["kicked_users"], json!([anna.user]));
    assert_eq!(admin.get(&v1(&room)).await.ok()["joined_members"], 0);
    assert_eq!(delete(&admin, &v1(&room), json!({})).await.ok(), nothing);
    assert_eq!(admin.get(&v1(&room)).await.error(), (404, "M_NOT_FOUND"));
    server.finish().await;
}

#[tokio::test]
async fn a_deletion_that_fails_says_why_and_keeps_what_it_has_done() {
    let server = TestServer::start().await;
    let admin = server.admin("root").await;
    let (anna, gone) = (server.user("anna").await, server.user("gone").await);
    let room = lively(&[&anna, &gone], "lively").await;
    // The maker of the new room has no account.
    let nobody = json!({ "new_room_user_id": "@nobody:test.example" });
    let id = text(&delete(&admin, &v2(&room), nobody).await.ok()["delete_id"]);
    let status = ended(&admin, &id).await;
    assert_eq!(status["status"], "failed");
    assert!(status["error"].as_str().unwrap().contains("@nobody:test.example"), "{status}");
    assert_eq!(status["shutdown_room"]["kicked_users"], json!([]));

    // Who has no account any more can't be brought out by an administrator, and leaves somewhat later by themselves.
    server.record([AccountDeactivated { user: gone.user.clone(), erase: false }.into()]).await;
    let refused = delete(&admin, &v1(&room), json!({})).await;
    assert_eq!(
        (refused.error(), &refused["error"]),
        ((400, "M_UNKNOWN"), &json!("Users are still joined to this room"))
    );
    let results = admin.get(&format!("{}/delete_status", v2(&room))).await.ok();
    let second = &results["results"][1];
    assert_eq!(
        (&second["status"], &second["error"]),
        (&json!("failed"), &json!("Users are still joined to this room"))
    );
    assert_eq!(second["shutdown_room"]["kicked_users"], json!([anna.user]));
    assert_eq!(second["shutdown_room"]["failed_to_kick_users"], json!([gone.user]));
    let forced = delete(&admin, &v1(&room), json!({ "force_purge": true })).await.ok();
    assert_eq!(forced["new_room_id"], Value::Null);
    assert_eq!(admin.get(&v1(&room)).await.error(), (404, "M_NOT_FOUND"));
    server.finish().await;
}

#[tokio::test]
async fn a_deletion_broken_off_at_every_step_comes_to_the_same_end() {
    let (server, log) = TestServer::with_log(HeldLog::over).await;
    let admin = server.admin("root").await;
    let (anna, bert) = (server.user("anna").await, server.user("bert").await);
    // The shards of work that is done once are taken with the first job.
    delete(&admin, &v1("!nowhere:test.example"), json!({})).await.ok();
    let mut ends = Vec::new();
    for alias in ["whole", "broken"] {
        let room = lively(&[&anna, &bert], alias).await;
        let names = names_of(&server.app().view().unwrap(), &room);
        let before = log.tail();
        log.refuse_each_once(alias == "broken");
        let body = json!({ "block": true, "new_room_user_id": admin.user });
        let id = text(&delete(&admin, &v2(&room), body).await.ok()["delete_id"]);
        if alias == "whole" {
            let second = delete(&admin, &v2(&room), json!({})).await;
            if second.status != 200 {
                assert_eq!(second["error"], json!(format!("Purge already in progress for {room}")));
            }
        }
        let mut end = ended(&admin, &id).await;
        log.refuse_each_once(false);
        assert_eq!(keys_with(&server.app().view().unwrap(), &names), [""; 0]);
        let new_room = text(&end["shutdown_room"]["new_room_id"]);
        let members =
            anna.get(&format!("/rooms/{new_room}/joined_members")).await.ok()["joined"].as_object().unwrap().len();
        let said = anna.page(&new_room, "dir=b").await["chunk"].as_array().unwrap().len();
        // Which of its events count for a room's size is chance.
        end["purged"] = json!(end["purged"]["keys"].as_u64() > Some(200));
        for named in ["delete_id", "room_id"] {
            end[named] = Value::Null;
        }
        end["shutdown_room"]["new_room_id"] = Value::Null;
        end["shutdown_room"]["local_aliases"] = json!(end["shutdown_room"]["local_aliases"].as_array().unwrap().len());
        ends.push((end, members, said, log.tail().0 - before.0));
    }
    assert_eq!(ends[0], ends[1], "as many records, too");
    server.finish().await;
}

/// The nodes that did a job's steps.
fn workers(node: &TestServer, after: Lsn) -> Vec<u32> {
    let entries = node.app().reader.read(after.next(), usize::MAX, usize::MAX).unwrap();
    let records = entries.iter().map(|entry| Record::decode(&entry.bytes).unwrap());
    let steps = records.filter(|record| record.facts.iter().any(|fact| fact.decode().unwrap().name() == "JobAdvanced"));
    let mut workers: Vec<_> = steps.map(|record| record.header.node).collect();
    workers.dedup();
    workers
}

#[tokio::test]
async fn of_two_nodes_one_deletes_and_the_other_goes_on_where_it_is_lost() {
    let nodes = Nodes::start().await;
    let admin = nodes.first.admin("root").await;
    let names = names_of(&nodes.view(), &nodes.room);
    let before = nodes.tail();
    delete(&admin, &v1(&nodes.room), json!({})).await.ok();
    assert_eq!(workers(&nodes.first, before).len(), 1);
    assert_eq!(keys_with(&nodes.view(), &names), [""; 0]);

    // The first node is lost in the middle of a deletion.
    let mut aliases = (0..).map(|n| format!("lively{n}"));
    let room = loop {
        let room = lively(&[&nodes.alice], &aliases.next().unwrap()).await;
        if nodes.first.app().commands.lease(Shard::of(&room)).await.unwrap().is_some() {
            break room;
        }
    };
    let names = names_of(&nodes.view(), &room);
    let before = nodes.tail();
    nodes.log.hold_after(3, usize::MAX);
    let path = v2(&room);
    let begun = tokio::spawn({
        let admin = admin.clone();
        async move { delete(&admin, &path, json!({})).await }
    });
    nodes.log.held().await;
    nodes.first.hub().cut_off(0);
    let over = async || {
        let view = nodes.second.app().view().unwrap();
        let found: Vec<_> = jobs::on(&view, &room).map(|job| job.unwrap().1.status.is_over()).collect();
        found == [true]
    };
    until(over).await;
    nodes.log.hold_after(0, 0);
    nodes.log.release();
    drop(begun.await.unwrap());
    assert!(nodes.first.app().progress.reached(nodes.tail(), PATIENCE).await);
    assert!(workers(&nodes.second, before).len() <= 3);
    let view = nodes.second.app().view().unwrap();
    assert_eq!(keys_with(&view, &names), [""; 0]);
    drop(view);
    nodes.first.hub().reconnect(0);
    nodes.finish().await;
}

#[tokio::test]
async fn large_rooms_are_deleted() {
    let members = std::env::var("EVERFOLD_TEST_MEMBERS").ok().and_then(|n| n.parse().ok()).unwrap_or(150_usize);
    let server = TestServer::start().await;
    let admin = server.admin("root").await;
    let anna = server.user("anna").await;
    let room = anna.create(json!({ "preset": "public_chat" })).await;
    let users: Vec<OwnedUserId> = (0..members).map(|n| format!("@m{n}:test.example").try_into().unwrap()).collect();
    for some in users.chunks(25) {
        let registered = |user: &OwnedUserId| UserRegistered {
            user: user.to_string(),
            password: None,
            admin: false,
            kind: UserKind::Regular,
            registration_token: None,
        };
        server.record(some.iter().map(|user| registered(user).into())).await;
    }
    let commands = Arc::new(server.app().commands.clone());
    let id: OwnedRoomId = room.as_str().try_into().unwrap();
    for some in users.chunks(100) {
        let joins = some.iter().map(|user| {
            let (commands, user, id) = (Arc::clone(&commands), user.clone(), id.clone());
            let sender = Sender::in_stead_of(user.clone(), "test");
            tokio::spawn(async move { commands.change_membership(sender, &id, user, Move::Join, None).await })
        });
        for joined in futures::future::join_all(joins).await {
            joined.unwrap().unwrap();
        }
    }
    drop(commands);
    let names = names_of(&server.app().view().unwrap(), &room);
    let begun = std::time::Instant::now();
    let deleted = delete(&admin, &v1(&room), json!({ "new_room_user_id": admin.user })).await.ok();
    eprintln!("{members} members in {:?}", begun.elapsed());
    assert_eq!(deleted["kicked_users"].as_array().unwrap().len(), members + 1);
    let new_room = text(&deleted["new_room_id"]);
    let joined = admin.get(&format!("/rooms/{new_room}/joined_members")).await.ok();
    assert_eq!(joined["joined"].as_object().unwrap().len(), members + 2);
    // Looking for each of so many names takes longer than to delete them.
    let names: Vec<_> = names.into_iter().take(64).collect();
    assert_eq!(keys_with(&server.app().view().unwrap(), &names), [""; 0]);
    server.finish().await;
}
