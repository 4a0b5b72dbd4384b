//! What is bundled with an event (client-server API, "Aggregations of child events").

use projections::{
    Position, StoreError,
    models::{
        events::{self, Head},
        relations::{self, Thread},
    },
    pdu::{ObjectWriter, quote},
};
use ruma::UserId;
use schemas::Nid;

use super::{Matcher, Reading};

/// At most so many references are bundled; the rest is had from /relations.
const MAX_REFERENCES: usize = 100;
/// Of the ways in which others relate to an event, so many are looked through for one that a filter wants.
const MAX_RELATING: usize = 1_000;
/// Behind a thread's last event, so many are looked through for one that the user is shown.
const MAX_LOOKED_AT: usize = 50;

impl Reading<'_> {
    /// Whether something relates to an event as a filter wants it.
    pub(super) fn is_related(&self, head: &Head, matcher: &Matcher<'_>) -> Result<bool, StoreError> {
        if !matcher.asks_for_relations() {
            return Ok(true);
        }
        for relating in relations::relating(self.view, head.room, &head.id).take(MAX_RELATING) {
            let (rel_type, sender) = relating?;
            if matcher.relation(&rel_type, &sender) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Adds `m.relations`, if anything relates to the event.
    pub(super) fn add_relations(&self, head: &Head, object: &mut ObjectWriter<'_>) -> Result<(), StoreError> {
        // Nearly always nothing does: to see that costs one look.
        if !relations::is_parent(self.view, head.room, &head.id)? {
            return Ok(());
        }
        let mut json = String::new();
        let mut bundle = ObjectWriter::new(&mut json);
        self.add_references(head, &mut bundle)?;
        self.add_replacement(head, &mut bundle)?;
        self.add_thread(head, &mut bundle)?;
        bundle.end();
        if json != "{}" {
            object.entry("m.relations", &json);
        }
        Ok(())
    }

    fn add_references(&self, head: &Head, bundle: &mut ObjectWriter<'_>) -> Result<(), StoreError> {
        let mut chunk = String::new();
        let children = relations::children(self.view, head.room, &head.id, Some("m.reference"), Position::START);
        for child in children.take(MAX_REFERENCES) {
            let (_, child) = child?;
            let Some(referring) = events::head(self.view, child.event)? else { continue };
            if self.shows(child.event, &referring)? {
                chunk.push_str(if chunk.is_empty() { "" } else { "," });
                chunk.push_str(r#"{"event_id":"#);
                quote(&referring.id, &mut chunk);
                chunk.push('}');
            }
        }
        if !chunk.is_empty() {
            bundle.entry("m.reference", &format!(r#"{{"chunk":[{chunk}]}}"#));
        }
        Ok(())
    }

    /// The last edit, as it would be shown by itself.
    pub(super) fn add_replacement(&self, head: &Head, bundle: &mut ObjectWriter<'_>) -> Result<(), StoreError> {
        let Some(edit) = relations::replacement(self.view, head)? else { return Ok(()) };
        let Some((edit_head, text)) = self.parts(edit)? else { return Ok(()) };
        if self.sees(edit, &edit_head)? {
            let whole = self.write(edit, &edit_head, text, |_, _| Ok(()))?;
            bundle.entry("m.replace", &whole);
        }
        Ok(())
    }

    fn add_thread(&self, head: &Head, bundle: &mut ObjectWriter<'_>) -> Result<(), StoreError> {
        let Some(thread) = relations::thread(self.view, head.room, &head.id)? else { return Ok(()) };
        let Some((latest, latest_head)) = self.latest_shown(head, &thread)? else { return Ok(()) };
        let mut count = thread.count;
        for ignored in &self.ignored {
            count = count.saturating_sub(relations::sent_in_thread(self.view, head.room, &head.id, ignored)?);
        }
        let own = |user: &UserId| relations::sent_in_thread(self.view, head.room, &head.id, user.as_str());
        let own = self.user.map(own).transpose()?.unwrap_or_default();
        let Some(text) = self.text(latest, &latest_head)? else { return Ok(()) };
        let whole = self.write(latest, &latest_head, text, |reading, object| {
            let mut json = String::new();
            let mut edits = ObjectWriter::new(&mut json);
            reading.add_replacement(&latest_head, &mut edits)?;
            edits.end();
            if json != "{}" {
                object.entry("m.relations", &json);
            }
            Ok(())
        })?;
        let mut json = String::new();
        let mut summary = ObjectWriter::new(&mut json);
        summary.entry("count", &count.to_string());
        let took_part = own > 0 || self.is(&head.sender);
        summary.entry("current_user_participated", if took_part { "true" } else { "false" });
        summary.entry("latest_event", &whole);
        summary.end();
        bundle.entry("m.thread", &json);
        Ok(())
    }

    fn latest_shown(&self, root: &Head, thread: &Thread) -> Result<Option<(Nid, Head)>, StoreError> {
        let before = Some(thread.position.next());
        let children = relations::children_before(self.view, root.room, &root.id, Some("m.thread"), before);
        for child in children.take(MAX_LOOKED_AT) {
            let (_, child) = child?;
            let Some(head) = events::head(self.view, child.event)? else { continue };
            if self.shows(child.event, &head)? {
                return Ok(Some((child.event, head)));
            }
        }
        Ok(None)
    }
}
