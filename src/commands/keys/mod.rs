//! End-to-end keys: what users upload of them, sign and claim (client-server API, "End-to-end encryption").

mod claim;
mod cross_signing;
mod signatures;
mod signed;
mod upload;

pub use claim::claim;
pub use cross_signing::{CrossSigningUpload, replaces_keys, set_cross_signing};
pub use signatures::{Failure, SignedKey, sign};
pub use upload::{Upload, upload};
