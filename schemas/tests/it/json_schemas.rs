//! The JSON Schemas in the tree are those of the types.

use std::{collections::BTreeSet, fs};

use schemas::{Fact, Header};

use crate::{file, snake_case};

#[test]
fn the_schemas_in_the_tree_are_those_of_the_types() {
    let mut expected = vec![("header.json".to_owned(), schemars::schema_for!(Header))];
    for (name, schema) in Fact::schemas() {
        let (_, version, ..) = *Fact::ALL.iter().find(|(.., known)| *known == name).unwrap();
        expected.push((format!("{}.v{version}.json", snake_case(name)), schema));
    }
    let update = std::env::var_os("UPDATE_SCHEMAS").is_some();
    fs::create_dir_all(file("json")).unwrap();
    for (name, schema) in &expected {
        let path = file("json").join(name);
        let schema = format!("{}\n", serde_json::to_string_pretty(schema).unwrap());
        if update {
            fs::write(&path, &schema).unwrap();
        }
        let found = fs::read_to_string(&path).unwrap_or_default();
        assert!(found == schema, "json/{name} is not what the types say: run the tests with UPDATE_SCHEMAS=1");
    }
    // Schemas of older versions stay, as dumps of old records need no upcast to be read.
    let named: BTreeSet<String> = expected.into_iter().map(|(name, _)| name).collect();
    for entry in fs::read_dir(file("json")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let older = Fact::ALL.iter().any(|(_, version, _, fact)| {
            (1..*version).any(|version| name == format!("{}.v{version}.json", snake_case(fact)))
        });
        assert!(named.contains(&name) || older, "json/{name} is of no known fact");
    }
}
