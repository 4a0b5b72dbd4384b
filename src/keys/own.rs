//! The server's own signing key, in a file of its own: never on the log.
//!
//! The file is one line in the form that Synapse uses too, `ed25519 a_AbCd <seed in unpadded base64>`, readable by its
//! owner alone. More lines may follow, of keys by which the server has signed before, and which only verify: in the same
//! form, or as `old ed25519 a_AbCd <public key in unpadded base64>` where no more than that is left of them.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use ruma::{
    CanonicalJsonObject, OwnedServerName, OwnedServerSigningKeyId, ServerName, ServerSigningKeyId,
    room_version_rules::RedactionRules,
    serde::Base64,
    signatures::{Ed25519KeyPair, JsonError, KeyPair, PublicKeyMap, PublicKeySet, hash_and_sign_event, sign_json},
};

use sha2::{Digest, Sha256};

use crate::clock::Random;

/// What stands before the 32 bytes of an Ed25519 seed in its PKCS #8 document (RFC 8410, section 7).
const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// Why there is no signing key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file can't be read or made.
    #[error("the signing key {path} can't be opened: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is none, although the server has had one.
    #[error(
        "{path} is missing, but the log is one that this server has signed events on: restore the file from a backup or \
         another node. Only if it is lost for ever, start once with --new-signing-key"
    )]
    Missing {
        /// Which file.
        path: PathBuf,
    },
    /// The file holds something else.
    #[error("the signing key {path} is not one: {why}; it should be a line `ed25519 a_AbCd <seed in base64>`")]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

/// The key by which this server signs what it says, and what it has signed by before.
#[derive(Debug)]
pub struct OwnKey {
    server: OwnedServerName,
    id: OwnedServerSigningKeyId,
    pair: Ed25519KeyPair,
    /// The public halves of older keys.
    old: PublicKeySet,
}

impl OwnKey {
    /// Reads the keys.
    ///
    /// # Errors
    /// When there is no file, or it can't be read or holds something else.
    pub fn open(path: &Path, server: &ServerName) -> Result<Self, KeyError> {
        let text = fs::read_to_string(path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => KeyError::Missing { path: path.to_owned() },
            _ => KeyError::File { path: path.to_owned(), source },
        })?;
        Self::parse(&text, server).map_err(|why| KeyError::Malformed { path: path.to_owned(), why })
    }

    /// Reads the keys, or makes one where there is no file.
    ///
    /// # Errors
    /// When the file can't be read or written, or holds something else.
    pub fn open_or_make(path: &Path, server: &ServerName, random: &dyn Random) -> Result<Self, KeyError> {
        match Self::open(path, server) {
            Err(KeyError::Missing { .. }) => {
                let seed: [u8; 32] = random.bytes();
                let line = format!("ed25519 a_{} {}\n", random.alphanumeric(4), base64(&seed));
                write_new(path, &line).map_err(|source| KeyError::File { path: path.to_owned(), source })?;
                Self::open(path, server)
            }
            opened => opened,
        }
    }

    fn parse(text: &str, server: &ServerName) -> Result<Self, String> {
        let mut lines = text.lines().filter(|line| !line.trim().is_empty());
        let mut key = Self::parse_line(lines.next().unwrap_or_default(), server)?;
        for line in lines {
            let (id, public) = match line.trim().strip_prefix("old ") {
                None => Self::parse_line(line, server).map(|old| (old.id().to_string(), old.public()))?,
                Some(line) => {
                    let (version, public) = fields(line)?;
                    (key_id(version)?.to_string(), base64(&public))
                }
            };
            if id == key.id.as_str() || key.old.insert(id.clone(), public).is_some() {
                return Err(format!("it has two keys with the id {id}"));
            }
        }
        Ok(key)
    }

    fn parse_line(line: &str, server: &ServerName) -> Result<Self, String> {
        let (version, seed) = fields(line)?;
        Self::from_seed(&seed, version, server)
    }

    /// The key of a seed; `version` is the part of its id after `ed25519:`.
    ///
    /// # Errors
    /// Says what is wrong when the version has other symbols than letters, digits and `_`.
    pub fn from_seed(seed: &[u8; 32], version: &str, server: &ServerName) -> Result<Self, String> {
        let id = key_id(version)?;
        let document = [&PKCS8_PREFIX[..], seed].concat();
        let pair = Ed25519KeyPair::from_der(&document, version.to_owned()).map_err(|error| error.to_string())?;
        Ok(Self { server: server.to_owned(), id, pair, old: PublicKeySet::new() })
    }

    /// Whose key it is.
    #[must_use]
    pub fn server(&self) -> &ServerName {
        &self.server
    }

    /// Its id, `ed25519:a_AbCd`.
    #[must_use]
    pub fn id(&self) -> &ServerSigningKeyId {
        &self.id
    }

    /// Its public half.
    #[must_use]
    pub fn public(&self) -> Base64 {
        base64(&self.pair.public_key())
    }

    /// Its public half and those of older keys, as verification wants them.
    #[must_use]
    pub fn public_map(&self) -> PublicKeyMap {
        let mut keys = self.old.clone();
        keys.insert(self.id.to_string(), self.public());
        PublicKeyMap::from([(self.server.to_string(), keys)])
    }

    /// The pair itself, for signing requests.
    #[must_use]
    pub fn pair(&self) -> &Ed25519KeyPair {
        &self.pair
    }

    /// A secret for a purpose, which everybody can tell who has the key, and nobody else.
    #[must_use]
    pub fn secret(&self, purpose: &str) -> [u8; 32] {
        // No JSON begins like this, and nothing else is signed.
        let text = format!("everfold {} {purpose}", self.server);
        Sha256::digest(self.pair.sign(text.as_bytes()).as_bytes()).into()
    }

    /// Signs JSON (appendices, "Signing JSON").
    ///
    /// # Errors
    /// When there is something else than signatures under `signatures`.
    pub fn sign_json(&self, object: &mut CanonicalJsonObject) -> Result<(), JsonError> {
        sign_json(self.server.as_str(), &self.pair, object)
    }

    /// Adds the content hash and the signature to an event (server-server API, "Adding hashes and signatures to
    /// outgoing events").
    ///
    /// # Errors
    /// When it is too large or not an event.
    pub fn hash_and_sign(&self, event: &mut CanonicalJsonObject, rules: &RedactionRules) -> Result<(), JsonError> {
        hash_and_sign_event(self.server.as_str(), &self.pair, event, rules)
    }
}

/// The version of a key and its 32 bytes.
fn fields(line: &str) -> Result<(&str, [u8; 32]), String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [algorithm, version, bytes] = words[..] else {
        return Err(format!("a line has {} words, not three", words.len()));
    };
    if algorithm != "ed25519" {
        return Err(format!("`{algorithm}` is not an algorithm that Matrix knows"));
    }
    let bytes: Base64 = Base64::parse(bytes).map_err(|error| error.to_string())?;
    let bytes = bytes.as_bytes().try_into().map_err(|_| "a key is not 32 bytes".to_owned())?;
    Ok((version, bytes))
}

fn key_id(version: &str) -> Result<OwnedServerSigningKeyId, String> {
    ServerSigningKeyId::parse(format!("ed25519:{version}"))
        .map_err(|error| format!("`{version}` is not the version of a key: {error}"))
}

fn base64(bytes: &[u8]) -> Base64 {
    Base64::new(bytes.to_vec())
}

/// Writes a file that appears whole, or not at all.
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let draft = path.with_extension("new");
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use ruma::{server_name, signatures::verify_json};

    use super::*;
    use crate::clock::{SimulatedRandom, SystemRandom};

    #[test]
    fn a_key_is_made_once_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("signing.key");
        let missing = OwnKey::open(&path, server_name!("x")).unwrap_err();
        assert!(matches!(missing, KeyError::Missing { .. }), "{missing}");
        let made = OwnKey::open_or_make(&path, server_name!("x"), &SimulatedRandom::seeded(1)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let read = OwnKey::open_or_make(&path, server_name!("x"), &SystemRandom).unwrap();
        assert_eq!((made.id(), made.public()), (read.id(), read.public()));
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        let other = OwnKey::open_or_make(&folder.path().join("other"), server_name!("x"), &SystemRandom).unwrap();
        assert_ne!(made.public(), other.public());
    }

    /// The seed and the result are those of the specification (appendices, "Cryptographic test vectors").
    #[test]
    fn reads_the_form_that_synapse_writes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("signing.key");
        fs::write(&path, "ed25519 1 YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1\n").unwrap();
        let key = OwnKey::open(&path, server_name!("domain")).unwrap();
        let mut object = serde_json::from_str("{}").unwrap();
        key.sign_json(&mut object).unwrap();
        assert_eq!(
            serde_json::to_string(&object).unwrap(),
            r#"{"signatures":{"domain":{"ed25519:1":"K8280/U9SSy9IVtjBuVeLr+HpOB4BQFWbg+UZaADMtTdGYI7Geitb76LTrr5QV/7Xg4ahLwYGYZzuHGZKM5ZAQ"}}}"#
        );
        verify_json(&key.public_map(), &object).unwrap();
    }

    #[test]
    fn older_keys_verify_and_do_not_sign() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("signing.key");
        let key = |seed: u8, version: &str| OwnKey::from_seed(&[seed; 32], version, server_name!("x")).unwrap();
        let line = |seed: u8, version: &str| format!("ed25519 {version} {}\n", base64(&[seed; 32]));
        let text = line(3, "c") + &line(2, "b") + &format!("\nold ed25519 a {}\n", key(1, "a").public());
        fs::write(&path, &text).unwrap();
        let read = OwnKey::open(&path, server_name!("x")).unwrap();
        assert_eq!((read.id(), read.public()), (key(3, "c").id(), key(3, "c").public()));
        for signer in [key(1, "a"), key(2, "b"), read] {
            let mut object = serde_json::from_str("{}").unwrap();
            signer.sign_json(&mut object).unwrap();
            verify_json(&OwnKey::open(&path, server_name!("x")).unwrap().public_map(), &object).unwrap();
        }
        fs::write(&path, text + &line(4, "a")).unwrap();
        let error = OwnKey::open(&path, server_name!("x")).unwrap_err();
        assert!(error.to_string().contains("two keys with the id ed25519:a"), "{error}");
    }

    #[test]
    fn says_what_is_wrong_with_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("signing.key");
        for text in ["", "ed25519 a_x", "rsa a_x AAAA", "ed25519 a_x AAAA", "ed25519 a-x/ AAAA", "ed25519 a_x !"] {
            fs::write(&path, text).unwrap();
            let error = OwnKey::open_or_make(&path, server_name!("x"), &SystemRandom).unwrap_err();
            assert!(matches!(error, KeyError::Malformed { .. }), "{text}: {error}");
        }
        let missing = folder.path().join("no/such/folder");
        assert!(matches!(OwnKey::open_or_make(&missing, server_name!("x"), &SystemRandom), Err(KeyError::File { .. })));
    }
}
