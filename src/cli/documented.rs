//! Whatever the documents say to type is what the program takes: commands, flags, settings.

use std::{fs, path::Path};

use clap::{CommandFactory, Parser};
use toml::{Table, Value};

use super::Cli;
use crate::config::{Config, EXAMPLE, Sources};

/// All documents with their text.
fn documents() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let docs = docs.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    let paths = docs.chain(["README.md", "ARCHITECTURE.md"].map(|name| root.join(name)));
    let read = |path: std::path::PathBuf| (path.display().to_string(), fs::read_to_string(&path).unwrap());
    paths.map(read).collect()
}

/// The scripts of a document, and the code between single backticks in its text.
fn code(text: &str) -> (Vec<&str>, Vec<&str>) {
    let (mut scripts, mut spans) = (Vec::new(), Vec::new());
    for (number, block) in text.split("\n```").enumerate() {
        let (first, rest) = block.split_once('\n').unwrap_or((block, ""));
        match number % 2 {
            0 => spans.extend(block.split('`').skip(1).step_by(2)),
            _ if first == "sh" => scripts.push(rest),
            _ => {}
        }
    }
    (scripts, spans)
}

/// A script's simple commands as their words, as far as documents use a shell: quotes, comments, pipes, redirections.
fn commands(script: &str) -> Vec<Vec<String>> {
    let (mut commands, mut words, mut word) = (Vec::new(), Vec::new(), None::<String>);
    let (mut quote, mut redirected) = (None, false);
    let joined = script.replace("\\\n", " ") + "\n";
    let mut chars = joined.chars();
    while let Some(c) = chars.next() {
        match c {
            _ if quote == Some(c) => quote = None,
            _ if quote.is_some() => word.get_or_insert_default().push(c),
            '"' | '\'' => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            '#' if word.is_none() => {
                chars.by_ref().take_while(|c| *c != '\n').for_each(drop);
                commands.push(std::mem::take(&mut words));
            }
            _ if c.is_whitespace() || ";|&()<>".contains(c) => {
                if let Some(word) = word.take().filter(|_| !std::mem::take(&mut redirected)) {
                    words.push(word);
                }
                match c {
                    '<' | '>' => redirected = true,
                    '\n' | ';' | '|' | '&' | '(' | ')' => commands.push(std::mem::take(&mut words)),
                    _ => {}
                }
            }
            _ => word.get_or_insert_default().push(c),
        }
    }
    commands.retain(|words| !words.is_empty());
    commands
}

/// The settings that a command sets for its environment, and the arguments if it is Everfold's, be it in a container.
fn everfold(words: &[String]) -> (Vec<(String, String)>, Option<&[String]>) {
    let mut words = words;
    let mut environment = Vec::new();
    while let [first, rest @ ..] = words {
        match (first.as_str(), first.split_once('=')) {
            ("until" | "while" | "if" | "do" | "then" | "!" | "sudo" | "export", _) => words = rest,
            ("-u", _) => words = rest.get(1..).unwrap_or_default(),
            (_, Some((name, value))) if name.chars().all(|c| c.is_ascii_uppercase() || c == '_') => {
                environment.push((name.to_owned(), value.to_owned()));
                words = rest;
            }
            _ => break,
        }
    }
    let after =
        |words: &'_ [String], found: fn(&str) -> bool| words.iter().position(|word| found(word)).map(|at| at + 1);
    let begin = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["everfold" | "target/debug/everfold", ..] => Some(1),
        ["cargo", "bench" | "test", ..] => {
            // Theirs are no settings of the server.
            environment.clear();
            None
        }
        ["cargo", "run", ..] => after(words, |word| word == "--"),
        // The image's entry point is the program; `exec` has to name it.
        ["docker", "run", ..] => after(words, |word| word == "everfold"),
        ["docker", "compose", "run", ..] => after(words, |word| matches!(word, "everfold" | "projector")),
        ["docker", "compose", "exec", ..] => {
            let service = words.iter().skip(3).position(|word| !word.starts_with('-')).map(|at| at + 3);
            service.filter(|at| words.get(at + 1).is_some_and(|word| word == "everfold")).map(|at| at + 2)
        }
        _ => None,
    };
    (environment, begin.and_then(|begin| words.get(begin..)))
}

#[test]
fn every_command_line_in_the_documents_works() {
    let (mut problems, mut found) = (Vec::new(), 0);
    for (file, text) in documents() {
        for words in code(&text).0.into_iter().flat_map(commands) {
            let (environment, arguments) = everfold(&words);
            if let Err(error) = Config::load(Sources { environment: &environment, ..Sources::default() }) {
                problems.push(format!("{file}: {words:?}: {error}"));
            }
            let Some(arguments) = arguments else { continue };
            found += 1;
            if let Err(error) =
                Cli::try_parse_from(["everfold"].into_iter().chain(arguments.iter().map(String::as_str)))
            {
                problems.push(format!("{file}: {words:?}: {error}"));
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(found > 20, "the documents have another shape than this test reads: {found} command lines");
}

#[test]
fn every_command_named_in_the_documents_is_one() {
    let mut problems = Vec::new();
    let mut cli = Cli::command();
    cli.build();
    for (file, text) in documents() {
        for span in code(&text).1.into_iter().filter(|span| span.starts_with("everfold ")) {
            let mut command = &cli;
            for word in span.split_whitespace().skip(1) {
                if let Some(flag) = word.strip_prefix("--") {
                    let flag = flag.split('=').next();
                    if !command.get_arguments().any(|argument| argument.get_long() == flag) {
                        problems.push(format!("{file}: `{span}`: {} has no {word}", command.get_name()));
                    }
                } else if let Some(below) = command.find_subcommand(word) {
                    command = below;
                } else if command.has_subcommands() && word.chars().all(char::is_alphabetic) {
                    problems.push(format!("{file}: `{span}`: {} has no {word}", command.get_name()));
                }
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn every_setting_named_in_the_documents_is_one() {
    let settings: Table = EXAMPLE.parse().unwrap();
    let mut problems = Vec::new();
    for (file, text) in documents() {
        for span in code(&text).1 {
            let key = span.split(" = ").next().unwrap_or_default();
            let is_key = key.contains('.') && key.chars().all(|c| c.is_ascii_lowercase() || "._".contains(c));
            let mut path = key.split('.').peekable();
            if !is_key || !path.peek().is_some_and(|first| settings.get(*first).is_some_and(Value::is_table)) {
                continue;
            }
            let found = path.try_fold(&settings, |table, name| match table.get(name) {
                Some(Value::Table(below)) => Ok(below),
                value => Err(value.is_some()),
            });
            if found == Err(false) {
                problems.push(format!("{file}: `{key}` is no setting"));
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// A text of docker-compose.yml where the environment sets nothing: `${NAME:-default}` is its default.
fn resolved(text: &str) -> String {
    match text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')?.split_once(":-")) {
        Some((_, default)) => default.to_owned(),
        None => text.to_owned(),
    }
}

#[test]
fn the_services_of_the_compose_file_are_started_with_what_the_program_takes() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let compose = fs::read_to_string(root.join("docker-compose.yml")).unwrap();
    let compose: serde_json::Value = serde_saphyr::from_str(&compose).unwrap();
    let services = compose["services"].as_object().unwrap().iter();
    let everfolds: Vec<_> = services.filter(|(_, service)| service["image"] == "everfold").collect();
    assert!(!everfolds.is_empty());
    for (name, service) in everfolds {
        let words = service["command"].as_array().unwrap().iter().map(|word| word.as_str().unwrap());
        let parsed = Cli::try_parse_from(["everfold"].into_iter().chain(words));
        assert!(parsed.is_ok(), "{name}: {}", parsed.unwrap_err());
        let environment = service["environment"].as_object().unwrap().iter();
        let environment: Vec<(String, String)> =
            environment.map(|(name, value)| (name.clone(), resolved(value.as_str().unwrap()))).collect();
        let config = Config::load(Sources { environment: &environment, ..Sources::default() });
        assert!(config.is_ok(), "{name}: {}", config.unwrap_err());
    }
}
