//! Every model, in fold order: a model's fold reads only models above it.
//!
//! | Model | The questions it answers |
//! |---|---|
//! | admission | Is this record void? Who wrote this key last? Was this request applied? |
//! | staging | The parts of records too large for one. |
//! | accounts | Is there such an account, and may it be used? Can this registration token be used? |
//! | devices | Which devices has a user? |
//! | sessions | Whose is this token? |
//! | login_tokens | Whom does this login token let in, and until when? |
//! | stand_ins | Who acts with this token in whose stead? |
//! | identities | Which third-party ids has this user? Whose is this one? |
//! | seen | When was this device last seen, from where and by which program? |
//! | pushers | Through which push gateways does this user want to be notified? |
//! | keys | What are the keys of this user's devices? Who changed theirs since? Which key did a claim get? |
//! | profiles | What does this user's profile say? |
//! | users | Which users are there, in any order? Which have a name like this, or are of this kind? How many are they? |
//! | account_data | What is this user's account data, and what of it changed since? What does this filter say? |
//! | push_rules | What are this user's push rules? |
//! | to_device | What waits for this device? |
//! | events | Which event is this, what does it say, what was decided about it? Which version has a room? |
//! | state | What is the state of this room, what was it before this event, or as of this Lsn? |
//! | timeline | In which order do a room's events stand? What was there since? On what is the next one built? |
//! | membership | Who is in this room, in which rooms is this user, how many are they, of which servers? |
//! | activity | How many invitations has this user sent since then, how many rooms have they joined? |
//! | following | Whose rooms have not yet followed a change of their profile, or the end of their account? |
//! | relations | What relates to this event, and how? What is its last edit? Which threads has a room? |
//! | receipts | How far has everybody read? What of that is new since? |
//! | push | How many unread notifications and highlights has this user in this room? |
//! | directory | Where does this alias point? Which rooms are in the public list, the largest first? |
//! | rooms | What is this room called, how large is it, is it blocked? Which rooms are there, in any order? |
//! | sizes | Which rooms take the most bytes? |
//! | reports | What have users reported, the newest first, by whom, about whom, and how many are they? |
//! | leases | Which node owns this shard of the work that is done once? |
//! | jobs | Which long pieces of work have administrators set going, how far are they, how did they end? |
//! | audit | Who did what, when? Which records are void, and why? |

pub mod account_data;
pub mod accounts;
pub mod activity;
pub mod admission;
pub mod audit;
pub mod devices;
pub mod directory;
pub mod events;
pub mod following;
pub mod identities;
pub mod jobs;
pub mod keys;
pub mod leases;
pub mod login_tokens;
pub mod membership;
pub mod profiles;
pub mod push;
pub mod push_rules;
pub mod pushers;
pub mod receipts;
pub mod relations;
pub mod reports;
pub mod rooms;
pub mod seen;
pub mod sessions;
pub mod sizes;
pub mod staging;
pub mod stand_ins;
pub mod state;
pub mod timeline;
pub mod to_device;
pub mod users;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod user_side;

use crate::Projection;

macro_rules! models {
    ($($name:ident = $module:ident,)*) => {
        /// A model, by its place in fold order.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Model {
            $(#[doc = concat!("See [`mod@", stringify!($module), "`].")] $name,)*
        }

        impl Model {
            /// The word for it in column families, tools and metrics.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($module),)* }
            }

            /// The model with this name.
            #[must_use]
            pub fn named(name: &str) -> Option<Self> {
                match name { $(stringify!($module) => Some(Self::$name),)* _ => None }
            }

            /// The model's fold.
            #[must_use]
            pub const fn projection(self) -> &'static Projection {
                match self { $(Self::$name => &$module::PROJECTION,)* }
            }
        }

        /// All folds, in order.
        pub const ALL: &[&Projection] = &[$(&$module::PROJECTION,)*];
    };
}

models! {
    Admission = admission,
    Staging = staging,
    Accounts = accounts,
    Devices = devices,
    Sessions = sessions,
    LoginTokens = login_tokens,
    StandIns = stand_ins,
    Identities = identities,
    Seen = seen,
    Pushers = pushers,
    Keys = keys,
    Profiles = profiles,
    Users = users,
    AccountData = account_data,
    PushRules = push_rules,
    ToDevice = to_device,
    Events = events,
    State = state,
    Timeline = timeline,
    Membership = membership,
    Activity = activity,
    Following = following,
    Relations = relations,
    Receipts = receipts,
    Push = push,
    Directory = directory,
    Rooms = rooms,
    Sizes = sizes,
    Reports = reports,
    Leases = leases,
    Jobs = jobs,
    Audit = audit,
}

/// The folds of some models and of all that those read, in order. Admission is always among them: it says which
/// records count.
#[must_use]
pub fn with_reads(wanted: &[Model]) -> Vec<&'static Projection> {
    let mut needed: Vec<Model> = wanted.to_vec();
    needed.extend([Model::Admission, Model::Staging]);
    let mut at = 0;
    while let Some(&model) = needed.get(at) {
        at += 1;
        for &read in model.projection().reads {
            if !needed.contains(&read) {
                needed.push(read);
            }
        }
    }
    ALL.iter().filter(|p| needed.contains(&p.model)).copied().collect()
}
