use projections::{
    Position, StoreError,
    models::{
        events::{self, Head},
        timeline::{self, Item},
    },
};
use ruma::api::Direction;
use schemas::Nid;

use super::{Matcher, Reading};

/// So many events are looked through for a page, where the user may see few or a filter lets few through.
const MAX_LOOKED_AT: usize = 5_000;

/// Where a page lies in a room's order.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// The room.
    pub room: Nid,
    /// From here.
    pub from: Position,
    /// Up to here; none is the end of the order.
    pub to: Option<Position>,
    /// Which way.
    pub direction: Direction,
    /// At most so many events.
    pub limit: usize,
}

/// An event of a page.
#[derive(Clone, Debug)]
pub struct Found {
    /// Where it stands.
    pub position: Position,
    /// Its short id.
    pub event: Nid,
    /// What it is.
    pub head: Head,
    /// Its text, to be finished.
    pub text: String,
}

/// Events in the order in which they were asked for, and where the rest begins, if there is more.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The events.
    pub events: Vec<Found>,
    /// Where to go on.
    pub next: Option<Position>,
}

impl Reading<'_> {
    /// The next events of a room's order that the user is shown and a filter lets through. There may be fewer than
    /// asked for, or none, and more behind them.
    ///
    /// # Errors
    /// When the store fails.
    pub fn page(&self, span: Span, matcher: &Matcher<'_>) -> Result<Page, StoreError> {
        let mut page = Page::default();
        let mut on = span.from;
        for (looked_at, item) in self.items(span).enumerate() {
            let (position, item) = item?;
            if looked_at == MAX_LOOKED_AT {
                page.next = Some(on);
                break;
            }
            if let Some((head, text)) = self.fitting(item.event, matcher)? {
                if page.events.len() == span.limit {
                    page.next = Some(page.events.last().map_or(span.from, |last| past(span.direction, last.position)));
                    break;
                }
                page.events.push(Found { position, event: item.event, head, text });
            }
            on = past(span.direction, position);
        }
        Ok(page)
    }

    fn items(&self, span: Span) -> Box<dyn Iterator<Item = Result<(Position, Item), StoreError>> + '_> {
        let Span { room, from, to, direction, .. } = span;
        let before = move |item: &Result<(Position, Item), StoreError>| match (item, to, direction) {
            (Ok((position, _)), Some(to), Direction::Forward) => *position < to,
            (Ok((position, _)), Some(to), Direction::Backward) => *position >= to,
            _ => true,
        };
        match direction {
            Direction::Forward => Box::new(timeline::forward(self.view, room, from).take_while(before)),
            Direction::Backward => Box::new(timeline::backward(self.view, room, from).take_while(before)),
        }
    }

    /// An event that the user is shown and a filter lets through, and its text.
    ///
    /// # Errors
    /// When the store fails.
    pub fn fitting(&self, event: Nid, matcher: &Matcher<'_>) -> Result<Option<(Head, String)>, StoreError> {
        let Some(head) = events::head(self.view, event)? else { return Ok(None) };
        if !matcher.event(&head) || !self.shows(event, &head)? || !self.is_related(&head, matcher)? {
            return Ok(None);
        }
        let text = self.text(event, &head)?;
        Ok(text.filter(|text| matcher.text(text)).map(|text| (head, text)))
    }

    /// An event of a state that a filter lets through, and its text: whether the user may see it is not asked.
    ///
    /// # Errors
    /// When the store fails.
    pub fn fitting_state(&self, event: Nid, matcher: &Matcher<'_>) -> Result<Option<(Head, String)>, StoreError> {
        let found = self.parts(event)?;
        let Some((head, text)) = found.filter(|(head, text)| matcher.event(head) && matcher.text(text)) else {
            return Ok(None);
        };
        Ok(self.is_related(&head, matcher)?.then_some((head, text)))
    }
}

/// The point behind an event, as one goes. A position is the point just before what stands there.
const fn past(direction: Direction, position: Position) -> Position {
    match direction {
        Direction::Forward => position.next(),
        Direction::Backward => position,
    }
}
