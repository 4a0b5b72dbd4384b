//! Rules that the compiler and clippy don't know: the order of the layers, and that things which belong together are
//! there together.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that can't go on says so by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

#[path = "it/common/endpoints.rs"]
mod served;

use served::{Endpoint, Source, endpoints, sources};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A file without the tests at its end, which may use anything.
fn code(source: &Source) -> &str {
    source.text.split("#[cfg(test)]\nmod ").next().unwrap_or_default()
}

/// Fails with all problems at once.
fn assert_none(rule: &str, problems: &[String]) {
    assert!(problems.is_empty(), "{rule}:\n  {}", problems.join("\n  "));
}

/// The names that follow `crate::`, those in braces too.
fn used_modules(code: &str) -> BTreeSet<&str> {
    let name = |text: &'_ str| text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let mut used = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let Some(group) = rest.strip_prefix('{') else {
            used.insert(&rest[..name(rest)]);
            continue;
        };
        let (mut depth, mut begins) = (0, true);
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => begins = true,
                c if begins && c.is_alphanumeric() => {
                    used.insert(&group[at..at + name(&group[at..])]);
                    begins = false;
                }
                _ => {}
            }
        }
    }
    used
}

/// The layer of each module: its group in `lib.rs`.
fn layers() -> BTreeMap<String, usize> {
    let mut layers = BTreeMap::new();
    for (layer, group) in read("src/lib.rs").split("\n\n").enumerate() {
        for line in group.lines() {
            if let Some(module) = line.strip_prefix("pub mod ") {
                layers.insert(module.trim_end_matches(';').to_owned(), layer);
            }
        }
    }
    layers
}

#[test]
fn modules_use_only_layers_above_their_own() {
    let layers = layers();
    let mut problems = Vec::new();
    for source in sources(&["src"]) {
        let module = source.path.trim_start_matches("src/").trim_end_matches(".rs").split('/').next().unwrap();
        let Some(layer) = layers.get(module) else { continue };
        for used in used_modules(code(&source)) {
            if layers.get(used).is_some_and(|other| other > layer) {
                problems.push(format!("{}: {module} uses {used}, which lies below it in src/lib.rs", source.path));
            }
        }
    }
    assert_none("layers", &problems);
}

#[test]
fn crates_know_only_those_before_them() {
    let dependencies = |krate: &str| {
        let manifest: toml::Table = read(&format!("{krate}/Cargo.toml")).parse().unwrap();
        manifest["dependencies"].as_table().unwrap().keys().cloned().collect::<BTreeSet<_>>()
    };
    for (krate, unknown) in [
        ("schemas", ["projections", "everfold", "tokio", "rocksdb", "axum", "rand"]),
        ("projections", ["everfold", "tokio", "axum", "reqwest", "rand", "async-trait"]),
    ] {
        for other in unknown {
            assert!(!dependencies(krate).contains(other), "{krate} must not depend on {other}");
        }
    }
}

#[test]
fn the_fold_has_no_clock_chance_or_order_of_its_own() {
    let mut problems = Vec::new();
    for source in sources(&["projections/src", "schemas/src"]) {
        for word in ["std::time", "SystemTime", "Instant::now", "std::env", "std::net", "HashMap", "HashSet"] {
            if code(&source).contains(word) {
                problems.push(format!("{}: {word}", source.path));
            }
        }
    }
    assert_none("a fold depends on its record, its position and the tables alone", &problems);
}

#[test]
fn only_commands_append_and_only_the_fold_writes_read_models() {
    let mut problems = Vec::new();
    for source in sources(&["src"]) {
        let may_append =
            ["src/commands/", "src/log/", "src/processes/hub.rs"].iter().any(|folder| source.path.starts_with(folder));
        if !may_append && code(&source).contains("log.append(") {
            problems.push(format!("{}: appends to the log", source.path));
        }
        if !source.path.starts_with("src/fold/") && code(&source).contains("Projector::open(") {
            problems.push(format!("{}: writes read models", source.path));
        }
    }
    assert_none("one way to write", &problems);
}

#[test]
fn files_are_short() {
    let all = sources(&["src", "schemas", "projections", "tests", "benches"]);
    let long = all.iter().filter_map(|source| match source.text.lines().count() {
        0..=600 => None,
        lines => Some(format!("{}: {lines} lines, at most 600", source.path)),
    });
    assert_none("length", &long.collect::<Vec<_>>());
}

#[test]
fn nothing_is_left_undone() {
    // Put together here, so that this file doesn't break its own rule.
    let banned = ["to", "unimplement"].map(|word| format!("{word}{}!", if word == "to" { "do" } else { "ed" }));
    let banned =
        banned.into_iter().chain(["FIX", "X"].map(|word| format!("{word}{}", if word == "X" { "XX" } else { "ME" })));
    let banned: Vec<String> =
        banned.chain(["#[ign", "#[all"].map(|w| format!("{w}o{}", if w == "#[ign" { "re" } else { "w(" }))).collect();
    let mut problems = Vec::new();
    for source in sources(&["src", "schemas", "projections", "tests", "benches"]) {
        for (number, line) in (1..).zip(source.text.lines()) {
            for word in banned.iter().filter(|word| line.contains(word.as_str())) {
                problems.push(format!("{}:{number}: {word}", source.path));
            }
        }
    }
    assert_none("banned words", &problems);
}

#[test]
fn every_fact_has_golden_bytes() {
    let table = read("schemas/src/facts/mod.rs");
    let table = table.split("#[cfg(test)]").next().unwrap_or_default();
    let facts = table.lines().filter_map(|line| {
        let words: Vec<&str> = line.trim().trim_end_matches(',').split(' ').collect();
        match words[..] {
            [number, "v", version, "Verdict" | "Merge" | "Allotment", name, ..] if number.parse::<u16>().is_ok() => {
                Some((snake(name), version.to_owned()))
            }
            _ => None,
        }
    });
    let facts: Vec<_> = facts.collect();
    assert!(facts.len() > 30, "the table of facts has another shape than this test reads");
    let missing = facts.iter().map(|(name, version)| format!("schemas/fixtures/{name}.v{version}.bin"));
    let missing: Vec<String> = missing.filter(|path| !root().join(path).exists()).collect();
    assert_none("golden bytes", &missing);
}

fn snake(name: &str) -> String {
    let mut snake = String::new();
    for c in name.chars() {
        if c.is_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.extend(c.to_lowercase());
    }
    snake
}

#[test]
fn every_test_of_a_server_ends_with_its_replay() {
    let mut problems = Vec::new();
    // Those are about servers that can't start, or can't fold what is on their log.
    let files = ["tests/it/start.rs", "tests/it/disk.rs"];
    for source in sources(&["tests/it"]).into_iter().filter(|source| !files.contains(&source.path.as_str())) {
        for test in source.text.replace("#[test]", "#[tokio::test]").split("#[tokio::test").skip(1) {
            let name = test.split("fn ").nth(1).and_then(|rest| rest.split('(').next()).unwrap_or_default();
            let starts = test.matches("TestServer::").count();
            let processes = ["Served::start(", "Served::of(", "Town::found()"].map(|start| test.matches(start).count());
            let is_checked = starts <= test.matches(".finish()").count()
                && processes.iter().sum::<usize>() <= test.matches(".signal(").count();
            if !is_checked {
                problems
                    .push(format!("{}: {name} doesn't finish() or signal() each server that it starts", source.path));
            }
        }
    }
    assert_none("replay equals live", &problems);
}

/// A path as the tests' client takes it: without the prefix of the client-server API's version 3, and without a query.
fn relative(path: &str) -> &str {
    let path = path.split('?').next().unwrap_or_default();
    path.strip_prefix("/_matrix/client/v3").unwrap_or(path)
}

#[test]
fn every_endpoint_is_named_in_a_test() {
    let tests = sources(&["tests"]);
    let named: Vec<Vec<&str>> = tests
        .iter()
        .flat_map(|source| source.text.split('"').filter(|text| text.starts_with('/')))
        .map(|path| relative(path).split('/').collect())
        .collect();
    let wildcard = |segment: &str| segment.starts_with('{');
    let matches = |wanted: &[&str], path: &Vec<&str>| {
        path.len() == wanted.len()
            && path.iter().zip(wanted).all(|(a, b)| a == b || wildcard(b) || (wildcard(a) && a.len() < 20))
    };
    let is_missing = |endpoint: &&Endpoint| {
        let wanted: Vec<&str> = relative(&endpoint.path).split('/').collect();
        !named.iter().any(|path| matches(&wanted, path))
    };
    let endpoints = endpoints();
    let missing = endpoints.iter().filter(is_missing);
    let missing: Vec<String> = missing.map(|e| format!("{}: {} {}", e.file, e.method, e.path)).collect();
    assert_none("no test asks for", &missing);
}

#[test]
fn every_route_is_named_at_the_head_of_its_file() {
    let endpoints = endpoints();
    let mut problems = Vec::new();
    for source in sources(&["src/http/client", "src/http/admin"]) {
        let code = code(&source);
        let routes = code.matches(".matrix(").count() + code.matches(".route(").count();
        let named = endpoints.iter().filter(|endpoint| endpoint.file == source.path).count();
        if named < routes {
            problems.push(format!("{}: {routes} routes, but its head names {named}", source.path));
        }
    }
    assert_none("heads", &problems);
}

#[test]
fn every_model_is_in_the_table_of_questions() {
    let models = read("projections/src/models/mod.rs");
    let list = models.split("models! {").nth(1).unwrap().split('}').next().unwrap();
    let names = list.lines().filter_map(|line| line.trim().trim_end_matches(',').split(" = ").nth(1));
    let missing: Vec<String> =
        names.filter(|name| !models.contains(&format!("//! | {name} |"))).map(Into::into).collect();
    assert_none("models without a question", &missing);
}
