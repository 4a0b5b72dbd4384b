//! Whatever was once written decodes to the same for ever.

use std::{collections::BTreeSet, fs, path::Path};

use schemas::{Fact, Header, Record};
use serde_json::{Value, json};

use crate::{file, samples, snake_case, text};

/// Writes a file that is missing, if it was asked for.
fn add(path: &Path, bytes: &[u8]) {
    if !path.exists() {
        assert!(
            std::env::var_os("UPDATE_FIXTURES").is_some(),
            "{} is missing: a new fact or version needs golden bytes, which UPDATE_FIXTURES=1 adds",
            path.display()
        );
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

fn add_pair(name: &str, bytes: &[u8], view: &Value) {
    add(&file(&format!("fixtures/{name}.bin")), bytes);
    add(&file(&format!("fixtures/{name}.json")), format!("{view:#}\n").as_bytes());
}

/// The names of fixtures with binary contents: `name[-case].vN` for facts, `record-…` for records.
fn fixtures() -> BTreeSet<String> {
    let names = fs::read_dir(file("fixtures")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter_map(|name| name.strip_suffix(".bin").map(ToOwned::to_owned)).collect()
}

fn record_view(record: &Record) -> Value {
    let facts: Vec<Fact> = record.facts.iter().map(|fact| fact.decode().unwrap()).collect();
    json!({ "header": record.header, "facts": facts })
}

fn add_samples() {
    for (case, fact) in samples::samples() {
        let raw = fact.encode();
        let case = if case.is_empty() { String::new() } else { format!("-{case}") };
        let name = format!("{}{case}.v{}", snake_case(fact.name()), raw.version);
        add_pair(&name, &raw.body.0, &serde_json::to_value(&fact).unwrap());
    }
    for (case, record) in samples::records() {
        add_pair(&format!("record-{case}"), &record.encode().unwrap(), &record_view(&record));
    }
}

#[test]
fn every_fact_ever_written_decodes_to_the_same() {
    add_samples();
    let mut seen = BTreeSet::new();
    for name in fixtures().into_iter().filter(|name| !name.starts_with("record-")) {
        let (title, version) = name.rsplit_once(".v").unwrap();
        let fact_name = title.split('-').next().unwrap();
        let version: u8 = version.parse().unwrap();
        let (number, current, ..) =
            *Fact::ALL.iter().find(|(.., known)| snake_case(known) == fact_name).unwrap_or_else(|| {
                panic!("fixture {name} is of no known fact: a fact is never removed");
            });
        let bytes = fs::read(file(&format!("fixtures/{name}.bin"))).unwrap();
        let fact = Fact::decode(number, version, &bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        let view: Value = serde_json::from_str(&text(&format!("fixtures/{name}.json"))).unwrap();
        assert_eq!(serde_json::to_value(&fact).unwrap(), view, "{name}");
        if version == current {
            assert_eq!(fact.encode().body.0, bytes, "{name} is encoded otherwise: that needs a new version");
        }
        seen.insert((number, version));
    }
    for &(number, current, _, name) in Fact::ALL {
        for version in 1..=current {
            assert!(seen.contains(&(number, version)), "no golden bytes for {name} version {version}");
        }
    }
}

#[test]
fn every_sample_is_in_its_fixture() {
    add_samples();
    for (case, fact) in samples::samples() {
        let raw = fact.encode();
        let case = if case.is_empty() { String::new() } else { format!("-{case}") };
        let name = format!("fixtures/{}{case}.v{}.bin", snake_case(fact.name()), raw.version);
        assert_eq!(fs::read(file(&name)).unwrap(), raw.body.0, "{name}");
    }
}

#[test]
fn records_decode_to_the_same_and_encode_again() {
    add_samples();
    let names: Vec<String> = fixtures().into_iter().filter(|name| name.starts_with("record-")).collect();
    assert_eq!(names.len(), samples::records().len());
    for name in names {
        let bytes = fs::read(file(&format!("fixtures/{name}.bin"))).unwrap();
        let record = Record::decode(&bytes).unwrap();
        let view: Value = serde_json::from_str(&text(&format!("fixtures/{name}.json"))).unwrap();
        assert_eq!(record_view(&record), view, "{name}");
        assert_eq!(record.encode().unwrap(), bytes, "{name}");
        assert_eq!(Record::decode_header(&bytes).unwrap().0, record.header, "{name}");
        assert_eq!(serde_json::from_value::<Header>(view["header"].clone()).unwrap(), record.header, "{name}");
    }
}

#[test]
fn numbers_are_unique_and_known() {
    let numbers: BTreeSet<u16> = Fact::ALL.iter().map(|(number, ..)| *number).collect();
    assert_eq!(numbers.len(), Fact::ALL.len());
    assert!(!numbers.contains(&5), "5 is kept for signed checkpoints");
    let sampled: BTreeSet<u16> = samples::samples().iter().map(|(_, fact)| fact.number()).collect();
    assert_eq!(sampled, numbers, "every fact has a sample");
}
