/// Why bytes are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The record's format byte is not one that this build reads.
    #[error("record format {0} is unknown to this build; a newer Everfold wrote it")]
    UnknownFormat(u8),
    /// A fact's number, or its version, is not one that this build knows.
    #[error("fact {number} version {version} is unknown to this build; a newer Everfold wrote it")]
    UnknownFact {
        /// The fact's fixed number.
        number: u16,
        /// The version of its shape.
        version: u8,
    },
    /// The bytes end too early or a length points past the end.
    #[error("the bytes are truncated")]
    Truncated,
    /// Bytes are left over.
    #[error("{0} bytes are left over")]
    Trailing(usize),
    /// The encoded form is larger than the cap.
    #[error("{size} bytes are more than the cap of {cap}")]
    TooLarge {
        /// Encoded bytes.
        size: usize,
        /// Allowed bytes.
        cap: usize,
    },
    /// The bytes don't have the shape they should have.
    #[error("malformed: {0}")]
    Malformed(String),
}
