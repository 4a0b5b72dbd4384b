//! Client-server API, "End-to-End Encryption": keys of devices and of users.
//!
//! `POST /_matrix/client/v3/keys/upload`, `POST /_matrix/client/v3/keys/query`, `POST /_matrix/client/v3/keys/claim`,
//! `GET /_matrix/client/v3/keys/changes`, `POST /_matrix/client/v3/keys/device_signing/upload`, `POST /_matrix/client/v3/keys/signatures/upload`

use std::collections::BTreeMap;

use axum::Router;
use projections::{
    View,
    models::{accounts, devices, keys as model},
};
use ruma::{
    OneTimeKeyAlgorithm, OwnedDeviceId, OwnedOneTimeKeyId, OwnedUserId, ServerName, UInt, UserId,
    api::client::{
        keys::{
            claim_keys::v3 as claim_keys, get_key_changes::v3 as get_key_changes, get_keys::v3 as get_keys,
            upload_keys::v3 as upload_keys, upload_signatures::v3 as upload_signatures,
            upload_signing_keys::v3 as upload_signing_keys,
        },
        uiaa::AuthType,
    },
    encryption::{DeviceKeys, OneTimeKey},
    serde::Raw,
};
use schemas::{Json, facts::Claim};
use serde_json::{Map, Value, json};

use super::lenient::Lenient;
use crate::{
    commands::{
        Sender, content,
        keys::{self, CrossSigningUpload, Failure, SignedKey, Upload},
    },
    http::{
        App,
        extract::{Matrix, Routes},
        reply::{ApiError, raw},
        uia,
    },
    sync::{SyncToken, v3::Asker},
};

pub fn routes() -> Router<App> {
    Router::new().matrix(upload).matrix(query).matrix(claim).matrix(changes).matrix(upload_cross_signing).matrix(sign)
}

async fn upload(app: App, request: Matrix<upload_keys::Request>) -> Result<upload_keys::Response, ApiError> {
    let upload_keys::Request { device_keys, one_time_keys, fallback_keys, .. } = &request.body;
    let upload = Upload::check(
        &request.who,
        device_keys.as_ref().map(|keys| keys.json().get()),
        one_time_keys.iter().map(|(id, key)| (&**id, key.json().get())),
        fallback_keys.iter().map(|(id, key)| (&**id, key.json().get())),
    )?;
    let left = keys::upload(&app.commands, &request.who, upload).await?;
    // Some clients make new keys only if they are told that there are none.
    let mut counts = BTreeMap::from([(OneTimeKeyAlgorithm::SignedCurve25519, UInt::MIN)]);
    counts.extend(
        left.into_iter().map(|(algorithm, count)| (algorithm.into(), UInt::try_from(count).unwrap_or(UInt::MAX))),
    );
    Ok(upload_keys::Response::new(counts))
}

async fn query(app: App, request: Matrix<get_keys::Request>) -> Result<get_keys::Response, ApiError> {
    let (view, asker) = (app.view()?, &request.who.user);
    let mut reply = get_keys::Response::new();
    for (user, devices) in request.body.device_keys {
        if user.server_name() != app.config.server_name {
            reply.failures.insert(user.server_name().to_string(), unreachable(user.server_name()));
        } else if accounts::get(&view, user.as_str())?.is_some_and(|account| !account.deactivated) {
            let cross_signing = model::cross_signing(&view, user.as_str(), asker.as_str())?;
            for (key, of_all) in [
                (cross_signing.master, &mut reply.master_keys),
                (cross_signing.self_signing, &mut reply.self_signing_keys),
                (cross_signing.user_signing, &mut reply.user_signing_keys),
            ] {
                if let Some(key) = key {
                    of_all.insert(user.clone(), raw(key)?);
                }
            }
            let devices = device_keys(&view, &user, &devices, asker)?;
            reply.device_keys.insert(user, devices);
        }
    }
    Ok(reply)
}

/// The keys of the named devices, of all where none is named, with the names that they are shown with.
fn device_keys(
    view: &View,
    user: &UserId,
    named: &[OwnedDeviceId],
    asker: &UserId,
) -> Result<BTreeMap<OwnedDeviceId, Raw<DeviceKeys>>, ApiError> {
    let (user, asker) = (user.as_str(), asker.as_str());
    let mut of_devices = BTreeMap::new();
    if named.is_empty() {
        of_devices.extend(model::of_user(view, user, asker)?);
    }
    for device in named {
        if let Some(keys) = model::of_device(view, user, device.as_str(), asker)? {
            of_devices.insert(device.to_string(), keys);
        }
    }
    let with_name = |(device, keys): (String, Json)| {
        let name = devices::get(view, user, &device)?.and_then(|device| device.display_name);
        Ok((device.into(), raw(with_name(keys, name)?)?))
    };
    of_devices.into_iter().map(with_name).collect()
}

fn with_name(keys: Json, name: Option<String>) -> Result<Json, ApiError> {
    let Some(name) = name else { return Ok(keys) };
    let mut keys: Map<String, Value> = keys.read().map_err(|error| ApiError::internal(&error))?;
    keys.insert("unsigned".into(), json!({ "device_display_name": name }));
    Ok(content::written(&keys)?)
}

/// What is said of a server whose users' keys can't be had.
fn unreachable(server: &ServerName) -> Value {
    json!({ "status": 503, "message": format!("{server} can't be reached: this server does not talk to others") })
}

async fn claim(app: App, request: Matrix<claim_keys::Request>) -> Result<claim_keys::Response, ApiError> {
    let mut reply = claim_keys::Response::new(BTreeMap::new());
    let mut claims = Vec::new();
    for (user, by_device) in request.body.one_time_keys {
        if user.server_name() != app.config.server_name {
            reply.failures.insert(user.server_name().to_string(), unreachable(user.server_name()));
            continue;
        }
        claims.extend(by_device.into_iter().map(|(device, algorithm)| Claim {
            user: user.to_string(),
            device: device.to_string(),
            algorithm: algorithm.to_string(),
        }));
    }
    for claimed in keys::claim(&app.commands, &request.who, claims).await? {
        let Some((id, key)) = claimed.key else { continue };
        let user = OwnedUserId::try_from(claimed.user).map_err(|error| ApiError::internal(&error))?;
        let id = OwnedOneTimeKeyId::try_from(id).map_err(|error| ApiError::internal(&error))?;
        let of_device: &mut BTreeMap<_, Raw<OneTimeKey>> =
            reply.one_time_keys.entry(user).or_default().entry(claimed.device.into()).or_default();
        of_device.insert(id, raw(key)?);
    }
    Ok(reply)
}

async fn changes(app: App, request: Matrix<get_key_changes::Request>) -> Result<get_key_changes::Response, ApiError> {
    let token = |text: &str| text.parse::<SyncToken>().map_err(|error| ApiError::invalid(error.to_string()));
    let (from, to) = (token(&request.body.from)?, token(&request.body.to)?);
    let Sender { user, device, .. } = request.who.sender;
    let asker = Asker { user, device, now_ms: app.clock.now_ms() };
    let lists = app.syncs.device_lists(&asker, from, &to).await?;
    Ok(get_key_changes::Response::new(lists.changed, lists.left))
}

async fn upload_cross_signing(
    app: App,
    request: Matrix<Lenient<upload_signing_keys::Request>>,
) -> Result<upload_signing_keys::Response, ApiError> {
    let upload_signing_keys::Request { auth, master_key, self_signing_key, user_signing_key, .. } = &request.body.0;
    let upload = CrossSigningUpload::check(
        &request.who,
        master_key.as_ref().map(|key| key.json().get()),
        self_signing_key.as_ref().map(|key| key.json().get()),
        user_signing_key.as_ref().map(|key| key.json().get()),
    )?;
    let (replaces, unasked) = {
        let view = app.view()?;
        (keys::replaces_keys(&view, &request.who, &upload)?, may_replace_unasked(&app, &view, &request.who.user)?)
    };
    if replaces && !unasked {
        uia::interact(&app, &request.received, Some(&request.who.user), &[&[AuthType::Password]], auth.as_ref())
            .await?;
    }
    keys::set_cross_signing(&app.commands, &request.who, upload, replaces).await?;
    Ok(upload_signing_keys::Response::new())
}

/// Whether an administrator lets the user replace their keys now without showing that it is they.
fn may_replace_unasked(app: &App, view: &View, user: &UserId) -> Result<bool, ApiError> {
    let until = accounts::get(view, user.as_str())?.and_then(|account| account.keys_replaceable_until_ms);
    Ok(until.is_some_and(|until| view.log_time().at_least(app.clock.now_ms()).ms < until))
}

async fn sign(app: App, request: Matrix<upload_signatures::Request>) -> Result<upload_signatures::Response, ApiError> {
    let mut signed = Vec::new();
    for (user, keys) in &request.body.signed_keys {
        signed.extend(keys.iter().map(|(key, object)| SignedKey {
            user: user.clone(),
            key: key.to_owned(),
            object: object.get().to_owned(),
        }));
    }
    let mut reply = upload_signatures::Response::new();
    for Failure { user, key, refusal } in keys::sign(&app.commands, &request.who, signed).await? {
        let failure = json!({ "errcode": refusal.kind.errcode().as_str(), "error": refusal.message });
        // Ruma has no other way to make one.
        let failure = serde_json::from_value(failure).map_err(|error| ApiError::internal(&error))?;
        reply.failures.entry(user).or_default().insert(key, failure);
    }
    Ok(reply)
}
