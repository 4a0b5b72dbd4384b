use std::collections::BTreeSet;

use projections::models::events::Head;
use ruma::api::client::filter::{Filter, RoomEventFilter, UrlFilter};
use serde::Deserialize;

/// What of a room event filter ruma's lacks (client-server API, `RoomEventFilter`): how others relate to the events that
/// are wanted. Both have to be true of one of them; an empty list asks for nothing.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct RelatedBy {
    #[serde(rename = "related_by_senders")]
    senders: Option<BTreeSet<String>>,
    #[serde(rename = "related_by_rel_types")]
    rel_types: Option<BTreeSet<String>>,
}

/// A filter, made ready to be asked often.
#[derive(Debug, Default)]
pub struct Matcher<'a> {
    types: Option<&'a [String]>,
    not_types: &'a [String],
    senders: Option<Vec<&'a str>>,
    not_senders: Vec<&'a str>,
    rooms: Option<Vec<&'a str>>,
    not_rooms: Vec<&'a str>,
    with_url: Option<bool>,
    related_by_senders: Option<&'a BTreeSet<String>>,
    related_by_rel_types: Option<&'a BTreeSet<String>>,
}

impl<'a> From<&'a RoomEventFilter> for Matcher<'a> {
    fn from(filter: &'a RoomEventFilter) -> Self {
        Self {
            types: filter.types.as_deref(),
            not_types: &filter.not_types,
            senders: filter.senders.as_ref().map(|users| users.iter().map(|user| user.as_str()).collect()),
            not_senders: filter.not_senders.iter().map(|user| user.as_str()).collect(),
            rooms: filter.rooms.as_ref().map(|rooms| rooms.iter().map(|room| room.as_str()).collect()),
            not_rooms: filter.not_rooms.iter().map(|room| room.as_str()).collect(),
            with_url: filter.url_filter.as_ref().map(|url| matches!(url, UrlFilter::EventsWithUrl)),
            ..Self::default()
        }
    }
}

impl<'a> From<&'a Filter> for Matcher<'a> {
    fn from(filter: &'a Filter) -> Self {
        Self {
            types: filter.types.as_deref(),
            not_types: &filter.not_types,
            senders: filter.senders.as_ref().map(|users| users.iter().map(|user| user.as_str()).collect()),
            not_senders: filter.not_senders.iter().map(|user| user.as_str()).collect(),
            ..Self::default()
        }
    }
}

impl<'a> Matcher<'a> {
    /// The same filter, which asks for relations too.
    #[must_use]
    pub fn related_by(mut self, related: &'a RelatedBy) -> Self {
        self.related_by_senders = related.senders.as_ref().filter(|senders| !senders.is_empty());
        self.related_by_rel_types = related.rel_types.as_ref().filter(|types| !types.is_empty());
        self
    }

    /// Whether it matters what relates to an event.
    #[must_use]
    pub const fn asks_for_relations(&self) -> bool {
        self.related_by_senders.is_some() || self.related_by_rel_types.is_some()
    }

    /// Whether an event is wanted that somebody's event relates to in this way.
    #[must_use]
    pub fn relation(&self, rel_type: &str, sender: &str) -> bool {
        self.related_by_rel_types.is_none_or(|wanted| wanted.contains(rel_type))
            && self.related_by_senders.is_none_or(|wanted| wanted.contains(sender))
    }

    /// Whether the filter lets events of a room through at all.
    #[must_use]
    pub fn room(&self, room: &str) -> bool {
        self.rooms.as_ref().is_none_or(|rooms| rooms.contains(&room)) && !self.not_rooms.contains(&room)
    }

    /// Whether an event type is wanted.
    #[must_use]
    pub fn event_type(&self, event_type: &str) -> bool {
        let wanted = self.types.is_none_or(|types| types.iter().any(|pattern| matches(pattern, event_type)));
        wanted && !self.not_types.iter().any(|pattern| matches(pattern, event_type))
    }

    /// Whether a sender is wanted.
    #[must_use]
    pub fn sender(&self, sender: &str) -> bool {
        self.senders.as_ref().is_none_or(|senders| senders.contains(&sender)) && !self.not_senders.contains(&sender)
    }

    /// Whether an event is wanted by its type and sender.
    #[must_use]
    pub fn event(&self, head: &Head) -> bool {
        self.event_type(&head.event_type) && self.sender(&head.sender)
    }

    /// Whether an event is wanted by its text, as clients see it: whether its content has a `url`.
    #[must_use]
    pub fn text(&self, text: &str) -> bool {
        #[derive(Deserialize)]
        struct Event {
            content: Content,
        }
        #[derive(Deserialize)]
        struct Content {
            url: Option<serde::de::IgnoredAny>,
        }
        let Some(with_url) = self.with_url else { return true };
        let has_url = serde_json::from_str::<Event>(text).is_ok_and(|event| event.content.url.is_some());
        has_url == with_url
    }
}

/// A pattern is a type, where `*` stands for any text.
fn matches(pattern: &str, event_type: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(first) = parts.next() else { return false };
    let Some(mut rest) = event_type.strip_prefix(first) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, event_type, expected) in [
            ("m.room.message", "m.room.message", true),
            ("m.room.message", "m.room.messages", false),
            ("m.room.*", "m.room.message", true),
            ("m.*.message", "m.room.message", true),
            ("*", "", true),
            ("*message", "m.room.message", true),
            ("m.*.*.x", "m.a.b.x", true),
            ("m.*.*.x", "m.a.x", false),
            ("", "m", false),
        ] {
            assert_eq!(matches(pattern, event_type), expected, "{pattern} {event_type}");
        }
    }

    #[test]
    fn empty_lists_differ_from_none() {
        let filter = RoomEventFilter::ignore_all();
        assert!(!Matcher::from(&filter).event_type("m.room.message"));
        assert!(Matcher::from(&RoomEventFilter::empty()).event_type("m.room.message"));
    }
}
