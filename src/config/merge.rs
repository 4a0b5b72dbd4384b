//! Puts the settings together: defaults, file, environment, flags; the later wins.

use std::{fmt, path::Path};

use serde::Deserialize;
use toml::{Table, Value};

use super::{Config, EXAMPLE};

/// Where settings come from besides the defaults.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sources<'a> {
    /// A TOML file.
    pub file: Option<&'a Path>,
    /// The process' environment, of which only names that begin with `EVERFOLD_` count.
    pub environment: &'a [(String, String)],
    /// Keys such as `http.listen` with values, from the command line. A key that comes again adds to a list.
    pub flags: &'a [(&'static str, String)],
}

/// Everything that is wrong with the settings.
#[derive(Debug, thiserror::Error)]
pub struct ConfigError(Vec<String>);

impl ConfigError {
    pub(super) fn unless_empty(problems: impl IntoIterator<Item = String>) -> Result<(), Self> {
        let problems: Vec<String> = problems.into_iter().collect();
        if problems.is_empty() { Ok(()) } else { Err(Self(problems)) }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

/// Names that the systematic rule would make longer, and their keys.
const SHORT_NAMES: &[(&str, &str)] = &[
    ("EVERFOLD_LISTEN", "http.listen"),
    ("EVERFOLD_LOG", "log.backend"),
    ("EVERFOLD_REGISTRATION", "registration.mode"),
    ("EVERFOLD_PRESENCE", "presence.enabled"),
    ("EVERFOLD_RATE_LIMITS", "rate_limits.enabled"),
];

/// Names in the environment that are no settings: where the file is, and what scripts and tests use.
fn is_no_setting(name: &str) -> bool {
    matches!(name, "EVERFOLD_CONFIG" | "EVERFOLD_CACHE") || name.starts_with("EVERFOLD_TEST_")
}

pub(super) fn load(sources: Sources<'_>) -> Result<Config, ConfigError> {
    let mut tree: Table = EXAMPLE.parse().map_err(|error| ConfigError(vec![format!("default.toml: {error}")]))?;
    let mut problems = Vec::new();
    if let Some(path) = sources.file {
        let file = path.display();
        match std::fs::read_to_string(path).map_err(|error| error.to_string()).and_then(|text| parse(&text)) {
            Ok(table) => overlay(&mut tree, table, "", &format!("{file}: "), &mut problems),
            Err(error) => problems.push(format!("{file}: {error}")),
        }
    }
    let names = environment_names(&tree);
    for (name, text) in sources.environment.iter().filter(|(name, _)| name.starts_with("EVERFOLD_")) {
        match names.iter().find(|(known, _)| known == name) {
            Some((_, key)) => set(&mut tree, key, text, false, name, &mut problems),
            None if is_no_setting(name) => {}
            None => problems.push(format!("{name} in the environment is not the name of a setting")),
        }
    }
    for (index, (key, text)) in sources.flags.iter().enumerate() {
        let again = sources.flags[..index].iter().any(|(earlier, _)| earlier == key);
        set(&mut tree, key, text, again, &format!("the flag for {key}"), &mut problems);
    }
    ConfigError::unless_empty(problems)?;
    Config::deserialize(Value::Table(tree)).map_err(|error| ConfigError(vec![error.to_string().trim_end().to_owned()]))
}

fn parse(text: &str) -> Result<Table, String> {
    text.parse::<Table>().map_err(|error| error.to_string())
}

/// Every name in the environment with the key that it sets.
pub(super) fn environment_names(tree: &Table) -> Vec<(String, String)> {
    let mut keys = Vec::new();
    collect_keys(tree, "", &mut keys);
    let systematic = keys.into_iter().map(|key| (format!("EVERFOLD_{}", key.to_uppercase().replace('.', "_")), key));
    let short = SHORT_NAMES.iter().map(|&(name, key)| (name.to_owned(), key.to_owned()));
    systematic.chain(short).collect()
}

fn collect_keys(table: &Table, path: &str, keys: &mut Vec<String>) {
    for (key, value) in table {
        match value {
            Value::Table(inner) => collect_keys(inner, &format!("{path}{key}."), keys),
            _ => keys.push(format!("{path}{key}")),
        }
    }
}

/// Takes over a file's values where their keys and types are the defaults'.
fn overlay(base: &mut Table, over: Table, path: &str, origin: &str, problems: &mut Vec<String>) {
    for (key, value) in over {
        let full = format!("{path}{key}");
        match (base.get_mut(&key), value) {
            (Some(Value::Table(base)), Value::Table(over)) => {
                overlay(base, over, &format!("{full}."), origin, problems);
            }
            (Some(base @ Value::Float(_)), Value::Integer(number)) => {
                #[expect(clippy::cast_precision_loss, reason = "a rate is nowhere near 2^52")]
                let float = number as f64;
                *base = Value::Float(float);
            }
            (Some(base), value) if base.same_type(&value) => *base = value,
            (Some(base), value) => {
                problems.push(format!("{origin}{full} must be {}, not {}", a(base), a(&value)));
            }
            (None, _) => problems.push(format!("{origin}{full} is not a setting{}", nearest(base, &key, path))),
        }
    }
}

fn nearest(base: &Table, key: &str, path: &str) -> String {
    let close = base.keys().find(|known| known.contains(key) || key.contains(known.as_str()));
    close.map_or_else(String::new, |known| format!("; is {path}{known} meant?"))
}

/// Sets one key from text, read as the type of its default.
fn set(tree: &mut Table, key: &str, text: &str, add: bool, origin: &str, problems: &mut Vec<String>) {
    let (path, last) = key.rsplit_once('.').unwrap_or(("", key));
    let section = path
        .split('.')
        .filter(|part| !part.is_empty())
        .try_fold(tree, |table, part| table.get_mut(part).and_then(Value::as_table_mut));
    let Some(value) = section.and_then(|section| section.get_mut(last)) else {
        problems.push(format!("{origin}: {key} is not a setting"));
        return;
    };
    let list = || text.split(',').map(|item| Value::String(item.trim().to_owned()));
    let read = match value {
        Value::Array(items) if add => {
            items.extend(list());
            return;
        }
        Value::Array(_) if text.trim().is_empty() => Some(Value::Array(Vec::new())),
        Value::Array(_) => Some(Value::Array(list().collect())),
        Value::String(_) => Some(Value::String(text.to_owned())),
        Value::Boolean(_) => match text {
            "true" | "on" | "yes" | "1" => Some(Value::Boolean(true)),
            "false" | "off" | "no" | "0" => Some(Value::Boolean(false)),
            _ => None,
        },
        Value::Integer(_) => text.parse().ok().map(Value::Integer),
        Value::Float(_) => text.parse().ok().map(Value::Float),
        Value::Datetime(_) | Value::Table(_) => None,
    };
    match read {
        Some(read) => *value = read,
        None => problems.push(format!("{origin}: {text:?} is not {}, which {key} must be", a(value))),
    }
}

const fn a(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a text",
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a number",
        Value::Boolean(_) => "true or false (on or off)",
        Value::Datetime(_) => "a time",
        Value::Array(_) => "a list",
        Value::Table(_) => "a section",
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write, time::Duration};

    use super::*;
    use crate::config::{Backend, RegistrationMode};

    fn with_file(text: &str) -> Result<Config, ConfigError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        Config::load(Sources { file: Some(file.path()), ..Sources::default() })
    }

    fn with_environment(pairs: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let environment: Vec<_> = pairs.iter().map(|&(name, text)| (name.to_owned(), text.to_owned())).collect();
        Config::load(Sources { environment: &environment, ..Sources::default() })
    }

    #[test]
    fn the_example_is_the_defaults() {
        let config = Config::load(Sources::default()).unwrap();
        assert_eq!(config.server_name, "localhost");
        assert_eq!(config.log.backend, Backend::Embedded);
        assert_eq!(config.sessions.access_token, None);
        with_file(EXAMPLE).unwrap();
    }

    #[test]
    fn every_key_of_the_example_is_explained() {
        let mut explained = false;
        for line in EXAMPLE.lines() {
            match line.split_once(" = ") {
                _ if line.starts_with('#') => explained = true,
                // One comment may explain neighbours.
                Some((key, _)) => assert!(explained, "{key} has no comment"),
                None if line.is_empty() => explained = false,
                None => {}
            }
        }
    }

    #[test]
    fn names_in_the_environment_are_unique() {
        let mut names: Vec<_> =
            environment_names(&EXAMPLE.parse().unwrap()).into_iter().map(|(name, _)| name).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(SHORT_NAMES.iter().all(|(name, _)| EXAMPLE.contains(name)));
    }

    #[test]
    fn later_sources_win() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"server_name = 'a.example'\n[rate_limits.login]\nper_second = 3\nburst = 4\n").unwrap();
        let environment = [
            ("EVERFOLD_SERVER_NAME".to_owned(), "b.example".to_owned()),
            ("EVERFOLD_RATE_LIMITS".to_owned(), "off".to_owned()),
            ("EVERFOLD_HTTP_TRUSTED_PROXIES".to_owned(), "10.0.0.1, ::1".to_owned()),
            ("EVERFOLD_TEST_SEED".to_owned(), "1".to_owned()),
            ("EVERFOLD_CONFIG".to_owned(), "x".to_owned()),
            ("PATH".to_owned(), "/bin".to_owned()),
        ];
        let flags = [
            ("http.listen", "127.0.0.1:0".to_owned()),
            ("http.listen", "[::1]:0".to_owned()),
            ("registration.mode", "open".to_owned()),
        ];
        let config =
            Config::load(Sources { file: Some(file.path()), environment: &environment, flags: &flags }).unwrap();
        assert_eq!(config.server_name, "b.example");
        assert_eq!(config.registration.mode, RegistrationMode::Open);
        assert_eq!(config.http.listen.len(), 2);
        assert_eq!(config.http.trusted_proxies.len(), 2);
        assert!(!config.rate_limits.enabled);
        assert!((config.rate_limits.login.per_second - 3.0).abs() < f64::EPSILON);
        assert_eq!(config.http.request_timeout, Duration::from_secs(60));
    }

    #[test]
    fn mistakes_are_named_all_at_once() {
        let error = with_file("srever_name = 'x'\nserver = 1\n[http]\nlisten = 5\n[nonsense]\na = 1\n").unwrap_err();
        let text = error.to_string();
        for expected in
            ["srever_name is not a setting", "is server_name meant?", "http.listen must be a list, not", "nonsense"]
        {
            assert!(text.contains(expected), "{expected:?} is not in {text:?}");
        }
        for (name, value, expected) in [
            ("EVERFOLD_NONSENSE", "1", "not the name of a setting"),
            ("EVERFOLD_PRESENCE", "perhaps", "true or false"),
            ("EVERFOLD_LOG", "kafka://localhost:9092", "names no topic"),
            ("EVERFOLD_LOG_KAFKA_TIMEOUT_SECONDS", "10", "log.kafka.timeout_seconds"),
            ("EVERFOLD_LOG_KAFKA_PROPERTIES", "acks=1", "acks is set by Everfold"),
            ("EVERFOLD_NODE_URL", "https://10.0.0.1", "without TLS"),
            ("EVERFOLD_REGISTRATION", "ajar", "registration.mode"),
            ("EVERFOLD_HTTP_PUBLIC_URL", "matrix.example.org", "http"),
            ("EVERFOLD_RATE_LIMITS_LOGIN_BURST", "0", "rate_limits"),
            ("EVERFOLD_ROOMS_DEFAULT_VERSION", "99", "rooms.default_version"),
            ("EVERFOLD_SERVER_NAME", "not a name", "server_name"),
            ("EVERFOLD_TELEMETRY_FILTER", "=[", "telemetry.filter"),
        ] {
            let text = with_environment(&[(name, value)]).unwrap_err().to_string();
            assert!(text.contains(expected), "{name}: {expected:?} is not in {text:?}");
        }
    }
}
