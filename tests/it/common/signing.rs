use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use ruma::{
    CanonicalJsonObject,
    signatures::{Ed25519KeyPair, sign_json},
};
use serde_json::{Value, json};

use super::Client;

/// An Ed25519 key of a device or a user.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    /// Its public part.
    pub public: String,
}

impl SigningKey {
    /// A device's key.
    pub fn of_device(device: &str) -> Self {
        Self::named(|_| device.to_owned())
    }

    /// A cross-signing key, which is named by its public part.
    pub fn of_user() -> Self {
        Self::named(str::to_owned)
    }

    fn named(name: impl Fn(&str) -> String) -> Self {
        let der = Ed25519KeyPair::generate();
        let public = Ed25519KeyPair::from_der(&der, "any".into()).unwrap().public_key();
        let public = STANDARD_NO_PAD.encode(public);
        Self { pair: Ed25519KeyPair::from_der(&der, name(&public)).unwrap(), public }
    }

    /// An object with this key's signature added.
    pub fn sign(&self, user: &str, object: Value) -> Value {
        let mut object: CanonicalJsonObject = serde_json::from_value(object).unwrap();
        sign_json(user, &self.pair, &mut object).unwrap();
        serde_json::to_value(object).unwrap()
    }

    /// The keys of a user's device, signed by this one of them.
    pub fn device_keys(&self, user: &Client) -> Value {
        let curve25519 = STANDARD_NO_PAD.encode([7; 32]);
        let keys = json!({
            "user_id": user.user,
            "device_id": user.device,
            "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
            "keys": {
                format!("curve25519:{}", user.device): curve25519,
                format!("ed25519:{}", user.device): self.public,
            },
        });
        self.sign(&user.user, keys)
    }

    /// This cross-signing key as its user uploads it, not signed yet.
    pub fn cross_signing_key(&self, user: &str, usage: &str) -> Value {
        json!({ "user_id": user, "usage": [usage], "keys": { format!("ed25519:{}", self.public): self.public } })
    }
}
