//! Order-preserving keys: what is encoded in front sorts first, and a whole encoded part is a prefix to scan.

use schemas::{Lsn, Nid};

/// Builds a key part by part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyBuf(Vec<u8>);

impl KeyBuf {
    /// An empty key.
    #[must_use]
    pub fn new() -> Self {
        Self(Vec::with_capacity(48))
    }

    /// Text of any content: NUL is escaped, so that the terminator can't be forged and order is kept.
    #[must_use]
    pub fn str(mut self, text: &str) -> Self {
        for &byte in text.as_bytes() {
            self.0.push(byte);
            if byte == 0 {
                self.0.push(0xff);
            }
        }
        self.0.extend_from_slice(&[0, 0]);
        self
    }

    /// A position.
    #[must_use]
    pub fn lsn(mut self, lsn: Lsn) -> Self {
        self.0.extend_from_slice(&lsn.to_bytes());
        self
    }

    /// A short id.
    #[must_use]
    pub fn nid(mut self, nid: Nid) -> Self {
        self.0.extend_from_slice(&nid.to_bytes());
        self
    }

    /// A number.
    #[must_use]
    pub fn u64(mut self, number: u64) -> Self {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }

    /// A small number.
    #[must_use]
    pub fn u8(mut self, number: u8) -> Self {
        self.0.push(number);
        self
    }

    /// Bytes as they are: last, or of fixed length.
    #[must_use]
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }
}

impl AsRef<[u8]> for KeyBuf {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl From<KeyBuf> for Vec<u8> {
    fn from(key: KeyBuf) -> Self {
        key.0
    }
}

/// Takes keys apart again, in the same order.
#[derive(Clone, Copy, Debug)]
pub struct KeyReader<'a>(&'a [u8]);

impl<'a> KeyReader<'a> {
    /// Begins at the front.
    #[must_use]
    pub const fn new(key: &'a [u8]) -> Self {
        Self(key)
    }

    /// Text; none if the key has another shape.
    pub fn str(&mut self) -> Option<String> {
        let mut text = Vec::new();
        let mut at = 0;
        loop {
            match (self.0.get(at)?, self.0.get(at + 1)) {
                (0, Some(0)) => break,
                (0, Some(0xff)) => {
                    text.push(0);
                    at += 2;
                }
                (0, _) => return None,
                (&byte, _) => {
                    text.push(byte);
                    at += 1;
                }
            }
        }
        self.0 = &self.0[at + 2..];
        String::from_utf8(text).ok()
    }

    /// A position.
    pub fn lsn(&mut self) -> Option<Lsn> {
        self.u64().map(Lsn)
    }

    /// A number.
    pub fn u64(&mut self) -> Option<u64> {
        let (head, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        Some(u64::from_be_bytes(*head))
    }

    /// A short id.
    pub fn nid(&mut self) -> Option<Nid> {
        let (head, rest) = self.0.split_first_chunk::<{ Nid::LEN }>()?;
        self.0 = rest;
        Some(Nid::from_bytes(*head))
    }

    /// A small number.
    pub fn u8(&mut self) -> Option<u8> {
        let (&head, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(head)
    }

    /// What is left.
    #[must_use]
    pub const fn rest(self) -> &'a [u8] {
        self.0
    }
}

/// The first key after all keys that begin with `prefix`; none if there is no such key.
#[must_use]
pub fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return Some(end);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn order_and_content_are_kept(a in ".{0,6}", b in ".{0,6}", x: u64, y: u64) {
            let key = |text: &str, number| Vec::from(KeyBuf::new().str(text).u64(number));
            prop_assert_eq!(key(&a, x).cmp(&key(&b, y)), (a.as_bytes(), x).cmp(&(b.as_bytes(), y)));
            let bytes = key(&a, x);
            let mut reader = KeyReader::new(&bytes);
            prop_assert_eq!(reader.str(), Some(a));
            prop_assert_eq!(reader.u64(), Some(x));
            prop_assert!(reader.rest().is_empty());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = KeyReader::new(&bytes).str();
        }
    }

    #[test]
    fn after_prefix_carries() {
        assert_eq!(after_prefix(&[1, 0xff]), Some(vec![2]));
        assert_eq!(after_prefix(&[0xff]), None);
    }
}
