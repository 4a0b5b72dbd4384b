use base64::{
    Engine,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue,
    signatures::{SigningKeyAlgorithm, to_canonical_json_string_for_signing, verify_canonical_json_bytes},
};
use schemas::Json;

use crate::commands::{Refusal, content};

/// Keys and signatures come with and without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// The bytes of a public key.
pub(super) fn public_key(base64: &str) -> Option<[u8; 32]> {
    BASE64.decode(base64).ok()?.try_into().ok()
}

/// An object with signatures under it: the keys of a device, or a cross-signing key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Signed(CanonicalJsonObject);

impl Signed {
    /// Reads it.
    ///
    /// # Errors
    /// `M_BAD_JSON` for what is no canonical JSON.
    pub(super) fn parse(text: &str) -> Result<Self, Refusal> {
        content::canonical(text).map(Self)
    }

    /// What is recorded of an upload: without what servers add (`unsigned`), and with the owner's signatures alone.
    /// Those of others come on their own way, checked.
    pub(super) fn for_record(mut self, owner: &str) -> Result<Json, Refusal> {
        self.0.remove("unsigned");
        if let Some(CanonicalJsonValue::Object(signatures)) = self.0.get_mut("signatures") {
            signatures.retain(|signer, _| signer == owner);
        }
        content::written(&self.0)
    }

    /// Whether the same is signed: all but the signatures and what is not covered by them.
    pub(super) fn says_the_same(&self, other: &Self) -> bool {
        let covered = |object: &CanonicalJsonObject| {
            let mut object = object.clone();
            object.remove("signatures");
            object.remove("unsigned");
            object
        };
        covered(&self.0) == covered(&other.0)
    }

    /// The public key with this id, such as `ed25519:DEVICE`.
    pub(super) fn key(&self, id: &str) -> Option<&str> {
        self.0.get("keys")?.as_object()?.get(id)?.as_str()
    }

    /// The signatures of a user, by key id.
    pub(super) fn signatures(&self, signer: &str) -> impl Iterator<Item = (&str, &CanonicalJsonValue)> {
        let signatures = self.0.get("signatures").and_then(|all| all.as_object()?.get(signer)?.as_object());
        signatures.into_iter().flatten().map(|(id, signature)| (id.as_str(), signature))
    }

    /// Whether the signature of a user by a key is there, and good.
    pub(super) fn is_signed(&self, signer: &str, key_id: &str, public: &str) -> bool {
        let signature = self.signatures(signer).find(|(id, _)| *id == key_id);
        let signature = signature.and_then(|(_, signature)| BASE64.decode(signature.as_str()?).ok());
        let (Some(signature), Some(public)) = (signature, public_key(public)) else { return false };
        to_canonical_json_string_for_signing(&self.0).is_ok_and(|text| {
            verify_canonical_json_bytes(&SigningKeyAlgorithm::Ed25519, &public, &signature, text.as_bytes()).is_ok()
        })
    }
}
