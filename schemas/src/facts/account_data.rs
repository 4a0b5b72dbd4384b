use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Json;

/// A user's account data, global or for one room. Merge: the last wins. `m.fully_read` travels here too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AccountDataSet {
    /// Full user id.
    pub user: String,
    /// Room id; none is global.
    pub room: Option<String>,
    /// Event type.
    pub event_type: String,
    /// Content, an object.
    pub content: Json,
}

/// One tag of a room, none to remove it. Merge: the last operation on each tag wins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TagSet {
    /// Full user id.
    pub user: String,
    /// Room id.
    pub room: String,
    /// Name of the tag.
    pub tag: String,
    /// Its content, such as `{"order":0.5}`.
    pub content: Option<Json>,
}

/// One operation on a user's push rules. Merge: operations apply in log order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PushRuleChanged {
    /// Full user id.
    pub user: String,
    /// `override`, `underride`, `sender`, `room`, `content`.
    pub kind: String,
    /// Rule id.
    pub rule: String,
    /// What happens to it.
    pub op: PushRuleOp,
}

/// An operation on one push rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PushRuleOp {
    /// Added, or replaced in its place.
    Put {
        /// The rule as the client gave it: conditions or pattern, and actions.
        rule: Json,
        /// Goes right before this rule.
        before: Option<String>,
        /// Goes right after this rule.
        after: Option<String>,
    },
    /// Removed.
    Removed,
    /// Switched on or off.
    Enabled(bool),
    /// Other actions.
    Actions(Json),
}

/// A filter (client-server API, "Filtering"). Its id derives from its content, so that equal filters are stored once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FilterStored {
    /// Full user id.
    pub user: String,
    /// Filter id.
    pub id: String,
    /// Its definition.
    pub filter: Json,
}
