//! Room history visibility (client-server API): who may see an event, by the state at that event.

use ruma::events::{
    StateEventType,
    room::{history_visibility::HistoryVisibility, member::MembershipState},
};
use schemas::facts::Visibility;
use serde::Deserialize;

use super::{Pdu, State};

/// The history visibility of a state: `shared` where none is set or it is not understood.
#[must_use]
pub fn of(state: impl State) -> Visibility {
    state(&StateEventType::RoomHistoryVisibility, "").map_or(Visibility::Shared, |event| set_by(&event))
}

/// What an `m.room.history_visibility` event sets.
#[must_use]
pub fn set_by(event: &Pdu) -> Visibility {
    #[derive(Deserialize)]
    struct Content {
        history_visibility: HistoryVisibility,
    }
    match event.content_as::<Content>().map(|content| content.history_visibility) {
        Some(HistoryVisibility::WorldReadable) => Visibility::WorldReadable,
        Some(HistoryVisibility::Invited) => Visibility::Invited,
        Some(HistoryVisibility::Joined) => Visibility::Joined,
        _ => Visibility::Shared,
    }
}

/// What decides whether a user may see an event.
#[derive(Clone, Debug)]
pub struct Sight {
    /// History visibility before the event.
    pub visibility: Visibility,
    /// And after it, if the event is what sets it.
    pub visibility_after: Option<Visibility>,
    /// The user's membership before the event.
    pub membership: MembershipState,
    /// And after it, if the event is what sets it.
    pub membership_after: Option<MembershipState>,
    /// Whether the user joined the room at any point after the event.
    pub joined_later: bool,
}

impl Sight {
    /// May the user see the event? For what sets visibility or the user's own membership, before *or* after is enough.
    #[must_use]
    pub fn allows(&self) -> bool {
        let visibilities = [Some(self.visibility), self.visibility_after];
        let memberships = [Some(&self.membership), self.membership_after.as_ref()];
        visibilities.into_iter().flatten().any(|visibility| {
            memberships.into_iter().flatten().any(|membership| allows(visibility, membership, self.joined_later))
        })
    }
}

fn allows(visibility: Visibility, membership: &MembershipState, joined_later: bool) -> bool {
    match (visibility, membership) {
        (Visibility::WorldReadable, _) | (_, MembershipState::Join) => true,
        (Visibility::Shared, _) => joined_later,
        (Visibility::Invited, MembershipState::Invite) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use MembershipState as M;
    use Visibility as V;

    use super::*;

    fn sight(visibility: V, membership: M) -> Sight {
        Sight { visibility, visibility_after: None, membership, membership_after: None, joined_later: false }
    }

    #[test]
    fn the_table_of_the_specification() {
        for (visibility, invited, left) in [
            (V::WorldReadable, true, true),
            (V::Shared, false, false),
            (V::Invited, true, false),
            (V::Joined, false, false),
        ] {
            assert!(sight(visibility, M::Join).allows());
            assert_eq!(sight(visibility, M::Invite).allows(), invited, "{visibility:?}");
            assert_eq!(sight(visibility, M::Leave).allows(), left, "{visibility:?}");
            assert_eq!(sight(visibility, M::Ban).allows(), left, "{visibility:?}");
            let later = Sight { joined_later: true, ..sight(visibility, M::Leave) };
            assert_eq!(later.allows(), matches!(visibility, V::WorldReadable | V::Shared), "{visibility:?}");
        }
    }

    #[test]
    fn changes_can_be_seen_from_either_side() {
        for (before, after) in [(V::WorldReadable, V::Joined), (V::Joined, V::WorldReadable)] {
            assert!(Sight { visibility_after: Some(after), ..sight(before, M::Leave) }.allows());
        }
        for (before, after) in [(M::Leave, M::Join), (M::Join, M::Ban)] {
            assert!(Sight { membership_after: Some(after), ..sight(V::Joined, before) }.allows());
        }
        assert!(!Sight { membership_after: Some(M::Invite), ..sight(V::Joined, M::Leave) }.allows());
        assert!(Sight { membership_after: Some(M::Invite), ..sight(V::Invited, M::Leave) }.allows());
    }
}
