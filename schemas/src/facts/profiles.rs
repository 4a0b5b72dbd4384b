use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Json;

/// A field of a user's profile, none to remove it. Merge: the last wins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProfileFieldSet {
    /// Full user id.
    pub user: String,
    /// `displayname`, `avatar_url` or any other name.
    pub field: String,
    /// Its value.
    pub value: Option<Json>,
}
