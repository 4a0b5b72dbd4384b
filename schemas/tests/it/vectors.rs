//! Log time and the hash chain against their vectors.

use schemas::{
    Blob, Chain, CopyId, Fact, Header, LogTime, Lsn, Origin, RawFact, Record, RecordId,
    facts::{FormatBarrier, Genesis, IdleGap},
};
use serde::Deserialize;

use crate::text;

#[derive(Deserialize)]
struct Step {
    at_ms: u64,
    fact: Option<String>,
    log_time_ms: u64,
}

fn record(at_ms: u64, fact: Option<&str>) -> Record {
    let header = Header {
        format: 1,
        id: RecordId([0; 16]),
        attempt: 0,
        copy: CopyId::default(),
        at_ms,
        node: 0,
        origin: Origin::Server,
        cause: None,
        reads: vec![],
        writes: vec![],
        after: None,
    };
    let fact = fact.map(|name| -> Fact {
        match name {
            "genesis" => Genesis { log_id: Blob(vec![0; 16]), server_name: "example.org".into(), format: 1 }.into(),
            "idle_gap" => IdleGap {}.into(),
            _ => FormatBarrier { format: 1 }.into(),
        }
    });
    Record { header, facts: fact.iter().map(RawFact::from).collect() }
}

#[test]
fn log_time_follows_its_vectors() {
    let cases: Vec<Vec<Step>> = serde_json::from_str(&text("fixtures/log_time.json")).unwrap();
    assert!(!cases.is_empty());
    for (number, case) in cases.iter().enumerate() {
        let mut time = LogTime::default();
        for (place, step) in case.iter().enumerate() {
            let held_back = time.needs_idle_gap(step.at_ms);
            let before = time;
            time = time.advance(&record(step.at_ms, step.fact.as_deref()));
            assert_eq!(time.ms, step.log_time_ms, "case {number}, step {place}");
            assert_eq!(held_back, step.at_ms > time.ms && time.ms > before.ms, "case {number}, step {place}");
        }
    }
}

#[derive(Deserialize)]
struct Link {
    lsn: Lsn,
    record: String,
    chain: Chain,
}

#[test]
fn the_chain_follows_its_vectors() {
    let links: Vec<Link> = serde_json::from_str(&text("fixtures/chain.json")).unwrap();
    assert!(!links.is_empty());
    let mut chain = Chain::default();
    for link in links {
        chain = chain.extend(link.lsn, &hex::decode(&link.record).unwrap());
        assert_eq!(chain, link.chain, "at {}", link.lsn);
    }
}

#[test]
fn positions_order_as_their_bytes_do() {
    let positions = [Lsn::ZERO, Lsn::FIRST, Lsn(255), Lsn(256), Lsn(1 << 40), Lsn((1 << 40) + 1), Lsn::MAX];
    for pair in positions.windows(2) {
        assert!(pair[0] < pair[1] && pair[0].to_bytes() < pair[1].to_bytes());
        assert_eq!(Lsn::from_bytes(pair[0].to_bytes()), pair[0]);
    }
    assert_eq!(serde_json::to_string(&Lsn::MAX).unwrap(), "9007199254740991");
}
