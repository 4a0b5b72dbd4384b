//! What is served, as the comments at the heads of the handlers' files name it.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A file of Rust, with its path from the repository's root.
pub struct Source {
    pub path: String,
    pub text: String,
}

/// All files of Rust in some folders, in the order of their paths.
pub fn sources(folders: &[&str]) -> Vec<Source> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("target") {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for folder in folders {
        walk(&root.join(folder), &mut found);
    }
    found.sort();
    let source = |path: PathBuf| Source {
        text: fs::read_to_string(&path).unwrap(),
        path: path.strip_prefix(root).unwrap().to_str().unwrap().to_owned(),
    };
    found.into_iter().map(source).collect()
}

/// One method of one path.
#[derive(Debug)]
pub struct Endpoint {
    /// The handlers' file.
    pub file: String,
    pub method: String,
    /// With parameters in braces.
    pub path: String,
}

/// All of them.
pub fn endpoints() -> Vec<Endpoint> {
    let mut endpoints = Vec::new();
    for source in sources(&["src/http"]) {
        let head: String = source.text.lines().map_while(|line| line.strip_prefix("//!")).collect();
        let mut methods = Vec::new();
        for word in head.split('`').skip(1).step_by(2) {
            let (some, path) = word.split_once(" /").unwrap_or((word, ""));
            if some.split('|').all(|method| ["GET", "POST", "PUT", "DELETE"].contains(&method)) {
                methods.extend(some.split('|'));
            }
            // "`GET`, `PUT` and `DELETE /path`" are three.
            if !path.is_empty() {
                for path in alternatives(&format!("/{path}")) {
                    endpoints.extend(methods.iter().map(|&method| Endpoint {
                        file: source.path.clone(),
                        method: method.to_owned(),
                        path: path.clone(),
                    }));
                }
                methods.clear();
            }
        }
    }
    endpoints
}

/// `/a/{b,c}` is `/a/b` and `/a/c`; `/a/{b}` has a parameter.
fn alternatives(path: &str) -> Vec<String> {
    let group = path.split('{').skip(1).filter_map(|rest| rest.split_once('}')).find(|(group, _)| group.contains(','));
    match group {
        Some((group, _)) => group.split(',').map(|one| path.replace(&format!("{{{group}}}"), one)).collect(),
        None => vec![path.to_owned()],
    }
}
