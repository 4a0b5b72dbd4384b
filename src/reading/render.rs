use projections::{
    StoreError,
    models::{
        events::{self, Head},
        state,
    },
    pdu::{Halves, ObjectWriter, client, quote},
};
use ruma::serde::Raw;
use schemas::{DecodeError, Nid, Part};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::Reading;

impl Reading<'_> {
    /// An event of a room's history as the user sees it: its text ([`events::client`]) with all that belongs into
    /// `unsigned`.
    ///
    /// # Errors
    /// When the store fails.
    pub fn finish<T>(&self, event: Nid, head: &Head, text: String) -> Result<Raw<T>, StoreError> {
        raw(self.write(event, head, text, |reading, unsigned| reading.add_relations(head, unsigned))?)
    }

    /// Like [`Reading::finish`], with the relations that are given.
    pub(super) fn write(
        &self,
        event: Nid,
        head: &Head,
        text: String,
        add_relations: impl FnOnce(&Self, &mut ObjectWriter<'_>) -> Result<(), StoreError>,
    ) -> Result<String, StoreError> {
        let mut unsigned = String::with_capacity(128);
        let mut object = ObjectWriter::new(&mut unsigned);
        object.entry("age", &self.age(head));
        add_relations(self, &mut object)?;
        if self.user.is_some() {
            quote(self.membership_at(event, head)?.name(), object.key("membership"));
        }
        self.add_previous(event, head, &mut object)?;
        self.add_redaction(head, &mut object)?;
        self.add_transaction(event, head, &mut object)?;
        object.end();
        Ok(self.with_unsigned(text, &unsigned))
    }

    /// An event of a state as the user sees it. What it was before is not told: who asks for state wants to know what
    /// is.
    ///
    /// # Errors
    /// When the store fails.
    pub fn finish_state<T>(&self, head: &Head, text: String) -> Result<Raw<T>, StoreError> {
        let mut unsigned = String::with_capacity(64);
        let mut object = ObjectWriter::new(&mut unsigned);
        object.entry("age", &self.age(head));
        self.add_redaction(head, &mut object)?;
        object.end();
        raw(self.with_unsigned(text, &unsigned))
    }

    /// An event of a room's history by its short id, if it is known; whether the user may see it is not asked.
    ///
    /// # Errors
    /// When the store fails.
    pub fn event<T>(&self, event: Nid) -> Result<Option<Raw<T>>, StoreError> {
        let Some((head, text)) = self.parts(event)? else { return Ok(None) };
        self.finish(event, &head, text).map(Some)
    }

    /// An event of a state by its short id, if it is known; whether the user may see it is not asked.
    ///
    /// # Errors
    /// When the store fails.
    pub fn state_event<T>(&self, event: Nid) -> Result<Option<Raw<T>>, StoreError> {
        let Some((head, text)) = self.parts(event)? else { return Ok(None) };
        self.finish_state(&head, text).map(Some)
    }

    pub(super) fn parts(&self, event: Nid) -> Result<Option<(Head, String)>, StoreError> {
        let head = events::head(self.view, event)?;
        let Some(head) = head else { return Ok(None) };
        let text = self.text(event, &head)?;
        Ok(text.map(|text| (head, text)))
    }

    /// An event's text in the format that is wanted, without `unsigned`.
    pub(super) fn text(&self, event: Nid, head: &Head) -> Result<Option<String>, StoreError> {
        if !self.federated {
            return events::client(self.view, event);
        }
        let Some(bytes) = events::bytes(self.view, event)? else { return Ok(None) };
        let rest = bytes.rest.as_ref().and_then(Part::open);
        let whole = Halves { skeleton: &bytes.skeleton.0, rest }.join();
        // Clients could not name it otherwise: between servers the id is a hash that each works out.
        let mut text = String::from(r#"{"event_id":"#);
        quote(&head.id, &mut text);
        let named = whole.map(|whole| Some(text + "," + whole.trim_start_matches('{')));
        named.map_err(|error| {
            let source = DecodeError::Malformed(error.to_string());
            StoreError::Row { table: "events".into(), source }
        })
    }

    fn with_unsigned(&self, mut text: String, unsigned: &str) -> String {
        if let Some(room) = self.room_id {
            client::append_room_id(&mut text, room.as_str());
        }
        client::append_unsigned(&mut text, unsigned);
        text
    }

    /// Milliseconds since the event was sent; below zero if the sender's clock is ahead.
    fn age(&self, head: &Head) -> String {
        let (now, sent) = (i128::from(self.now_ms), i128::from(head.origin_server_ts));
        (now - sent).to_string()
    }

    /// The transaction id, for the device that chose it alone.
    fn add_transaction(&self, event: Nid, head: &Head, object: &mut ObjectWriter<'_>) -> Result<(), StoreError> {
        let Some(device) = self.device.filter(|_| self.is(&head.sender)) else { return Ok(()) };
        if let Some(transaction) = events::transaction(self.view, event)?
            && transaction.device == device.as_str()
        {
            quote(&transaction.id, object.key("transaction_id"));
        }
        Ok(())
    }

    fn add_redaction(&self, head: &Head, object: &mut ObjectWriter<'_>) -> Result<(), StoreError> {
        let Some(by) = head.redacted_by else { return Ok(()) };
        let Some((redaction, text)) = self.parts(by)? else { return Ok(()) };
        let unsigned = format!(r#"{{"age":{}}}"#, self.age(&redaction));
        object.entry("redacted_because", &self.with_unsigned(text, &unsigned));
        Ok(())
    }

    /// What a state event replaces, if the user may see that.
    fn add_previous(&self, event: Nid, head: &Head, object: &mut ObjectWriter<'_>) -> Result<(), StoreError> {
        #[derive(Deserialize)]
        struct Event<'a> {
            #[serde(borrow)]
            content: &'a RawValue,
        }
        let Some(state_key) = &head.state_key else { return Ok(()) };
        let Some(state) = self.state_before(event)? else { return Ok(()) };
        let Some(previous) = state::get(self.view, &state, &head.event_type, state_key)? else { return Ok(()) };
        let Some((before, text)) = self.parts(previous)? else { return Ok(()) };
        if self.sees(previous, &before)? {
            let Event { content } = serde_json::from_str(&text).map_err(|error| corrupt(&error))?;
            object.entry("prev_content", content.get());
        }
        quote(&before.id, object.key("replaces_state"));
        Ok(())
    }
}

fn raw<T>(text: String) -> Result<Raw<T>, StoreError> {
    RawValue::from_string(text).map(Raw::from_json).map_err(|error| corrupt(&error))
}

fn corrupt(error: &serde_json::Error) -> StoreError {
    let source = DecodeError::Malformed(format!("an event's text is not JSON: {error}"));
    StoreError::Row { table: "events".into(), source }
}
