//! Random histories of this server's users: whatever comes in whatever order folds, replays to the same, and keeps what
//! must hold.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use schemas::{Blob, Fact, Json, Lsn, Part, facts::*};
use serde_json::json;

use super::{devices, keys, seen, to_device};
use crate::testing::World;

/// A user, one of three.
fn user() -> impl Strategy<Value = String> {
    (0..3_u8).prop_map(|n| format!("@user{n}:example.org"))
}

/// A user's device, one of three.
fn device() -> impl Strategy<Value = (String, String)> {
    (user(), (0..3_u8).prop_map(|n| format!("DEVICE{n}")))
}

/// A token, so few that they meet again.
fn token() -> impl Strategy<Value = Blob> {
    (0..12_u8).prop_map(|n| Blob(vec![n; 32]))
}

/// Keys with ids that come again.
fn named() -> impl Strategy<Value = Vec<NamedKey>> {
    let key = (0..2_u8, 0..4_u8).prop_map(move |(algorithm, id)| NamedKey {
        id: format!("algorithm{algorithm}:{id}"),
        key: Json::of(&json!({ "fallback": true })).unwrap(),
    });
    prop::collection::vec(key, 0..4)
}

fn account_fact() -> impl Strategy<Value = Fact> {
    prop_oneof![
        4 => (user(), any::<bool>(), any::<bool>()).prop_map(|(user, admin, token)| {
            let registration_token = token.then(|| "token".to_owned());
            let password = Some(Part::clear("hash"));
            UserRegistered { user, password, admin, kind: UserKind::Regular, registration_token }.into()
        }),
        1 => user().prop_map(|user| PasswordSet { user, password: None }.into()),
        1 => user().prop_map(|user| AccountReactivated { user }.into()),
        1 => (user(), any::<bool>()).prop_map(|(user, admin)| AdminSet { user, admin }.into()),
        1 => (user(), any::<bool>()).prop_map(|(user, banned)| ShadowBanSet { user, banned }.into()),
        1 => (user(), any::<bool>()).prop_map(|(user, erase)| AccountDeactivated { user, erase }.into()),
        1 => (user(), any::<bool>()).prop_map(|(user, locked)| {
            AccountStatusSet { user, locked, suspended: !locked }.into()
        }),
        1 => any::<Option<u64>>().prop_map(|uses_allowed| {
            RegistrationTokenSet { token: "token".into(), uses_allowed, expires_at_ms: None }.into()
        }),
    ]
}

fn device_fact() -> impl Strategy<Value = Fact> {
    prop_oneof![
        4 => device().prop_map(|(user, device)| DeviceAdded { user, device, display_name: None }.into()),
        1 => device().prop_map(|(user, device)| {
            DeviceRenamed { user, device, display_name: Some("name".into()) }.into()
        }),
        1 => device().prop_map(|(user, device)| DeviceRemoved { user, device }.into()),
        3 => (device(), token(), prop::option::of(token())).prop_map(|((user, device), access, refresh)| {
            SessionOpened { user, device, access, access_expires_at_ms: None, refresh }.into()
        }),
        3 => (device(), token(), token(), token()).prop_map(|((user, device), used, access, refresh)| {
            SessionRefreshed { user, device, used, access, access_expires_at_ms: Some(1), refresh }.into()
        }),
        1 => (device(), token(), 1_700_000_000_000..1_700_000_060_000_u64).prop_map(|((user, device), token, end)| {
            LoginTokenIssued { token, user, device, expires_at_ms: end }.into()
        }),
        1 => token().prop_map(|token| LoginTokenUsed { token }.into()),
    ]
}

fn identity_fact() -> impl Strategy<Value = Fact> {
    let part = || Part::clear("x");
    prop_oneof![
        2 => (user(), token()).prop_map(move |(user, hash)| {
            ThirdPartyIdAdded { user, hash, medium: "email".into(), address: part(), validated_at_ms: 1 }.into()
        }),
        1 => (user(), token()).prop_map(|(user, hash)| ThirdPartyIdRemoved { user, hash }.into()),
        2 => (user(), token()).prop_map(move |(user, hash)| {
            ExternalIdAdded { user, hash, provider: "p".into(), id: part() }.into()
        }),
        1 => (user(), token()).prop_map(|(user, hash)| ExternalIdRemoved { user, hash }.into()),
        2 => (user(), user(), token(), any::<Option<u64>>()).prop_map(|(user, administrator, access, expires_at_ms)| {
            StandInOpened { user, administrator, access, expires_at_ms }.into()
        }),
        1 => token().prop_map(|access| StandInEnded { access }.into()),
        2 => (device(), 0..100_u64, any::<bool>()).prop_map(move |((user, device), at_ms, told)| {
            let address = told.then(part);
            DevicesSeen { seen: vec![DeviceSeen { user, device, at_ms, address, user_agent: None }] }.into()
        }),
        2 => (device(), token(), any::<bool>()).prop_map(move |((user, device), id, append)| {
            PusherSet { user, device, id, pusher: part(), append }.into()
        }),
        1 => (user(), token()).prop_map(|(user, id)| PusherRemoved { user, id }.into()),
    ]
}

fn key_fact() -> impl Strategy<Value = Fact> {
    let claim = (device(), 0..2_u8).prop_map(|((user, device), algorithm)| Claim {
        user,
        device,
        algorithm: format!("algorithm{algorithm}"),
    });
    prop_oneof![
        2 => (device(), 0..3_u8).prop_map(|((user, device), n)| {
            DeviceKeysUploaded { user, device, keys: Json::of(&json!({ "keys": n })).unwrap() }.into()
        }),
        4 => (device(), named()).prop_map(|((user, device), keys)| {
            OneTimeKeysUploaded { user, device, keys }.into()
        }),
        1 => (device(), named()).prop_map(|((user, device), keys)| {
            FallbackKeysUploaded { user, device, keys }.into()
        }),
        4 => prop::collection::vec(claim, 0..4).prop_map(|claims| OneTimeKeysClaimed { claims }.into()),
        1 => (user(), device(), 0..2_u8).prop_map(|(signer, (user, key), n)| {
            let signatures = Json::of(&json!({ &signer: { "ed25519:S": n } })).unwrap();
            SignaturesUploaded { signer, objects: vec![SignedObject { user, key, signatures }] }.into()
        }),
        1 => Just(Epoch { fork: Lsn(1), chain: schemas::Chain::default() }.into()),
    ]
}

fn message_fact() -> impl Strategy<Value = Fact> {
    let message = device().prop_map(|(user, device)| ToDeviceMessage { user, device, content: Part::clear("{}") });
    let ack = (device(), 0..40_u64).prop_map(|((user, device), lsn)| Acknowledgement { user, device, up_to: Lsn(lsn) });
    prop_oneof![
        3 => (user(), prop::collection::vec(message, 0..4)).prop_map(|(sender, messages)| {
            ToDeviceSent { sender, event_type: "m.x".into(), messages }.into()
        }),
        2 => prop::collection::vec(ack, 0..3).prop_map(|acks| ToDeviceAcknowledged { acks }.into()),
        1 => (user(), prop::option::of(Just("!r:example.org".to_owned())), 0..2_u8).prop_map(|(user, room, n)| {
            AccountDataSet { user, room, event_type: format!("type{n}"), content: "{}".to_owned().into() }.into()
        }),
        1 => (user(), any::<bool>()).prop_map(|(user, there)| {
            let content = there.then(|| "{}".to_owned().into());
            TagSet { user, room: "!r:example.org".into(), tag: "u.x".into(), content }.into()
        }),
        1 => (user(), any::<bool>()).prop_map(|(user, enabled)| {
            let op = PushRuleOp::Enabled(enabled);
            PushRuleChanged { user, kind: "override".into(), rule: ".m.rule.master".into(), op }.into()
        }),
        1 => (user(), user()).prop_map(|(user, target)| {
            UserReported { user, target, reason: "rude".into() }.into()
        }),
        1 => (1..4_u64).prop_map(|number| ReportRemoved { kind: ReportKind::User, number }.into()),
    ]
}

fn fact() -> impl Strategy<Value = Fact> {
    prop_oneof![1 => account_fact(), 3 => device_fact(), 4 => key_fact(), 2 => message_fact(), 3 => identity_fact()]
}

fn users() -> impl Iterator<Item = String> {
    (0..3).map(|n| format!("@user{n}:example.org"))
}

/// What must hold of the tables whatever was folded.
fn check(world: &World) {
    let view = world.view();
    for user in users() {
        let there: BTreeSet<String> = devices::of_user(&view, &user).map(|row| row.unwrap().0).collect();
        for (device, _) in keys::of_user(&view, &user, &user).unwrap() {
            assert!(there.contains(&device), "keys of {user} {device}, which is not there");
        }
        for (device, _) in seen::of_user(&view, &user).map(Result::unwrap) {
            assert!(there.contains(&device), "{user} {device} was seen, which is not there");
        }
        for n in 0..3 {
            let device = format!("DEVICE{n}");
            let waiting = to_device::after(&view, &user, &device, Lsn::ZERO, 100).unwrap();
            let counts = keys::counts(&view, &user, &device).unwrap();
            let none = waiting.messages.is_empty() && counts.values().all(|count| *count == 0);
            assert!(none || there.contains(&device), "{user} {device} has something, but is not there");
        }
        let listed = keys::changed_after(&view, Lsn::ZERO).filter(|row| row.as_ref().unwrap().1 == user).count();
        assert_eq!(listed, usize::from(keys::last_change(&view, &user).unwrap().is_some()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_history_folds_and_replays(records in prop::collection::vec(prop::collection::vec(fact(), 0..5), 1..30)) {
        let mut world = World::new();
        let mut given: BTreeMap<String, Lsn> = BTreeMap::new();
        let mut uploaded = 0;
        for mut facts in records {
            for fact in &mut facts {
                let Fact::OneTimeKeysUploaded(upload) = fact else { continue };
                for named in &mut upload.keys {
                    uploaded += 1;
                    named.key = Json::of(&json!({ "key": uploaded })).unwrap();
                }
            }
            let lsn = world.apply(facts);
            for claimed in keys::claimed(&world.view(), lsn).unwrap() {
                let Some((_, key)) = claimed.key else { continue };
                let text = key.as_str().into_owned();
                if text.contains("key") {
                    let before = given.insert(text.clone(), lsn);
                    prop_assert!(before.is_none(), "{text} was given away at {before:?} and at {lsn}");
                }
            }
        }
        check(&world);
        world.check_replay();
    }
}
