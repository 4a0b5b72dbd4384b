use std::collections::{BTreeMap, HashSet};

use futures::future::join_all;
use schemas::{
    Fact,
    facts::{DeviceAdded, NamedKey, OneTimeKeysUploaded},
};
use serde_json::{Value, json};

use crate::common::{Client, SigningKey, TestServer};

fn one_time_keys(range: std::ops::Range<usize>) -> Value {
    range.map(|n| (format!("signed_curve25519:K{n:03}"), one_time_key(n))).collect::<serde_json::Map<_, _>>().into()
}

fn one_time_key(n: usize) -> Value {
    let signature = json!({ "@u:test.example": { "ed25519:D": "c2ln" } });
    json!({ "key": format!("{n:0>43}"), "signatures": signature })
}

async fn upload(user: &Client, body: Value) -> Value {
    user.post("/keys/upload", body).await.ok()["one_time_key_counts"].clone()
}

/// The keys that somebody sees of a user.
async fn query(asker: &Client, user: &str) -> Value {
    asker.post("/keys/query", json!({ "device_keys": { user: [] } })).await.ok()
}

/// Claims a key of each of some devices, and gives them by device.
async fn claim(asker: &Client, of: &[&Client], algorithm: &str) -> Value {
    let mut wanted = BTreeMap::<&str, BTreeMap<&str, &str>>::new();
    for user in of {
        wanted.entry(&user.user).or_default().insert(&user.device, algorithm);
    }
    asker.post("/keys/claim", json!({ "one_time_keys": wanted })).await.ok()["one_time_keys"].clone()
}

#[tokio::test]
async fn device_keys_are_uploaded_and_queried() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let tablet = alice.on_device("TABLET").await;
    let key = SigningKey::of_device(&alice.device);
    let mut keys = key.device_keys(&alice);
    upload(&alice, json!({ "device_keys": keys })).await;
    let name = json!({ "display_name": "Alice's desk" });
    alice.put(&format!("/devices/{}", alice.device), name).await.ok();

    keys["unsigned"] = json!({ "device_display_name": "Alice's desk" });
    let seen = query(&bob, &alice.user).await;
    assert_eq!(seen["device_keys"], json!({ alice.user.clone(): { alice.device.clone(): keys } }));
    assert_eq!(seen["failures"], Value::Null);
    let devices = json!([tablet.device, alice.device, "NONE"]);
    let some = bob.post("/keys/query", json!({ "device_keys": { alice.user.clone(): devices } })).await.ok();
    assert_eq!(some["device_keys"], seen["device_keys"]);

    // Somebody without keys is there, nobody is not, and others can't be reached.
    assert_eq!(query(&alice, &bob.user).await["device_keys"], json!({ bob.user.clone(): {} }));
    assert_eq!(query(&alice, "@nobody:test.example").await, json!({}));
    let other = query(&alice, "@x:elsewhere.example").await;
    assert_eq!(other["failures"]["elsewhere.example"]["status"], 503);

    // What came already is not recorded again.
    let before = server.app().view().unwrap().lsn();
    keys.as_object_mut().unwrap().remove("unsigned");
    upload(&alice, json!({ "device_keys": keys })).await;
    assert_eq!(server.app().view().unwrap().lsn(), before);
    server.finish().await;
}

#[tokio::test]
async fn keys_that_are_not_the_devices_are_refused() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let keys = SigningKey::of_device(&alice.device).device_keys(&alice);
    let of = async |user: &Client, keys: Value| user.post("/keys/upload", json!({ "device_keys": keys })).await;
    assert_eq!(of(&bob, keys.clone()).await.error(), (400, "M_INVALID_PARAM"));
    assert_eq!(of(&alice.on_device("TABLET").await, keys.clone()).await.error(), (400, "M_INVALID_PARAM"));
    let ids = json!({ "user_id": alice.user, "device_id": alice.device });
    assert_eq!(of(&alice, ids).await.error(), (400, "M_BAD_JSON"));
    assert_eq!(of(&alice, json!([])).await.error(), (400, "M_BAD_JSON"));
    let mut changed = keys.clone();
    changed["algorithms"] = json!(["m.other"]);
    assert_eq!(of(&alice, changed).await.error(), (400, "M_INVALID_SIGNATURE"));
    let mut fraction = keys.clone();
    fraction["org.example.n"] = json!(1.5);
    assert_eq!(of(&alice, fraction).await.error(), (400, "M_BAD_JSON"));
    assert_eq!(query(&bob, &alice.user).await["device_keys"], json!({ alice.user.clone(): {} }));

    // A claim to somebody else's signature is not recorded, nor is what only servers say.
    let mut others = keys.clone();
    others["signatures"]["@bob:test.example"] = json!({ "ed25519:X": "c2ln" });
    others["unsigned"] = json!({ "device_display_name": "somebody else's" });
    of(&alice, others).await.ok();
    assert_eq!(query(&bob, &alice.user).await["device_keys"][&alice.user][&alice.device], keys);
    server.finish().await;
}

#[tokio::test]
async fn one_time_keys_are_given_away_in_order_and_then_the_fallback_key() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    assert_eq!(upload(&alice, json!({})).await, json!({ "signed_curve25519": 0 }));
    assert_eq!(upload(&alice, json!({ "one_time_keys": one_time_keys(1..3) })).await["signed_curve25519"], 2);
    assert_eq!(upload(&alice, json!({ "one_time_keys": one_time_keys(0..2) })).await["signed_curve25519"], 3);
    let of_alice = |n: usize| {
        let key = json!({ format!("signed_curve25519:K{n:03}"): one_time_key(n) });
        json!({ alice.user.clone(): { alice.device.clone(): key } })
    };
    for expected in [1, 2, 0] {
        assert_eq!(claim(&bob, &[&alice], "signed_curve25519").await, of_alice(expected));
    }
    let before = server.app().view().unwrap().lsn();
    assert_eq!(claim(&bob, &[&alice, &bob], "signed_curve25519").await, json!({}));
    assert_eq!(server.app().view().unwrap().lsn(), before, "where nothing is left, nothing is claimed");

    let mut fallback = one_time_key(9);
    fallback["fallback"] = json!(true);
    let fallback = json!({ "signed_curve25519:F": fallback });
    upload(&alice, json!({ "fallback_keys": fallback, "one_time_keys": one_time_keys(7..8) })).await;
    assert_eq!(claim(&bob, &[&alice], "signed_curve25519").await, of_alice(7));
    for _ in 0..2 {
        let got = claim(&bob, &[&alice], "signed_curve25519").await;
        assert_eq!(got, json!({ alice.user.clone(): { alice.device.clone(): fallback } }));
    }
    assert_eq!(claim(&bob, &[&alice], "curve25519").await, json!({}));
    let elsewhere = json!({ "one_time_keys": { "@x:elsewhere.example": { "D": "signed_curve25519" } } });
    assert_eq!(bob.post("/keys/claim", elsewhere).await.ok()["failures"]["elsewhere.example"]["status"], 503);
    server.finish().await;
}

#[tokio::test]
async fn another_key_under_an_id_that_is_there_is_refused() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let keys = |id: &str, key: Value| json!({ "one_time_keys": { id: key } });
    upload(&alice, keys("signed_curve25519:K", one_time_key(1))).await;
    let other = alice.post("/keys/upload", keys("signed_curve25519:K", one_time_key(2))).await;
    assert_eq!(other.error(), (400, "M_INVALID_PARAM"));
    // The same key, signed anew.
    let mut again = one_time_key(1);
    again["signatures"]["@u:test.example"]["ed25519:D"] = json!("b3RoZXI");
    assert_eq!(upload(&alice, keys("signed_curve25519:K", again)).await["signed_curve25519"], 1);
    let bad = [
        ("signed_curve25519:L", json!("text")),
        ("signed_curve25519:L", json!({ "key": "AAAA" })),
        ("curve25519:L", json!(7)),
        ("curve25519:L", json!({ "key": "x".repeat(40_000) })),
        ("nonsense", json!("text")),
    ];
    for (id, key) in bad {
        let (status, _) = alice.post("/keys/upload", keys(id, key.clone())).await.error();
        assert!([400, 413].contains(&status), "{id} {key}");
    }
    let two = json!({ "fallback_keys": { "curve25519:A": "a", "curve25519:B": "b" } });
    assert_eq!(alice.post("/keys/upload", two).await.error(), (400, "M_INVALID_PARAM"));
    let many = json!({ "one_time_keys": one_time_keys(0..1_001) });
    assert_eq!(alice.post("/keys/upload", many).await.error(), (413, "M_TOO_LARGE"));
    server.finish().await;
}

#[tokio::test]
async fn contended_one_time_keys_go_to_one_claim_each() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    upload(&alice, json!({ "one_time_keys": one_time_keys(0..30) })).await;
    let of_alice = [&alice];
    let claims = join_all((0..60).map(|_| claim(&bob, &of_alice, "signed_curve25519"))).await;
    let ids = |claim: &Value| -> Vec<String> {
        let keys = claim[&alice.user][&alice.device].as_object();
        keys.into_iter().flat_map(|keys| keys.keys().cloned()).collect()
    };
    let given: Vec<String> = claims.iter().flat_map(ids).collect();
    assert_eq!(given.len(), 30);
    assert_eq!(given.iter().collect::<HashSet<_>>().len(), 30);
    assert_eq!(upload(&alice, json!({})).await["signed_curve25519"], 0);
    server.finish().await;
}

#[tokio::test]
async fn more_keys_can_be_claimed_than_one_record_claims() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let device = |n: usize| format!("DEVICE{n}");
    let of_device = |n: usize| -> [Fact; 2] {
        let (user, device) = (alice.user.clone(), device(n));
        let keys = vec![NamedKey { id: "c:K".into(), key: "\"key\"".to_owned().into() }];
        let added = DeviceAdded { user: user.clone(), device: device.clone(), display_name: None };
        [added.into(), OneTimeKeysUploaded { user, device, keys }.into()]
    };
    server.record((0..600).flat_map(of_device)).await;
    let devices: BTreeMap<String, &str> = (0..600).map(|n| (device(n), "c")).collect();
    let wanted = json!({ "one_time_keys": { alice.user.clone(): devices } });
    let claimed = bob.post("/keys/claim", wanted).await.ok();
    assert_eq!(claimed["one_time_keys"][&alice.user].as_object().unwrap().len(), 600);
    server.finish().await;
}

/// A user's three cross-signing keys.
struct CrossSigning {
    master: SigningKey,
    self_signing: SigningKey,
    user_signing: SigningKey,
}

impl CrossSigning {
    fn new() -> Self {
        let new = SigningKey::of_user;
        Self { master: new(), self_signing: new(), user_signing: new() }
    }

    fn upload(&self, user: &str) -> Value {
        let signed = |key: &SigningKey, usage| self.master.sign(user, key.cross_signing_key(user, usage));
        json!({
            "master_key": self.master.cross_signing_key(user, "master"),
            "self_signing_key": signed(&self.self_signing, "self_signing"),
            "user_signing_key": signed(&self.user_signing, "user_signing"),
        })
    }
}

#[tokio::test]
async fn cross_signing_keys_come_freely_once_and_are_replaced_with_a_password() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let path = "/keys/device_signing/upload";
    let (first, second) = (CrossSigning::new().upload(&alice.user), CrossSigning::new().upload(&alice.user));
    alice.post(path, first.clone()).await.ok();
    let before = server.app().view().unwrap().lsn();
    alice.post(path, first.clone()).await.ok();
    assert_eq!(server.app().view().unwrap().lsn(), before);

    let own = query(&alice, &alice.user).await;
    assert_eq!(own["master_keys"][&alice.user], first["master_key"]);
    assert_eq!(own["self_signing_keys"][&alice.user], first["self_signing_key"]);
    assert_eq!(own["user_signing_keys"][&alice.user], first["user_signing_key"]);
    let seen = query(&bob, &alice.user).await;
    assert_eq!(seen["master_keys"][&alice.user], first["master_key"]);
    assert_eq!(seen["user_signing_keys"], Value::Null);

    let challenge = alice.post(path, second.clone()).await;
    assert_eq!((challenge.status.as_u16(), challenge["errcode"].as_str()), (401, None));
    assert_eq!(query(&bob, &alice.user).await["master_keys"][&alice.user], first["master_key"]);
    let mut confirmed = second.clone();
    confirmed["auth"] = alice.password_auth("password of alice");
    confirmed["auth"]["session"] = challenge["session"].clone();
    alice.post(path, confirmed).await.ok();
    assert_eq!(query(&bob, &alice.user).await["master_keys"][&alice.user], second["master_key"]);
    server.finish().await;
}

#[tokio::test]
async fn cross_signing_keys_must_be_in_order() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let keys = CrossSigning::new().upload(&alice.user);
    let refused = async |edit: &dyn Fn(&mut Value)| {
        let mut keys = keys.clone();
        edit(&mut keys);
        let reply = alice.post("/keys/device_signing/upload", keys).await;
        let (status, code) = reply.error();
        format!("{status} {code}")
    };
    let other = CrossSigning::new().upload(&alice.user);
    let without = |name: &'static str| move |keys: &mut Value| drop(keys.as_object_mut().unwrap().remove(name));
    assert_eq!(refused(&without("master_key")).await, "400 M_MISSING_PARAM");
    assert_eq!(
        refused(&|keys| keys["self_signing_key"] = other["self_signing_key"].clone()).await,
        "400 M_INVALID_SIGNATURE"
    );
    assert_eq!(refused(&|keys| keys["user_signing_key"]["signatures"] = json!({})).await, "400 M_INVALID_SIGNATURE");
    assert_eq!(refused(&|keys| keys["master_key"]["usage"] = json!(["self_signing"])).await, "400 M_INVALID_PARAM");
    assert_eq!(refused(&|keys| keys["master_key"]["user_id"] = json!(bob.user)).await, "400 M_INVALID_PARAM");
    assert_eq!(refused(&|keys| keys["master_key"]["keys"] = json!({})).await, "400 M_INVALID_PARAM");
    assert_eq!(refused(&|keys| keys["master_key"]["keys"] = json!({ "ed25519:a": "b" })).await, "400 M_INVALID_PARAM");
    assert_eq!(refused(&|keys| keys["master_key"] = json!(7)).await, "400 M_BAD_JSON");

    // A device with the name of the key.
    let public = keys["master_key"]["keys"].as_object().unwrap().values().next().unwrap().as_str().unwrap();
    alice.on_device(public).await;
    assert_eq!(refused(&|_| {}).await, "403 M_FORBIDDEN");
    server.finish().await;
}

#[tokio::test]
async fn signatures_are_taken_one_by_one_and_seen_by_whom_they_concern() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let carol = server.user("carol").await;
    let (keys, device) = (CrossSigning::new(), SigningKey::of_device(&alice.device));
    let of_bob = CrossSigning::new();
    let device_keys = device.device_keys(&alice);
    upload(&alice, json!({ "device_keys": device_keys })).await;
    alice.post("/keys/device_signing/upload", keys.upload(&alice.user)).await.ok();
    bob.post("/keys/device_signing/upload", of_bob.upload(&bob.user)).await.ok();

    let master = keys.master.cross_signing_key(&alice.user, "master");
    let bobs = of_bob.master.cross_signing_key(&bob.user, "master");
    let signed_device = keys.self_signing.sign(&alice.user, device_keys.clone());
    let signed_master = device.sign(&alice.user, master.clone());
    let signed_bob = keys.user_signing.sign(&alice.user, bobs.clone());
    let reply = alice
        .post(
            "/keys/signatures/upload",
            json!({
                alice.user.clone(): {
                    alice.device.clone(): signed_device.clone(),
                    keys.master.public.clone(): signed_master,
                    "NONE": signed_device.clone(),
                },
                bob.user.clone(): {
                    of_bob.master.public.clone(): signed_bob,
                    of_bob.self_signing.public.clone(): bobs,
                },
            }),
        )
        .await
        .ok();
    let failures = &reply["failures"];
    assert_eq!(failures[&alice.user].as_object().unwrap().len(), 1, "{failures}");
    assert_eq!(failures[&alice.user]["NONE"]["errcode"], "M_NOT_FOUND");
    assert_eq!(failures[&bob.user].as_object().unwrap().len(), 1, "{failures}");
    assert_eq!(failures[&bob.user][&of_bob.self_signing.public]["errcode"], "M_NOT_FOUND");

    let signers = async |asker: &Client, user: &Client, of: &str| {
        let seen = query(asker, &user.user).await;
        let key = if of == "master" { &seen["master_keys"][&user.user] } else { &seen["device_keys"][&user.user][of] };
        let by_user = key["signatures"].as_object().cloned().unwrap_or_default();
        by_user.iter().map(|(user, keys)| (user.clone(), keys.as_object().unwrap().len())).collect::<Vec<_>>()
    };
    assert_eq!(signers(&carol, &alice, &alice.device).await, [(alice.user.clone(), 2)]);
    assert_eq!(signers(&carol, &alice, "master").await, [(alice.user.clone(), 1)]);
    assert_eq!(signers(&alice, &bob, "master").await, [(alice.user.clone(), 1)]);
    assert_eq!(signers(&bob, &bob, "master").await, [], "whom others trust is theirs to know");
    assert_eq!(signers(&carol, &bob, "master").await, []);
    server.finish().await;
}

#[tokio::test]
async fn wrong_signatures_fail() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let (keys, device) = (CrossSigning::new(), SigningKey::of_device(&alice.device));
    let device_keys = device.device_keys(&alice);
    upload(&alice, json!({ "device_keys": device_keys })).await;
    let refused = async |user: &Client, of: &str, key: &str, object: Value| {
        let reply = user.post("/keys/signatures/upload", json!({ of: { key: object } })).await.ok();
        reply["failures"][of][key]["errcode"].as_str().unwrap_or("taken").to_owned()
    };
    let signed = keys.self_signing.sign(&alice.user, device_keys.clone());
    // There is no self-signing key yet.
    assert_eq!(refused(&alice, &alice.user, &alice.device, signed.clone()).await, "M_INVALID_SIGNATURE");
    alice.post("/keys/device_signing/upload", keys.upload(&alice.user)).await.ok();
    let mut changed = device_keys.clone();
    changed["algorithms"] = json!([]);
    let changed = keys.self_signing.sign(&alice.user, changed);
    assert_eq!(refused(&alice, &alice.user, &alice.device, changed).await, "M_INVALID_SIGNATURE");
    let by_another = SigningKey::of_user().sign(&alice.user, device_keys.clone());
    assert_eq!(refused(&alice, &alice.user, &alice.device, by_another).await, "M_INVALID_SIGNATURE");
    let mut forged = signed.clone();
    let own = format!("ed25519:{}", keys.self_signing.public);
    forged["signatures"][&alice.user][&own] =
        forged["signatures"][&alice.user][format!("ed25519:{}", alice.device)].clone();
    assert_eq!(refused(&alice, &alice.user, &alice.device, forged).await, "M_INVALID_SIGNATURE");
    assert_eq!(refused(&alice, &alice.user, &alice.device, device_keys).await, "M_INVALID_SIGNATURE");
    assert_eq!(refused(&alice, &alice.user, &alice.device, json!(7)).await, "M_BAD_JSON");
    // Nobody signs the devices of others.
    assert_eq!(refused(&bob, &alice.user, &alice.device, signed.clone()).await, "M_NOT_FOUND");
    assert_eq!(refused(&alice, &alice.user, &alice.device, signed).await, "taken");
    server.finish().await;
}

#[tokio::test]
async fn whose_devices_changed_is_told_to_those_who_share_a_room() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let carol = server.user("carol").await;
    let encryption = json!([{ "type": "m.room.encryption", "content": { "algorithm": "m.megolm.v1.aes-sha2" } }]);
    let room = alice.create(json!({ "preset": "public_chat", "initial_state": encryption })).await;
    let token = async || alice.get("/sync").await.ok()["next_batch"].as_str().unwrap().to_owned();
    let changes = async |from: &str| {
        let to = token().await;
        let mut changes = alice.get(&format!("/keys/changes?from={from}&to={to}")).await.ok();
        let mut users = |kind: &str| changes[kind].take().as_array().cloned().unwrap_or_default();
        (users("changed"), users("left"))
    };
    let start = token().await;
    upload(&bob, json!({ "device_keys": SigningKey::of_device(&bob.device).device_keys(&bob) })).await;
    upload(&carol, json!({ "device_keys": SigningKey::of_device(&carol.device).device_keys(&carol) })).await;
    assert_eq!(changes(&start).await, (vec![], vec![]));
    bob.join(&room).await;
    assert_eq!(changes(&start).await, (vec![json!(bob.user)], vec![]));

    let joined = token().await;
    assert_eq!(changes(&joined).await, (vec![], vec![]));
    bob.put(&format!("/devices/{}", bob.device), json!({ "display_name": "new" })).await.ok();
    assert_eq!(changes(&joined).await, (vec![json!(bob.user)], vec![]));
    let renamed = token().await;
    bob.post(&format!("/rooms/{room}/leave"), json!({})).await.ok();
    assert_eq!(changes(&renamed).await, (vec![], vec![json!(bob.user)]));

    for nonsense in ["", "s", "12", "s1_b"] {
        let refused = alice.get(&format!("/keys/changes?from={nonsense}&to={renamed}")).await;
        assert_eq!(refused.error(), (400, "M_INVALID_PARAM"), "{nonsense}");
    }
    let missing = alice.get(&format!("/keys/changes?from={renamed}")).await;
    assert_eq!(missing.status, 400);
    server.finish().await;
}
