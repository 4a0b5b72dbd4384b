use schemas::facts::{
    AccountDeactivated, Claim, CrossSigningKeysSet, DeviceAdded, DeviceRenamed, Epoch, FallbackKeysUploaded, NamedKey,
    OneTimeKeysClaimed, OneTimeKeysUploaded, SignaturesUploaded, SignedObject,
};
use serde_json::{Value, json};

use super::*;
use crate::testing::World;

const ALICE: &str = "@alice:example.org";
const BOB: &str = "@bob:example.org";

fn json(value: &Value) -> Json {
    value.to_string().into()
}

/// Alice with a phone and a desk.
fn world() -> World {
    let mut world = World::new();
    let added = |device: &str| DeviceAdded { user: ALICE.into(), device: device.into(), display_name: None };
    world.apply([added("PHONE").into(), added("DESK").into()]);
    world
}

fn uploaded(device: &str, key: &str) -> Fact {
    let keys = json(&json!({ "keys": { "ed25519:X": key }, "signatures": { ALICE: { "ed25519:X": "own" } } }));
    DeviceKeysUploaded { user: ALICE.into(), device: device.into(), keys }.into()
}

fn one_time(ids: &[&str]) -> Fact {
    let keys = ids.iter().map(|id| NamedKey { id: (*id).into(), key: json(&json!(format!("key of {id}"))) }).collect();
    OneTimeKeysUploaded { user: ALICE.into(), device: "PHONE".into(), keys }.into()
}

fn fallback(id: &str) -> Fact {
    let keys = vec![NamedKey { id: id.into(), key: json(&json!({ "fallback": true })) }];
    FallbackKeysUploaded { user: ALICE.into(), device: "PHONE".into(), keys }.into()
}

/// The ids of the keys that some claims of one record get.
fn claim(world: &mut World, algorithms: &[&str]) -> Vec<Option<String>> {
    let claim = |algorithm: &&str| Claim { user: ALICE.into(), device: "PHONE".into(), algorithm: (*algorithm).into() };
    let lsn = world.apply([OneTimeKeysClaimed { claims: algorithms.iter().map(claim).collect() }.into()]);
    claimed(&world.view(), lsn).unwrap().into_iter().map(|claimed| claimed.key.map(|(id, _)| id)).collect()
}

fn phone_counts(world: &World) -> Vec<(String, u64)> {
    counts(&world.view(), ALICE, "PHONE").unwrap().into_iter().collect()
}

fn signed(signer: &str, user: &str, key: &str, signature: &str) -> Fact {
    let signatures =
        json(&json!({ signer: { "ed25519:S": signature }, "@eve:example.org": { "ed25519:E": "forged" } }));
    let object = SignedObject { user: user.into(), key: key.into(), signatures };
    SignaturesUploaded { signer: signer.into(), objects: vec![object] }.into()
}

fn changed_since(world: &World, after: Lsn) -> Vec<String> {
    changed_after(&world.view(), after).map(|row| row.unwrap().1).collect()
}

fn changed_for_since(world: &World, who: &str, after: Lsn) -> Vec<String> {
    changed_for_after(&world.view(), who, after).map(|row| row.unwrap().1).collect()
}

#[test]
fn each_one_time_key_is_given_away_once_and_then_the_fallback_key() {
    let mut world = world();
    world.apply([one_time(&["c:B", "c:A", "d:A"]), fallback("c:F")]);
    world.apply([one_time(&["c:A", "c:0"])]);
    assert_eq!(phone_counts(&world), [("c".into(), 3), ("d".into(), 1)]);
    assert_eq!(unused_fallback_types(&world.view(), ALICE, "PHONE").unwrap(), ["c"]);
    let key = |world: &World, id| one_time_key(&world.view(), ALICE, "PHONE", id).unwrap();
    assert_eq!(key(&world, "c:A"), Some(json(&json!("key of c:A"))));
    assert_eq!(key(&world, "c:F"), None);
    let fallback_id = |algorithm| fallback_key(&world.view(), ALICE, "PHONE", algorithm).unwrap().map(|(id, _)| id);
    assert_eq!((fallback_id("c"), fallback_id("d")), (Some("c:F".into()), None));

    let ids = |ids: &[&str]| ids.iter().map(|id| Some((*id).to_owned())).collect::<Vec<_>>();
    assert_eq!(claim(&mut world, &["c", "c"]), ids(&["c:A", "c:B"]));
    assert_eq!(key(&world, "c:A"), None);
    assert_eq!(phone_counts(&world), [("c".into(), 1), ("d".into(), 1)]);
    assert_eq!(claim(&mut world, &["c", "c", "c"]), ids(&["c:0", "c:F", "c:F"]));
    assert_eq!(unused_fallback_types(&world.view(), ALICE, "PHONE").unwrap(), [""; 0]);
    assert_eq!(claim(&mut world, &["d", "d"]), [Some("d:A".into()), None]);

    world.apply([fallback("c:G"), one_time(&["c:A"])]);
    assert_eq!(unused_fallback_types(&world.view(), ALICE, "PHONE").unwrap(), ["c"]);
    assert_eq!(claim(&mut world, &["c", "c"]), ids(&["c:A", "c:G"]));
    world.check_replay();
}

#[test]
fn an_id_that_is_there_keeps_its_first_key() {
    let mut world = world();
    let again = NamedKey { id: "c:A".into(), key: json(&json!("another")) };
    world.apply([one_time(&["c:A"])]);
    world.apply([OneTimeKeysUploaded { user: ALICE.into(), device: "PHONE".into(), keys: vec![again] }.into()]);
    let claim = Claim { user: ALICE.into(), device: "PHONE".into(), algorithm: "c".into() };
    let lsn = world.apply([OneTimeKeysClaimed { claims: vec![claim] }.into()]);
    let got = claimed(&world.view(), lsn).unwrap().remove(0).key;
    assert_eq!(got, Some(("c:A".into(), json(&json!("key of c:A")))));
    assert_eq!(phone_counts(&world), [("c".into(), 0)]);
}

#[test]
fn what_claims_got_is_forgotten_in_time() {
    let mut world = world();
    world.apply([fallback("c:F")]);
    claim(&mut world, &["c", "c", "c"]);
    let first = world.view().lsn();
    for _ in 0..7 {
        world.wait_ms(600_000);
        world.apply([]);
    }
    claim(&mut world, &["c"]);
    assert_eq!(claimed(&world.view(), first).unwrap(), []);
    assert_eq!(claimed(&world.view(), world.view().lsn()).unwrap().len(), 1);
    world.check_replay();
}

#[test]
fn a_restore_drops_what_may_have_been_given_away() {
    let mut world = world();
    world.apply([one_time(&["c:A"]), fallback("c:F")]);
    world.apply([Epoch { fork: Lsn(2), chain: schemas::Chain::default() }.into()]);
    assert_eq!(phone_counts(&world), []);
    assert_eq!(unused_fallback_types(&world.view(), ALICE, "PHONE").unwrap(), [""; 0]);
    assert_eq!(claim(&mut world, &["c"]), [Some("c:F".into())]);
    world.apply([one_time(&["c:A"])]);
    assert_eq!(phone_counts(&world), [("c".into(), 1)]);
    world.check_replay();
}

#[test]
fn keys_of_a_device_that_is_not_there_are_dropped() {
    let mut world = World::new();
    world.apply([uploaded("PHONE", "k"), one_time(&["c:A"]), fallback("c:F")]);
    assert_eq!(of_device(&world.view(), ALICE, "PHONE", ALICE).unwrap(), None);
    assert_eq!(claim(&mut world, &["c"]), [None]);
}

#[test]
fn device_lists_change_with_keys_and_names_and_end_with_the_device() {
    let mut world = world();
    let start = world.view().lsn();
    let renamed = |device: &str| DeviceRenamed { user: ALICE.into(), device: device.into(), display_name: None };
    world.apply([renamed("PHONE").into(), one_time(&["c:A"])]);
    assert_eq!(changed_since(&world, start), [""; 0]);

    let applied = world.fold([uploaded("PHONE", "k")]);
    assert_eq!(applied.touched.device_lists.into_iter().collect::<Vec<_>>(), [ALICE]);
    assert_eq!(changed_since(&world, start), [ALICE]);
    let first = world.view().lsn();
    assert_eq!(changed_since(&world, first), [""; 0]);
    world.apply([uploaded("PHONE", "k")]);
    assert_eq!(changed_since(&world, first), [""; 0]);

    world.apply([renamed("PHONE").into()]);
    assert_eq!(changed_since(&world, first), [ALICE]);
    let second = last_change(&world.view(), ALICE).unwrap().unwrap();
    world.apply([DeviceRemoved { user: ALICE.into(), device: "PHONE".into() }.into()]);
    assert_eq!(changed_since(&world, second), [ALICE]);
    assert_eq!(changed_since(&world, Lsn::ZERO), [ALICE]);
    let last = world.view().lsn();
    for (after, until, expected) in [
        (start, first, true),
        (first, second, true),
        (second, last, true),
        (start, start, false),
        (last, Lsn::MAX, false),
    ] {
        assert_eq!(has_changed(&world.view(), ALICE, after, until).unwrap(), expected, "{after} {until}");
    }
    assert_eq!(of_user(&world.view(), ALICE, ALICE).unwrap(), []);
    assert_eq!(phone_counts(&world), []);
    world.check_replay();
}

#[test]
fn signatures_are_seen_by_the_owner_of_the_key_or_the_signer() {
    let mut world = world();
    world.apply([uploaded("PHONE", "k")]);
    let start = world.view().lsn();
    let seen_by = |world: &World, asker| {
        let keys: Value = of_device(&world.view(), ALICE, "PHONE", asker).unwrap().unwrap().read().unwrap();
        keys["signatures"].clone()
    };
    let own = json!({ "ed25519:X": "own", "ed25519:S": "one" });
    world.apply([signed(ALICE, ALICE, "PHONE", "one")]);
    assert_eq!(changed_since(&world, start), [ALICE]);
    assert_eq!(seen_by(&world, BOB), json!({ ALICE: own }));

    let start = world.view().lsn();
    let applied = world.fold([signed(BOB, ALICE, "PHONE", "two")]);
    assert_eq!(applied.touched.users.into_iter().collect::<Vec<_>>(), [BOB]);
    assert_eq!(changed_since(&world, start), [""; 0]);
    assert_eq!(changed_for_since(&world, BOB, start), [ALICE]);
    assert_eq!(changed_for_since(&world, ALICE, start), [""; 0]);
    assert_eq!(seen_by(&world, BOB), json!({ ALICE: own, BOB: { "ed25519:S": "two" } }));
    assert_eq!(seen_by(&world, ALICE), json!({ ALICE: own }));

    let start = world.view().lsn();
    world.apply([signed(BOB, ALICE, "PHONE", "two")]);
    assert_eq!(changed_for_since(&world, BOB, start), [""; 0]);
    world.apply([uploaded("PHONE", "new")]);
    assert_eq!(seen_by(&world, BOB), json!({ ALICE: { "ed25519:X": "own" } }));
    world.check_replay();
}

#[test]
fn cross_signing_keys_are_public_but_for_the_user_signing_key() {
    let mut world = world();
    let cross_key = |public: &str| Some(json(&json!({ "keys": { format!("ed25519:{public}"): public } })));
    let start = world.view().lsn();
    let set = |master, self_signing, user_signing| -> Fact {
        CrossSigningKeysSet { user: ALICE.into(), master, self_signing, user_signing }.into()
    };
    world.apply([set(cross_key("M"), cross_key("S"), cross_key("U"))]);
    assert_eq!(changed_since(&world, start), [ALICE]);
    assert_eq!(cross_signing(&world.view(), ALICE, ALICE).unwrap().user_signing, cross_key("U"));
    assert_eq!(cross_signing(&world.view(), ALICE, BOB).unwrap().user_signing, None);

    let start = world.view().lsn();
    world.apply([set(None, None, cross_key("V"))]);
    assert_eq!(changed_since(&world, start), [""; 0]);
    assert_eq!(changed_for_since(&world, ALICE, start), [ALICE]);
    assert_eq!(cross_signing(&world.view(), ALICE, ALICE).unwrap().master, cross_key("M"));

    world.apply([signed(BOB, ALICE, "M", "trust")]);
    let master = |asker| cross_signing(&world.view(), ALICE, asker).unwrap().master.unwrap();
    assert_eq!(public_part(&master(BOB)).as_deref(), Some("M"));
    assert_eq!(master(BOB).read::<Value>().unwrap()["signatures"][BOB], json!({ "ed25519:S": "trust" }));
    assert_eq!(Some(master(ALICE)), cross_key("M"));

    let start = world.view().lsn();
    world.apply([AccountDeactivated { user: ALICE.into(), erase: false }.into()]);
    assert_eq!(changed_since(&world, start), [ALICE]);
    assert_eq!(cross_signing(&world.view(), ALICE, ALICE).unwrap(), CrossSigning::default());
    world.check_replay();
}
