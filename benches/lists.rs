//! What a page of the administrators' lists of rooms and of users costs, in small servers and in large ones: the first page,
//! one in the middle and the last one, in every order and both directions, with and without filters and search.
//!
//! The read models are folded from facts in memory, without a log. `EVERFOLD_BENCH_SIZES` says how many rooms, and then as
//! many users, there are (`1000,1000000` unless told), the argument `rooms` or `users` that only those are measured. Every
//! figure is the median of many pages.
#![expect(clippy::expect_used, reason = "a bench that can't go on says so by panicking")]

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use projections::{
    Entry, Page, Projector, Reader, Source, Store, StoreError, StoreOptions, View,
    models::{rooms, users},
    pdu,
};
use ruma::{CanonicalJsonObject, EventId, RoomId, room_version_rules::RedactionRules};
use schemas::{
    After, Blob, CopyId, FORMAT, Fact, Header, Json, Lsn, Origin, Record, RecordId,
    facts::{
        EventLearned, EventPlaced, Genesis, Placement, ProfileFieldSet, RoomPublished, StateBase, StateBefore,
        StateChange, UserKind, UserRegistered, Verdict, Visibility,
    },
};
use serde_json::{Value, json};

const PAGE: usize = 100;
/// So many pages make a figure.
const PAGES: u64 = 41;
/// So many rooms or users are made with one record, and so many records folded at once.
const IN_RECORD: usize = 50;
const RECORDS: usize = 8;

/// Folds facts.
struct Filler {
    projector: Projector,
    entries: Vec<Entry>,
    lsn: Lsn,
}

impl Filler {
    fn new(store: Arc<Store>) -> Self {
        let mut filler =
            Self { projector: Projector::open(store).expect("the store is empty"), entries: vec![], lsn: Lsn::ZERO };
        let genesis = Genesis { log_id: Blob(vec![7; 16]), server_name: "bench.example".into(), format: FORMAT };
        filler.record([genesis.into()]);
        filler
    }

    fn record(&mut self, facts: impl IntoIterator<Item = Fact>) {
        self.lsn = self.lsn.next();
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.lsn.to_bytes());
        let mark = After { id: RecordId(id), copy: CopyId::default() };
        let header = Header::plain(mark, 1_700_000_000_000 + self.lsn.0, Origin::Server);
        let facts = facts.into_iter().map(|fact| fact.encode()).collect();
        let bytes = Record { header, facts }.encode().expect("it is small").into();
        self.entries.push(Entry { lsn: self.lsn, bytes, amended: false });
        if self.entries.len() == RECORDS {
            self.fold();
        }
    }

    fn fold(&mut self) {
        self.projector.apply(&self.entries, true).expect("the facts fold");
        self.entries.clear();
    }

    /// Makes so many, and says how long that took.
    fn make(&mut self, what: &str, count: usize, facts: impl Fn(usize) -> Vec<Fact>) {
        let begun = Instant::now();
        for first in (0..count).step_by(IN_RECORD) {
            self.record((first..count.min(first + IN_RECORD)).flat_map(&facts));
        }
        self.fold();
        println!("{count} {what} were folded in {:.1} s", begun.elapsed().as_secs_f64());
    }
}

const WORDS: [&str; 20] = [
    "Tea", "Garden", "Office", "Rust", "Help", "News", "Chess", "Music", "Books", "Films", "Food", "Travel", "Bikes",
    "Maps", "Games", "Law", "Health", "Pets", "Art", "Off",
];

/// The name of the n-th of so many: a hundred of them are rare, however many there are.
fn name(n: usize, count: usize) -> String {
    if n.is_multiple_of(count / 100) { format!("Rare {n}") } else { format!("{} {n}", WORDS[(n * 7 + n / 20) % 20]) }
}

fn learned(room: &str, n: usize, (kind, key, content): (&str, &str, Value)) -> (EventLearned, StateChange) {
    let event = json!({
        "auth_events": [], "content": content, "depth": 1, "hashes": {"sha256": "x"}, "origin_server_ts": 1,
        "prev_events": [], "room_id": room, "sender": "@a:bench.example", "signatures": {}, "type": kind, "state_key": key,
    });
    let event: CanonicalJsonObject = serde_json::from_value(event).expect("it is an object of integers and text");
    let id = format!("${n}.{kind}.{key}");
    let event_id = <&EventId>::try_from(&*id).expect("an event id");
    let room = <&RoomId>::try_from(room).expect("a room id");
    let learned = pdu::learn(event_id, room, &event, &RedactionRules::V11, false).expect("it is whole");
    (learned, StateChange { event_type: kind.into(), state_key: key.into(), event: Some(id) })
}

/// A room with its settings and one to three members, made at once.
fn room(n: usize, count: usize) -> Vec<Fact> {
    // As random ids do, these come in no order.
    let id = format!("!{:08x}:bench.example", (n as u32).wrapping_mul(2_654_435_761));
    let version = ["10", "11", "12"][n % 3];
    let rule = if n.is_multiple_of(10) { "public" } else { "invite" };
    let mut state = vec![
        ("m.room.create", "", json!({ "room_version": version })),
        ("m.room.name", "", json!({ "name": name(n, count) })),
        ("m.room.join_rules", "", json!({ "join_rule": rule })),
    ];
    for user in ["@a:bench.example", "@b:bench.example", "@c:elsewhere.example"].into_iter().take(n % 4) {
        state.push(("m.room.member", user, json!({ "membership": "join" })));
    }
    if n.is_multiple_of(20) {
        state.push(("m.room.canonical_alias", "", json!({ "alias": format!("#a{n}:bench.example") })));
    }
    let (learned, current): (Vec<_>, Vec<_>) = state.into_iter().map(|state| learned(&id, n, state)).unzip();
    let placed = EventPlaced {
        id: learned[learned.len() - 1].id.clone(),
        class: Placement::Live,
        verdict: Verdict::Accepted,
        state_before: Some(StateBefore { base: StateBase::Empty, delta: Vec::new() }),
        current,
        visibility: Visibility::Shared,
        servers: Vec::new(),
        redacts: None,
    };
    let published = n.is_multiple_of(10).then(|| RoomPublished { room: id, published: true }.into());
    learned.into_iter().map(Fact::from).chain([placed.into()]).chain(published).collect()
}

fn user(n: usize, count: usize) -> Vec<Fact> {
    let user = format!("@{:08x}:bench.example", (n as u32).wrapping_mul(2_654_435_761));
    let kind = if n.is_multiple_of(10) { UserKind::Guest } else { UserKind::Regular };
    let admin = n.is_multiple_of(50);
    let field = |field: &str, value: String| -> Fact {
        let value = Some(Json::of(&value).expect("a text"));
        ProfileFieldSet { user: user.clone(), field: field.into(), value }.into()
    };
    let mut facts = vec![
        UserRegistered { user: user.clone(), password: None, admin, kind, registration_token: None }.into(),
        field("displayname", name(n, count)),
    ];
    if n.is_multiple_of(4) {
        facts.push(field("avatar_url", format!("mxc://bench.example/{n}")));
    }
    facts
}

/// A list of one size.
struct Listed<'a> {
    view: &'a View,
    count: usize,
}

/// Asks for a page, as far as it goes without HTTP: from an offset, with everything that is shown of its rows.
type Ask<'a> = dyn Fn(&View, u64) -> Result<Page, StoreError> + 'a;

impl Listed<'_> {
    /// The median time of the first page, of one in the middle and of the last; the total.
    fn measure(&self, ask: &Ask<'_>) -> ([Duration; 3], u64) {
        let total = ask(self.view, 0).expect("the page is there").total;
        let last = total.saturating_sub(PAGE as u64);
        let at = |offset: u64| {
            let mut times: Vec<Duration> = (0..PAGES)
                .map(|n| {
                    // Not always the same page in the middle.
                    let offset = if offset == 0 || offset == last { offset } else { offset.saturating_sub(n * 13) };
                    let begun = Instant::now();
                    ask(self.view, offset).expect("the page is there");
                    begun.elapsed()
                })
                .collect();
            times.sort_unstable();
            times[times.len() / 2]
        };
        ([at(0), at(last / 2), at(last)], total)
    }
}

/// Prints what pages cost in lists of each size.
fn compare(lists: &[Listed<'_>], what: &str, ask: &Ask<'_>) {
    let measured: Vec<_> = lists.iter().map(|list| list.measure(ask)).collect();
    let times =
        |(times, _): &([Duration; 3], u64)| times.map(|time| format!("{:.2}", time.as_secs_f64() * 1e3)).join(", ");
    let cells: Vec<_> = measured.iter().map(times).collect();
    let totals: Vec<_> = measured.iter().map(|(_, total)| total.to_string()).collect();
    let (first, last) = (&measured[0].0, &measured[measured.len() - 1].0);
    let ratios = last.iter().zip(first).map(|(last, first)| last.as_secs_f64() / first.as_secs_f64());
    let worst = ratios.fold(0.0, f64::max);
    println!("| {what} | {} | {} | {worst:.1} |", totals.join(", "), cells.join(" | "));
}

fn heading(what: &str, lists: &[Listed<'_>]) {
    let sizes: Vec<_> = lists.iter().map(|list| format!("ms of {}", list.count)).collect();
    println!("\n| {what} | found | {} | worst ratio |", sizes.join(" | "));
    println!("|---|--:|{}--:|", "--:|".repeat(lists.len()));
}

fn ask_rooms(order: rooms::Order, falling: bool, filter: rooms::Filter) -> Box<Ask<'static>> {
    Box::new(move |view, offset| {
        let page = rooms::page(view, order, falling, &filter, offset, PAGE)?;
        for room in &page.rows {
            let room = rooms::summary(view, *room)?.expect("it is listed");
            black_box(serde_json::to_vec(&(&room.id, &room.settings, &room.figures)).expect("it is JSON"));
        }
        Ok(page)
    })
}

fn ask_users(order: users::Order, falling: bool, filter: users::Filter) -> Box<Ask<'static>> {
    Box::new(move |view, offset| {
        let page = users::page(view, order, falling, &filter, offset, PAGE)?;
        for user in &page.rows {
            let user = users::get(view, *user)?.expect("it is listed");
            black_box(serde_json::to_vec(&user).expect("it is JSON"));
        }
        Ok(page)
    })
}

fn measure_rooms(lists: &[Listed<'_>]) {
    use rooms::{Filter, Order};
    heading("rooms", lists);
    for order in Order::ALL {
        for falling in [false, true] {
            let what = format!("{order:?}, {}", if falling { "falling" } else { "rising" });
            compare(lists, &what, &*ask_rooms(order, falling, Filter::default()));
        }
    }
    let search = |term: &str| Filter { term: Some(term.into()), ..Filter::default() };
    for (what, filter) in [
        ("public", Filter { public: Some(true), ..Filter::default() }),
        ("empty", Filter { empty: Some(true), ..Filter::default() }),
        ("public and empty", Filter { public: Some(true), empty: Some(true), ..Filter::default() }),
        ("search: a hundred", search("rare")),
        ("search: a hundred, of these not public", Filter { public: Some(false), ..search("RARE ") }),
        ("search: none", search("no such room")),
        ("search: one in 20", search("tea")),
        ("search: all but a few", search(" ")),
    ] {
        for order in [Order::Name, Order::JoinedMembers] {
            compare(lists, &format!("{what}, {order:?}"), &*ask_rooms(order, order.falls(), filter.clone()));
        }
    }
}

fn measure_users(lists: &[Listed<'_>]) {
    use users::{Filter, Order};
    heading("users", lists);
    for order in Order::ALL {
        for falling in [false, true] {
            let what = format!("{order:?}, {}", if falling { "falling" } else { "rising" });
            compare(lists, &what, &*ask_users(order, falling, Filter::default()));
        }
    }
    let search = |name: &str| Filter { name: Some(name.into()), ..Filter::default() };
    for (what, filter) in [
        ("no guests", Filter { guests: Some(false), ..Filter::default() }),
        ("administrators", Filter { admins: Some(true), ..Filter::default() }),
        ("name: a hundred", search("rare")),
        ("name: none", search("nobody")),
        ("name: one in 20", search("tea")),
        ("id: everybody", Filter { user_id: Some("bench".into()), ..Filter::default() }),
        ("id: one", Filter { user_id: Some("@00000000:bench".into()), ..Filter::default() }),
    ] {
        for order in [Order::Name, Order::Created] {
            compare(lists, &format!("{what}, {order:?}"), &*ask_users(order, false, filter.clone()));
        }
    }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    // Tests run benches, too, without this argument: to see whether they work.
    let usual = if args.iter().any(|arg| arg == "--bench") { "1000,1000000" } else { "200,400" };
    let sizes = std::env::var("EVERFOLD_BENCH_SIZES").unwrap_or_else(|_| usual.to_owned());
    let sizes: Vec<usize> = sizes.split(',').map(|size| size.parse().expect("a number")).collect();
    let only = args.iter().find(|arg| !arg.starts_with('-'));
    for (what, make, measure) in [
        ("rooms", room as fn(usize, usize) -> Vec<Fact>, measure_rooms as fn(&[Listed<'_>])),
        ("users", user, measure_users),
    ] {
        if only.is_some_and(|only| only != what) {
            continue;
        }
        let folders: Vec<_> = sizes.iter().map(|_| tempfile::tempdir().expect("a folder")).collect();
        let fill = |(size, folder): (&usize, &tempfile::TempDir)| {
            let open = || Arc::new(Store::open(folder.path(), StoreOptions::default()).expect("the store opens"));
            Filler::new(open()).make(what, *size, |n| make(n, *size));
            // As after a restart: nothing is in memory alone.
            Reader::new(open()).view().expect("the store can be read")
        };
        let views: Vec<View> = sizes.iter().zip(&folders).map(fill).collect();
        let lists: Vec<_> = views.iter().zip(&sizes).map(|(view, size)| Listed { view, count: *size }).collect();
        measure(&lists);
    }
}
