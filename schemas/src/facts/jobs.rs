use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Json;

/// An administrator sets a long piece of work going: the record's origin. It is done step by step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JobStarted {
    /// Names it for ever.
    pub id: String,
    /// What kind of work, as the admin API calls it.
    pub action: String,
    /// What it works on: a room id or a user id.
    pub resource: Option<String>,
    /// What was asked for, an object.
    pub parameters: Json,
}

/// A step of a job was done. What it did stands in the same record, or in records before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JobAdvanced {
    /// The job.
    pub id: String,
    /// How many steps have been done with this one.
    pub step: u64,
    /// All that the next step goes on from, an object.
    pub progress: Json,
    /// What comes to the job's lists, in order.
    pub items: Vec<JobItem>,
}

/// An entry of one of a job's lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JobItem {
    /// Which list.
    pub list: String,
    /// The entry.
    pub item: String,
    /// What is said of it.
    pub note: Option<String>,
}

/// A job is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JobEnded {
    /// The job.
    pub id: String,
    /// Why it failed, if it did.
    pub error: Option<String>,
}
