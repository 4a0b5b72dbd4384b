use ruma::serde::Raw;
use serde_json::{Map, Value};

/// Which parts of events a client wants (client-server API, `event_fields` of a filter): paths of names; none is
/// everything.
#[derive(Clone, Debug, Default)]
pub struct Fields(Vec<Vec<String>>);

impl Fields {
    /// Reads paths: names are separated by dots; `\\` before a dot or itself makes it part of a name.
    #[must_use]
    pub fn read(paths: &[String]) -> Self {
        Self(paths.iter().map(|path| names(path)).collect())
    }

    /// What is wanted of an event.
    #[must_use]
    pub fn of<T>(&self, event: Raw<T>) -> Raw<T> {
        if self.0.is_empty() {
            return event;
        }
        let Ok(whole) = event.deserialize_as_unchecked::<Map<String, Value>>() else { return event };
        let mut chosen = Map::new();
        for path in &self.0 {
            pick(path, &whole, &mut chosen);
        }
        serde_json::value::to_raw_value(&chosen).map_or(event, Raw::from_json)
    }
}

fn names(path: &str) -> Vec<String> {
    let (mut names, mut name) = (Vec::new(), String::new());
    let mut chars = path.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '.' => names.push(std::mem::take(&mut name)),
            '\\' => name.push(chars.next_if(|next| matches!(next, '.' | '\\')).unwrap_or(char)),
            char => name.push(char),
        }
    }
    names.push(name);
    names
}

/// Copies what stands at a path, if it is there.
fn pick(path: &[String], from: &Map<String, Value>, to: &mut Map<String, Value>) {
    let Some((name, rest)) = path.split_first() else { return };
    match from.get(name) {
        Some(value) if rest.is_empty() => {
            to.insert(name.clone(), value.clone());
        }
        Some(Value::Object(inner)) => {
            let before = to.remove(name);
            let there = before.is_some();
            let mut chosen = if let Some(Value::Object(chosen)) = before { chosen } else { Map::new() };
            pick(rest, inner, &mut chosen);
            if there || !chosen.is_empty() {
                to.insert(name.clone(), Value::Object(chosen));
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_choose_fields() {
        let event = json!({ "type": "t", "content": { "body": "b", "a.b": { "c": [1] }, "d\\": 2, "e": {} } });
        let of = |paths: &[&str]| {
            let paths: Vec<_> = paths.iter().map(ToString::to_string).collect();
            let chosen = Fields::read(&paths).of(Raw::<Value>::new(&event).unwrap());
            chosen.deserialize_as_unchecked::<Value>().unwrap()
        };
        assert_eq!(of(&["type"]), json!({ "type": "t" }));
        assert_eq!(of(&["content.body", "type"]), json!({ "type": "t", "content": { "body": "b" } }));
        assert_eq!(of(&[r"content.a\.b.c"]), json!({ "content": { "a.b": { "c": [1] } } }));
        assert_eq!(of(&["content.body", r"content.d\\"]), json!({ "content": { "body": "b", "d\\": 2 } }));
        assert_eq!(of(&["content.e", "content"])["content"], event["content"]);
        assert_eq!(of(&["content", "content.body"])["content"], event["content"]);
        assert_eq!(of(&["content.e", "content.e.x"]), json!({ "content": { "e": {} } }));
        for nothing in ["", "type.x", "content.", "content.a.b", ".type", "nothing", r"content\.body"] {
            assert_eq!(of(&[nothing]), json!({}), "{nothing}");
        }
        assert_eq!(of(&[]), event);
    }
}
