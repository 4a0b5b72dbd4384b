//! Taking a room out of the read models, a bounded number of keys at a time.
//!
//! `RoomDetached` makes a room unknown. Its events go by `HistoryWithdrawn` and `EventsForgotten`, which the models fold like
//! everything else; what the models have by room goes by `RoomPurged`, one model after another, in the order of
//! [`ROOM_MODELS`]. What stays are blocks, reports and the audit trail.

use schemas::{After, CopyId, Fact, Header, Origin, RecordId, facts::RoomPurged};

use crate::{
    At, Batch, FoldError, Model, StoreError, View,
    models::{account_data, activity, events, membership, push, receipts, relations, state, timeline},
    read::{Range, Read, Row, Table},
};

/// The models that have rows by room, in the order in which they forget a room: none needs what is gone by then.
pub const ROOM_MODELS: [Model; 9] = [
    Model::AccountData,
    Model::Receipts,
    Model::Push,
    Model::Relations,
    Model::Activity,
    Model::Membership,
    Model::Timeline,
    Model::State,
    Model::Events,
];

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Keys.
    pub keys: u64,
    /// Bytes of those keys and their values.
    pub bytes: u64,
}

/// Deletes up to so many keys.
pub(crate) struct Sweep<'s, 'a> {
    pub(crate) batch: &'s mut Batch<'a>,
    left: usize,
}

impl Sweep<'_, '_> {
    /// The first rows with a prefix, as many as may be deleted.
    pub(crate) fn rows(&self, table: Table, prefix: impl Into<Vec<u8>>) -> Result<Vec<Row>, StoreError> {
        self.batch.scan(table, Range::prefix(prefix)).take(self.left).collect()
    }

    /// Deletes a key, even if it is one too many: what belongs together goes together. Only what is there counts, so that a
    /// step which removes fewer than it may has left nothing.
    pub(crate) fn delete(&mut self, table: Table, key: impl AsRef<[u8]>) -> Result<(), StoreError> {
        if self.batch.get(table, key.as_ref())?.is_some() {
            self.batch.delete(table, key);
            self.left = self.left.saturating_sub(1);
        }
        Ok(())
    }

    /// Nothing more is to be deleted.
    pub(crate) const fn is_full(&self) -> bool {
        self.left == 0
    }

    /// Deletes the first keys with a prefix.
    pub(crate) fn prefix(&mut self, table: Table, prefix: impl Into<Vec<u8>>) -> Result<(), StoreError> {
        for (key, _) in self.rows(table, prefix)? {
            self.delete(table, key)?;
        }
        Ok(())
    }
}

/// Folds a purge into the model that it is about.
pub(crate) fn fold(model: Model, fact: &Fact, batch: &mut Batch<'_>) -> Result<(), StoreError> {
    let Fact::RoomPurged(RoomPurged { room, model: named, keys, last }) = fact else { return Ok(()) };
    if named != model.name() {
        return Ok(());
    }
    // However another version of a model keeps its rows: with its last step all are gone.
    let left = if *last { usize::MAX } else { usize::try_from(*keys).unwrap_or(usize::MAX) };
    let mut sweep = Sweep { batch, left };
    if model == Model::AccountData {
        return account_data::purge(room, &mut sweep);
    }
    let Some(nid) = events::detached(sweep.batch, room)? else { return Ok(()) };
    match model {
        Model::Activity => activity::purge(nid, &mut sweep),
        Model::Receipts => receipts::purge(nid, &mut sweep),
        Model::Push => push::purge(nid, &mut sweep),
        Model::Relations => relations::purge(nid, &mut sweep),
        Model::Membership => membership::purge(nid, &mut sweep),
        Model::Timeline => timeline::purge(nid, &mut sweep),
        Model::State => state::purge(nid, &mut sweep),
        Model::Events => events::purge(room, nid, &mut sweep),
        _ => Ok(()),
    }
}

/// What these facts would remove if they were folded next.
///
/// # Errors
/// When the store fails, or they can't be folded.
pub fn measure(view: &View, facts: &[Fact]) -> Result<Removed, FoldError> {
    let mark = After { id: RecordId([0; 16]), copy: CopyId::default() };
    let header = Header::plain(mark, view.log_time().ms, Origin::Server);
    let mut batch = Batch::new(view);
    let mut at = At { lsn: view.lsn().next(), index: 0, header: &header, log_time: view.log_time() };
    for fact in facts {
        crate::projector::fold_fact(&mut at, fact, crate::models::ALL, &mut batch)?;
    }
    Ok(batch.removed()?)
}

#[cfg(test)]
mod tests {
    use schemas::{
        Nid,
        facts::{
            AccountDataSet, EventsForgotten, HistoryWithdrawn, ReceiptKind, ReceiptSet, RoomDetached, RoomForgotten,
            RoomPublished, TagSet,
        },
    };
    use serde_json::json;

    use super::*;
    use crate::{
        digest,
        testing::{ALICE, BOB, World, rooms::Room},
    };

    const ID: &str = "!r:example.org";

    /// A room with something of every kind in it; gives the ids of its events.
    fn lively(world: &mut World) -> Vec<String> {
        let mut room = Room::made(world, ID, ALICE);
        let mut ids = vec![format!("$create-{ID}"), format!("$creator-{ID}")];
        let mut say = |world: &mut World, event: crate::testing::rooms::Event| {
            ids.push(event.learned.id.clone());
            world.fold(event);
        };
        say(world, room.state("$name", ALICE, "m.room.name", "", json!({"name": "Lively"})));
        say(world, room.member("$bob", BOB, "join"));
        say(world, room.message("$root", ALICE, "Hi bob"));
        let reaction = json!({"rel_type": "m.annotation", "event_id": "$root", "key": "+"});
        say(world, room.relating("$reaction", BOB, reaction, json!({})));
        let thread = json!({"rel_type": "m.thread", "event_id": "$root"});
        say(world, room.relating("$thread", BOB, thread, json!({"body": "so", "msgtype": "m.text"})));
        say(world, room.redaction("$redaction", ALICE, "$unknown", true));
        say(world, room.member("$bob-left", BOB, "leave"));
        let forgotten = RoomForgotten { user: BOB.into(), room: ID.into() };
        world.fold([Fact::from(RoomPublished { room: ID.into(), published: true }), forgotten.into()]);
        let receipt = ReceiptSet {
            room: ID.into(),
            user: ALICE.into(),
            kind: ReceiptKind::Public,
            thread: None,
            event: "$root".into(),
            at_ms: 1,
        };
        let (user, event_type, content) = (ALICE.into(), "x".into(), "{}".to_owned().into());
        let data = AccountDataSet { user, room: Some(ID.into()), event_type, content };
        let tag = TagSet {
            user: ALICE.into(),
            room: ID.into(),
            tag: "m.favourite".into(),
            content: Some("{}".to_owned().into()),
        };
        world.fold([Fact::from(receipt), data.into(), tag.into()]);
        ids
    }

    /// Keys with any of these in them, outside of what is kept by purpose.
    fn keys_with(world: &World, named: &[Vec<u8>]) -> Vec<String> {
        let (view, mut found) = (world.view(), Vec::new());
        for projection in crate::models::ALL {
            if matches!(projection.model, Model::Admission | Model::Audit | Model::Jobs) {
                continue;
            }
            for prefix in 0..=64 {
                let table = Table { model: projection.model, prefix };
                for row in view.scan(table, Range::prefix([])) {
                    let (key, _) = row.unwrap();
                    if named.iter().any(|name| key.windows(name.len()).any(|part| part == name)) {
                        found.push(format!("{table}: {}", String::from_utf8_lossy(&key)));
                    }
                }
            }
        }
        found
    }

    fn purge_of(model: Model, keys: u32, last: bool) -> Fact {
        RoomPurged { room: ID.into(), model: model.name().into(), keys, last }.into()
    }

    #[test]
    fn step_by_step_nothing_is_left_of_a_room_and_it_can_begin_again() {
        let mut world = World::new();
        let other = Room::other(&mut world, BOB);
        let before = digest::all(&world.view()).unwrap();
        let ids = lively(&mut world);
        let room = world.room(ID);
        let mut named: Vec<Vec<u8>> = ids.iter().map(|id| world.event(id).to_bytes().to_vec()).collect();
        named.extend(ids.iter().map(|id| id.clone().into_bytes()));
        named.extend([room.to_bytes().to_vec(), ID.as_bytes().to_vec(), b"$unknown".to_vec()]);
        assert!(keys_with(&world, &named).len() > 80, "{}", keys_with(&world, &named).len());

        world.fold([Fact::from(RoomDetached { room: ID.into() })]);
        assert_eq!(events::room_nid(&world.view(), ID).unwrap(), None);
        assert_eq!(events::room(&world.view(), room).unwrap(), None);
        for some in ids.chunks(2) {
            let withdrawn = HistoryWithdrawn { room: ID.into(), events: some.to_vec() };
            let forgotten = EventsForgotten { room: ID.into(), forgotten: some.to_vec(), kept: vec![] };
            world.fold([Fact::from(withdrawn), forgotten.into()]);
        }
        for model in ROOM_MODELS {
            for step in 0.. {
                assert!(step < 100, "{model:?} comes to no end");
                let removed = measure(&world.view(), &[purge_of(model, 2, false)]).unwrap();
                let last = removed.keys < 2;
                assert_eq!(measure(&world.view(), &[purge_of(model, 2, last)]).unwrap(), removed, "{model:?}");
                let cost = world.fold([purge_of(model, 2, last)]).cost;
                assert!(cost.writes < 16, "{model:?}: {cost:?}");
                if removed.keys < 2 {
                    break;
                }
            }
        }
        assert_eq!(keys_with(&world, &named), [""; 0]);
        for (before, after) in before.iter().zip(digest::all(&world.view()).unwrap()) {
            // The trail goes on, and numbers that are zero again have rows.
            if !["admission", "audit", "rooms", "directory"].contains(&before.model) {
                assert_eq!(*before, after);
            }
        }
        let again = Room::made(&mut world, ID, ALICE);
        assert!(world.room(ID) > room);
        drop((again, other));
        world.check_replay();
    }

    #[test]
    fn what_is_removed_is_measured() {
        let mut world = World::new();
        lively(&mut world);
        let nid: Nid = world.room(ID);
        let detached = [Fact::from(RoomDetached { room: ID.into() })];
        let removed = measure(&world.view(), &detached).unwrap();
        assert!(removed.keys > 10 && removed.bytes > removed.keys * 10, "{removed:?}");
        assert_eq!(events::room_nid(&world.view(), ID).unwrap(), Some(nid), "nothing has changed");
        assert_eq!(measure(&world.view(), &[purge_of(Model::State, 9, true)]).unwrap(), Removed::default());
    }
}
