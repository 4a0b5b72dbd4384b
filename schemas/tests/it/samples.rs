//! One fact of every number, and more where there are variants: what golden bytes are made from.

use schemas::{
    After, Blob, Chain, CopyId, Expect, Fact, Header, Json, Key, Lsn, Origin, Part, RawFact, Read, Record, RecordId,
    Tag, facts::*,
};

const ALICE: &str = "@alice:example.org";
const BOB: &str = "@bob:other.example";
const ROOM: &str = "!room:example.org";
const EVENT: &str = "$event";
const PHONE: &str = "PHONE";

fn json(text: &str) -> Json {
    text.to_owned().into()
}

fn change(event: Option<&str>) -> StateChange {
    StateChange { event_type: "m.room.topic".into(), state_key: "key".into(), event: event.map(Into::into) }
}

fn set() -> Blob {
    Blob((0..16).collect())
}

fn sum() -> Blob {
    Blob((0..32).map(|n| 0xff - n).collect())
}

fn sealed() -> Part {
    Part::Sealed {
        key_id: Blob(b"key".to_vec()),
        algorithm: 1,
        nonce: Blob(vec![0xfe; 24]),
        ciphertext: Blob(vec![0, 0xff, 1]),
    }
}

/// The samples, with the name of the case where there are several of a fact.
pub(crate) fn samples() -> Vec<(&'static str, Fact)> {
    [
        server(),
        events(),
        rooms(),
        accounts(),
        standing(),
        identities(),
        devices(),
        keys(),
        account_data(),
        messages(),
        directory(),
        jobs(),
        reports(),
    ]
    .concat()
}

fn server() -> Vec<(&'static str, Fact)> {
    vec![
        ("", Genesis { log_id: set(), server_name: "example.org".into(), format: 1 }.into()),
        ("", Epoch { fork: Lsn(812), chain: Chain([0xab; 32]) }.into()),
        ("", IdleGap {}.into()),
        ("", FormatBarrier { format: 2 }.into()),
        ("", ShardsTaken { shards: vec![0, 7, 15], node: 3 }.into()),
    ]
}

fn learned(rest: Option<Part>) -> EventLearned {
    EventLearned {
        id: EVENT.into(),
        room: ROOM.into(),
        skeleton: json(r#"{"content":{},"type":"m.room.message"}"#),
        rest,
        redacted_copy: false,
    }
}

fn placed(class: Placement, verdict: Verdict, base: StateBase, visibility: Visibility) -> EventPlaced {
    EventPlaced {
        id: EVENT.into(),
        class,
        verdict,
        state_before: Some(StateBefore { base, delta: vec![change(Some("$topic")), change(None)] }),
        current: vec![change(Some(EVENT))],
        visibility,
        servers: vec!["other.example".into(), "third.example".into()],
        redacts: Some(Redaction { target: "$target".into(), may_redact_any: true }),
    }
}

fn events() -> Vec<(&'static str, Fact)> {
    let history = Placement::History { anchor: "$anchor".into(), order: 300 };
    vec![
        ("", learned(None).into()),
        ("clear", learned(Some(Part::clear(r#"{"content":{"body":"Hi"}}"#))).into()),
        ("sealed", EventLearned { redacted_copy: true, ..learned(Some(sealed())) }.into()),
        ("", placed(Placement::Live, Verdict::Accepted, StateBase::Empty, Visibility::WorldReadable).into()),
        ("history", placed(history, Verdict::SoftFailed, StateBase::After("$p".into()), Visibility::Shared).into()),
        ("outlier", placed(Placement::Outlier, Verdict::Rejected, StateBase::Set(set()), Visibility::Invited).into()),
        (
            "bare",
            EventPlaced {
                id: EVENT.into(),
                class: Placement::Live,
                verdict: Verdict::Accepted,
                state_before: None,
                current: vec![],
                visibility: Visibility::Joined,
                servers: vec![],
                redacts: None,
            }
            .into(),
        ),
        (
            "",
            EventRestated {
                id: EVENT.into(),
                class: Placement::Live,
                verdict: Verdict::Accepted,
                state_before: None,
                current: vec![change(Some(EVENT))],
                visibility: Visibility::Shared,
            }
            .into(),
        ),
        ("", EventBodies { set: set(), n: 3, events: vec![learned(None)] }.into()),
        ("", StateSetPart { set: set(), n: 0, entries: vec![change(Some(EVENT))] }.into()),
        ("", StagedEvents { set: set(), count: 4, sha256: sum() }.into()),
        ("", StateSet { set: set(), count: 1, sha256: sum() }.into()),
        ("", EventTransaction { event: EVENT.into(), device: PHONE.into(), transaction: "m1".into() }.into()),
        ("", ExtremitiesRemoved { room: ROOM.into(), events: vec![EVENT.into(), "$other".into()] }.into()),
    ]
}

fn rooms() -> Vec<(&'static str, Fact)> {
    vec![
        ("", RoomForgotten { user: ALICE.into(), room: ROOM.into() }.into()),
        ("", RoomBlocked { room: ROOM.into(), blocked: true, reason: Some("spam".into()) }.into()),
        ("", RoomsFollowed { user: ALICE.into(), up_to: Lsn(7) }.into()),
        ("", RoomDetached { room: ROOM.into() }.into()),
        ("", RoomPurged { room: ROOM.into(), model: "timeline".into(), keys: 1_000, last: true }.into()),
        ("", HistoryWithdrawn { room: ROOM.into(), events: vec![EVENT.into(), "$two".into()] }.into()),
        ("", EventsForgotten { room: ROOM.into(), forgotten: vec![EVENT.into()], kept: vec!["$two".into()] }.into()),
    ]
}

fn jobs() -> Vec<(&'static str, Fact)> {
    let item = |note: Option<&str>| JobItem { list: "failed".into(), item: BOB.into(), note: note.map(Into::into) };
    vec![
        (
            "",
            JobStarted {
                id: "aBcDeF".into(),
                action: "shutdown_and_purge_room".into(),
                resource: Some(ROOM.into()),
                parameters: json(r#"{"purge":true}"#),
            }
            .into(),
        ),
        (
            "",
            JobAdvanced {
                id: "aBcDeF".into(),
                step: 3,
                progress: json(r#"{"keys":12}"#),
                items: vec![item(None), item(Some("banned"))],
            }
            .into(),
        ),
        ("", JobEnded { id: "aBcDeF".into(), error: None }.into()),
        ("failed", JobEnded { id: "aBcDeF".into(), error: Some("no room".into()) }.into()),
    ]
}

fn accounts() -> Vec<(&'static str, Fact)> {
    let registered = |kind| UserRegistered {
        user: ALICE.into(),
        password: Some(Part::clear("$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$aGFzaA")),
        admin: true,
        kind,
        registration_token: Some("come-in".into()),
    };
    vec![
        ("", registered(UserKind::Regular).into()),
        ("guest", UserRegistered { password: None, admin: false, ..registered(UserKind::Guest) }.into()),
        ("app_service", UserRegistered { registration_token: None, ..registered(UserKind::AppService) }.into()),
        ("", PasswordSet { user: ALICE.into(), password: Some(sealed()) }.into()),
        ("none", PasswordSet { user: ALICE.into(), password: None }.into()),
        ("", AccountDeactivated { user: ALICE.into(), erase: true }.into()),
        ("", AdminSet { user: ALICE.into(), admin: true }.into()),
        ("", AccountStatusSet { user: ALICE.into(), locked: true, suspended: false }.into()),
        (
            "",
            RegistrationTokenSet {
                token: "come-in".into(),
                uses_allowed: Some(5),
                expires_at_ms: Some(1_800_000_000_000),
            }
            .into(),
        ),
        ("", RegistrationTokenRemoved { token: "come-in".into() }.into()),
    ]
}

fn standing() -> Vec<(&'static str, Fact)> {
    let user = || ALICE.to_owned();
    vec![
        ("", AccountReactivated { user: user() }.into()),
        ("", UserTypeSet { user: user(), user_type: Some("bot".into()) }.into()),
        ("", ShadowBanSet { user: user(), banned: true }.into()),
        ("", RateLimitSet { user: user(), limit: Some(RateLimit { per_second: 5, burst: 300 }) }.into()),
        ("none", RateLimitSet { user: user(), limit: None }.into()),
        ("", AccountValiditySet { user: user(), expires_at_ms: Some(1_800_000_000_000) }.into()),
        ("", ExperimentalFeatureSet { user: user(), feature: "msc4222".into(), enabled: true }.into()),
        ("", KeyReplacementAllowed { user: user(), until_ms: 1_800_000_000_000 }.into()),
    ]
}

fn identities() -> Vec<(&'static str, Fact)> {
    let user = || ALICE.to_owned();
    let (address, id) = (Part::clear("alice@example.org"), Part::clear("12345"));
    let opened = StandInOpened {
        user: user(),
        administrator: BOB.into(),
        access: sum(),
        expires_at_ms: Some(1_800_000_000_000),
    };
    let seen = DeviceSeen {
        user: user(),
        device: PHONE.into(),
        at_ms: 1_700_000_000_000,
        address: Some(Part::clear("192.0.2.1")),
        user_agent: Some(Part::clear("Client/1.0")),
    };
    let pusher = Part::clear(r#"{"app_id":"org.example","kind":"http"}"#);
    vec![
        (
            "",
            ThirdPartyIdAdded {
                user: user(),
                hash: sum(),
                medium: "email".into(),
                address,
                validated_at_ms: 1_700_000_000_000,
            }
            .into(),
        ),
        ("", ThirdPartyIdRemoved { user: user(), hash: sum() }.into()),
        ("", ExternalIdAdded { user: user(), hash: sum(), provider: "oidc-example".into(), id }.into()),
        ("", ExternalIdRemoved { user: user(), hash: sum() }.into()),
        ("", opened.into()),
        ("", StandInEnded { access: sum() }.into()),
        ("", DevicesSeen { seen: vec![seen] }.into()),
        ("", PusherSet { user: user(), device: PHONE.into(), id: sum(), pusher, append: true }.into()),
        ("", PusherRemoved { user: user(), id: sum() }.into()),
    ]
}

fn devices() -> Vec<(&'static str, Fact)> {
    let (user, device) = (ALICE.to_owned(), PHONE.to_owned());
    vec![
        (
            "",
            SessionOpened {
                user: user.clone(),
                device: device.clone(),
                access: sum(),
                access_expires_at_ms: Some(1_800_000_000_000),
                refresh: Some(Blob(vec![7; 32])),
            }
            .into(),
        ),
        (
            "",
            SessionRefreshed {
                user: user.clone(),
                device: device.clone(),
                used: Blob(vec![7; 32]),
                access: sum(),
                access_expires_at_ms: None,
                refresh: Blob(vec![8; 32]),
            }
            .into(),
        ),
        (
            "",
            LoginTokenIssued {
                token: sum(),
                user: user.clone(),
                device: device.clone(),
                expires_at_ms: 1_800_000_000_000,
            }
            .into(),
        ),
        ("", LoginTokenUsed { token: sum() }.into()),
        ("", DeviceAdded { user: user.clone(), device: device.clone(), display_name: Some("Phone".into()) }.into()),
        ("", DeviceRenamed { user: user.clone(), device: device.clone(), display_name: None }.into()),
        ("", DeviceRemoved { user, device }.into()),
    ]
}

fn keys() -> Vec<(&'static str, Fact)> {
    let (user, device) = (ALICE.to_owned(), PHONE.to_owned());
    let named = || vec![NamedKey { id: "signed_curve25519:AAAAHg".into(), key: json(r#"{"key":"k"}"#) }];
    let claim = Claim { user: BOB.into(), device: PHONE.into(), algorithm: "signed_curve25519".into() };
    let cross = CrossSigningKeysSet {
        user: user.clone(),
        master: Some(json(r#"{"usage":["master"]}"#)),
        self_signing: None,
        user_signing: Some(json(r#"{"usage":["user_signing"]}"#)),
    };
    let signed = SignedObject { user: BOB.into(), key: "M".into(), signatures: json(r#"{"@alice:example.org":{}}"#) };
    vec![
        ("", DeviceKeysUploaded { user: user.clone(), device: device.clone(), keys: json(r#"{"keys":{}}"#) }.into()),
        ("", OneTimeKeysUploaded { user: user.clone(), device: device.clone(), keys: named() }.into()),
        ("", FallbackKeysUploaded { user, device, keys: named() }.into()),
        ("", OneTimeKeysClaimed { claims: vec![claim] }.into()),
        ("", cross.into()),
        ("", SignaturesUploaded { signer: ALICE.into(), objects: vec![signed] }.into()),
    ]
}

fn account_data() -> Vec<(&'static str, Fact)> {
    let data = |room: Option<&str>| AccountDataSet {
        user: ALICE.into(),
        room: room.map(Into::into),
        event_type: "m.fully_read".into(),
        content: json(r#"{"event_id":"$event"}"#),
    };
    let tag = |content| TagSet { user: ALICE.into(), room: ROOM.into(), tag: "u.work".into(), content };
    let rule = |op| PushRuleChanged { user: ALICE.into(), kind: "content".into(), rule: "cake".into(), op };
    let put = PushRuleOp::Put {
        rule: json(r#"{"actions":["notify"],"pattern":"cake"}"#),
        before: Some("tea".into()),
        after: None,
    };
    vec![
        (
            "",
            ProfileFieldSet { user: ALICE.into(), field: "displayname".into(), value: Some(json("\"Alice\"")) }.into(),
        ),
        ("removed", ProfileFieldSet { user: ALICE.into(), field: "displayname".into(), value: None }.into()),
        ("", data(None).into()),
        ("room", data(Some(ROOM)).into()),
        ("", tag(Some(json(r#"{"order":0.5}"#))).into()),
        ("removed", tag(None).into()),
        ("", rule(put).into()),
        ("removed", rule(PushRuleOp::Removed).into()),
        ("enabled", rule(PushRuleOp::Enabled(false)).into()),
        ("actions", rule(PushRuleOp::Actions(json("[]"))).into()),
        ("", FilterStored { user: ALICE.into(), id: "f".into(), filter: json(r#"{"room":{}}"#) }.into()),
    ]
}

fn messages() -> Vec<(&'static str, Fact)> {
    let receipt = |kind, thread: Option<&str>| ReceiptSet {
        user: ALICE.into(),
        room: ROOM.into(),
        kind,
        thread: thread.map(Into::into),
        event: EVENT.into(),
        at_ms: 1_700_000_000_000,
    };
    let message = ToDeviceMessage { user: BOB.into(), device: PHONE.into(), content: Part::clear(r#"{"a":1}"#) };
    let ack = Acknowledgement { user: ALICE.into(), device: PHONE.into(), up_to: Lsn(70_000) };
    vec![
        ("", receipt(ReceiptKind::Public, None).into()),
        ("private", receipt(ReceiptKind::Private, Some("main")).into()),
        ("", ToDeviceSent { sender: ALICE.into(), event_type: "m.dummy".into(), messages: vec![message] }.into()),
        ("", ToDeviceAcknowledged { acks: vec![ack] }.into()),
    ]
}

fn directory() -> Vec<(&'static str, Fact)> {
    let alias = "#room:example.org".to_owned();
    vec![
        (
            "",
            AliasSet {
                alias: alias.clone(),
                room: ROOM.into(),
                creator: ALICE.into(),
                servers: vec!["example.org".into()],
            }
            .into(),
        ),
        ("", AliasRemoved { alias }.into()),
        ("", RoomPublished { room: ROOM.into(), published: true }.into()),
    ]
}

fn reports() -> Vec<(&'static str, Fact)> {
    let reported = |reason: Option<&str>, score| EventReported {
        user: ALICE.into(),
        room: ROOM.into(),
        event: EVENT.into(),
        sender: BOB.into(),
        reason: reason.map(Into::into),
        score,
    };
    vec![
        ("", reported(Some("spam"), Some(-100)).into()),
        ("bare", reported(None, None).into()),
        ("", RoomReported { user: ALICE.into(), room: ROOM.into(), reason: "spam".into() }.into()),
        ("", UserReported { user: ALICE.into(), target: BOB.into(), reason: "spam".into() }.into()),
        ("", ReportRemoved { kind: ReportKind::User, number: 300 }.into()),
    ]
}

/// One record of each origin, and of each kind of guard.
pub(crate) fn records() -> Vec<(&'static str, Record)> {
    let key = Key::new(Tag::RoomState, ROOM);
    let read = |expect| Read { key, expect };
    let header = |origin| Header {
        format: 1,
        id: RecordId::of_request(ALICE, PHONE, "PUT", "/_matrix/client/v3/rooms/!room:example.org/send/m.x/t", "t"),
        attempt: 2,
        copy: CopyId([6; 8]),
        at_ms: 1_700_000_000_000,
        node: 3,
        origin,
        cause: Some(Lsn(811)),
        reads: vec![read(Expect::Absent), read(Expect::At(Lsn(810))), read(Expect::By(RecordId([9; 16])))],
        writes: vec![key, Key::pair(Tag::Device, ALICE, PHONE)],
        after: Some(After { id: RecordId([8; 16]), copy: CopyId([7; 8]) }),
    };
    let facts = || vec![RawFact::from(&Fact::from(IdleGap {})), learned(Some(Part::clear("{}"))).into_raw()];
    let user = Origin::User { user: ALICE.into(), device: Some(PHONE.into()) };
    let guest = Origin::User { user: ALICE.into(), device: None };
    let bare = Header { cause: None, reads: vec![], writes: vec![], after: None, ..header(Origin::Server) };
    vec![
        ("user", Record { header: header(user), facts: facts() }),
        ("guest", Record { header: header(guest), facts: facts() }),
        ("remote", Record { header: header(Origin::Remote { server: "other.example".into() }), facts: facts() }),
        ("app_service", Record { header: header(Origin::AppService { id: "irc".into() }), facts: facts() }),
        ("admin", Record { header: header(Origin::Admin { user: ALICE.into() }), facts: facts() }),
        ("server", Record { header: bare, facts: vec![] }),
    ]
}

trait IntoRaw {
    fn into_raw(self) -> RawFact;
}

impl IntoRaw for EventLearned {
    fn into_raw(self) -> RawFact {
        Fact::from(self).encode()
    }
}
