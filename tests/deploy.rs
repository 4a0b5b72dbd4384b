//! The image, docker-compose.yml and what watches them agree with each other and with the server. What the services run
//! and set is checked beside the command line, in `src/cli/documented.rs`.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that can't go on says so by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

use everfold::config::{Backend, Config, Sources};
use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn yaml(path: &str) -> Value {
    serde_saphyr::from_str(&read(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn compose() -> Value {
    yaml("docker-compose.yml")
}

/// The texts of a list.
fn texts(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

/// The services that run Everfold's image.
fn everfolds(compose: &Value) -> Vec<(&str, &Value)> {
    let services = compose["services"].as_object().unwrap().iter().map(|(name, service)| (name.as_str(), service));
    services.filter(|(_, service)| service["image"] == "everfold").collect()
}

/// The last words of the image's instructions with this name, a line of the file joined with those that go on from it.
fn instructions<'a>(dockerfile: &'a str, name: &str) -> Vec<&'a str> {
    dockerfile.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).collect()
}

fn dockerfile() -> String {
    let text = read("Dockerfile");
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    lines.collect::<Vec<_>>().join("\n").replace("\\\n", " ")
}

/// The packages that each stage of the image installs.
fn packages(dockerfile: &str) -> Vec<BTreeSet<&str>> {
    let lists = dockerfile.split("--no-install-recommends ").skip(1).map(|rest| rest.split("&&").next().unwrap());
    lists.map(|list| list.split_whitespace().collect()).collect()
}

#[test]
fn the_image_is_built_with_what_the_setup_installs() {
    let (setup, dockerfile) = (read("scripts/setup"), dockerfile());
    let build = setup.split("--tests").nth(1).unwrap();
    let needed: BTreeSet<&str> =
        build.split("need ").skip(1).filter_map(|rest| rest.split([';', '\n', ' ']).next()).collect();
    assert!(needed.len() > 5 && needed.contains("cmake"), "scripts/setup has another shape than this test reads");
    let installed = &packages(&dockerfile)[0];
    let missing: Vec<&&str> = needed.difference(installed).collect();
    assert!(missing.is_empty(), "the image's build lacks {missing:?}");
    // Where it is built, everything that the workspace consists of must be there.
    let ignored = read(".dockerignore");
    for needed in ["Cargo.toml", "Cargo.lock", "src", "schemas", "projections", "benches"] {
        assert!(!ignored.lines().any(|line| line == needed), ".dockerignore leaves {needed} out");
    }
}

#[test]
fn the_image_has_every_library_that_the_program_loads() {
    let loaded = Command::new("ldd").arg(env!("CARGO_BIN_EXE_everfold")).output().unwrap();
    let loaded = String::from_utf8(loaded.stdout).unwrap();
    let dockerfile = dockerfile();
    let installed = &packages(&dockerfile)[1];
    for library in loaded.lines().filter_map(|line| line.trim().split(" => ").next()) {
        let package = match library.split(".so").next().unwrap() {
            "libssl" | "libcrypto" => "libssl3",
            "libz" => "zlib1g",
            // Every Debian image has these.
            "libc" | "libm" | "libgcc_s" | "libstdc++" | "linux-vdso" | "libdl" | "libpthread" | "librt" => continue,
            loader if loader.contains("ld-linux") => continue,
            other => panic!("which package has {other}? ({library})"),
        };
        assert!(installed.contains(package), "the image lacks {package} for {library}");
    }
}

#[test]
fn the_image_runs_without_privileges_and_says_whether_it_is_healthy() {
    let dockerfile = dockerfile();
    let last = |name| *instructions(&dockerfile, name).last().unwrap_or_else(|| panic!("no {name}"));
    assert_eq!(last("ENTRYPOINT"), r#"["everfold"]"#);
    assert!(last("HEALTHCHECK").ends_with(r#"CMD ["everfold", "health"]"#), "{}", last("HEALTHCHECK"));
    let user = last("USER");
    assert!(user != "root" && dockerfile.contains(&format!("--owner {user} ")), "{user} owns the data folder");
    let environment: Vec<(String, String)> = last("ENV")
        .split_whitespace()
        .map(|setting| setting.split_once('=').unwrap())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let config = Config::load(Sources { environment: &environment, ..Sources::default() }).unwrap();
    assert_eq!(last("VOLUME"), config.data.to_str().unwrap());
    assert_eq!(last("EXPOSE"), config.http.listen[0].port().to_string());
    assert!(config.http.listen[0].ip().is_unspecified(), "it is reached from outside");
}

#[test]
fn services_fit_the_image_and_each_other() {
    let (compose, dockerfile) = (compose(), dockerfile());
    let everfolds = everfolds(&compose);
    assert_eq!(everfolds.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["everfold", "projector"]);
    let volume = instructions(&dockerfile, "VOLUME")[0];
    for (name, service) in &everfolds {
        assert_eq!(service["build"], ".", "{name} is built from the Dockerfile here");
        assert_eq!(texts(&service["volumes"]), [format!("everfold-data:{volume}")], "{name} has the one data folder");
        assert_eq!(service["read_only"], true, "{name} writes nowhere else");
        assert_eq!(service.get("user"), None, "{name} runs as the image's user");
    }
    let port = instructions(&dockerfile, "EXPOSE")[0];
    assert_eq!(texts(&everfolds[0].1["ports"]), [format!("127.0.0.1:{port}:{port}")]);
    for (name, service) in compose["services"].as_object().unwrap() {
        for port in service.get("ports").map(texts).unwrap_or_default() {
            assert!(port.starts_with("127.0.0.1:"), "{name} is reached from this machine alone: {port}");
        }
        for mount in service.get("volumes").map(texts).unwrap_or_default() {
            let source = mount.split(':').next().unwrap();
            let is_there = match source.strip_prefix("./") {
                Some(path) => root().join(path).is_dir(),
                None => compose["volumes"].as_object().unwrap().contains_key(source),
            };
            assert!(is_there, "{name}: there is no {source}");
        }
        let waits_for = match service.get("depends_on") {
            Some(Value::Object(conditions)) => conditions.keys().map(String::as_str).collect(),
            Some(list) => texts(list),
            None => Vec::new(),
        };
        for other in waits_for {
            assert!(compose["services"].get(other).is_some(), "{name} depends on {other}, which is no service");
        }
    }
}

#[test]
fn the_broker_is_where_the_server_looks_and_loses_nothing() {
    let compose = compose();
    let kafka = &compose["services"]["kafka"];
    let version = kafka["image"].as_str().unwrap().strip_prefix("apache/kafka:").unwrap();
    assert!(read("scripts/kafka").contains(&format!("version={version}\n")), "the tests run another Kafka");
    let setting = |name: &str| match &kafka["environment"][name] {
        Value::String(text) => text.clone(),
        value => value.to_string(),
    };
    let logs =
        everfolds(&compose).into_iter().map(|(_, service)| service["environment"]["EVERFOLD_LOG"].as_str().unwrap());
    let logs: BTreeSet<&str> = logs.collect();
    assert_eq!(logs.len(), 1, "all have one log");
    let environment = [("EVERFOLD_LOG".to_owned(), (*logs.first().unwrap()).to_owned())];
    let config = Config::load(Sources { environment: &environment, ..Sources::default() }).unwrap();
    let Backend::Kafka(topic) = &config.log.backend else { panic!("the log is on Kafka") };
    assert_eq!(setting("KAFKA_ADVERTISED_LISTENERS"), format!("PLAINTEXT://{}", topic.brokers));
    let (host, port) = topic.brokers.split_once(':').unwrap();
    assert!(compose["services"].get(host).is_some() && setting("KAFKA_LISTENERS").contains(&format!("://:{port},")));
    // The server makes the topic: one partition, synced, kept for ever. The broker must not make one before.
    assert!(config.log.kafka.create_topic && !config.log.kafka.accept_power_loss);
    assert_eq!(setting("KAFKA_AUTO_CREATE_TOPICS_ENABLE"), "false");
    let folder = setting("KAFKA_LOG_DIRS");
    assert!(texts(&kafka["volumes"]).contains(&format!("kafka-data:{folder}").as_str()), "its data are kept");
}

/// The settings that `scripts/kafka` writes for a single broker.
fn of_the_tests_broker() -> BTreeMap<String, String> {
    let script = read("scripts/kafka");
    let written = script.split("<<SETTINGS\n").nth(1).unwrap().split("SETTINGS\n").next().unwrap();
    let settings = written.lines().map(|line| line.split_once('=').unwrap());
    settings.map(|(name, value)| (name.to_owned(), value.replace("$copies", "1").replace("$minimum", "1"))).collect()
}

#[test]
fn the_broker_is_set_like_the_one_that_the_tests_run_on() {
    let compose = compose();
    let environment = compose["services"]["kafka"]["environment"].as_object().unwrap();
    // The image makes settings of such names.
    let settings = environment.iter().filter(|(name, _)| *name != "KAFKA_HEAP_OPTS");
    let settings = settings.filter_map(|(name, value)| Some((name.strip_prefix("KAFKA_")?, value)));
    let here: BTreeMap<String, String> = settings
        .map(|(name, value)| {
            let value = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
            (name.to_lowercase().replace('_', "."), value)
        })
        .collect();
    let there = of_the_tests_broker();
    assert!(there.len() > 15, "scripts/kafka has another shape than this test reads: {there:?}");
    assert_eq!(here.keys().collect::<Vec<_>>(), there.keys().collect::<Vec<_>>());
    let of_a_place = ["listeners", "advertised.listeners", "controller.quorum.voters", "log.dirs", "node.id"];
    for (name, value) in there.iter().filter(|(name, _)| !of_a_place.contains(&name.as_str())) {
        assert_eq!(&here[name], value, "{name}");
    }
}

/// The server's metrics, each with the names under which Prometheus knows it.
fn metrics() -> BTreeMap<String, Vec<String>> {
    let source = read("src/metrics.rs");
    let list = source.split("\nmetrics! {\n").nth(1).unwrap().split("\n}").next().unwrap();
    let named = list.lines().filter_map(|line| line.trim().split_once(": "));
    let named = named.filter(|(name, _)| name.chars().all(|c| c.is_ascii_lowercase() || c == '_'));
    named
        .map(|(name, rest)| {
            let suffixes: &[&str] = if rest.starts_with("Histogram") { &["_bucket", "_sum", "_count"] } else { &[""] };
            let name = format!("everfold_{name}");
            (name.clone(), suffixes.iter().map(|suffix| format!("{name}{suffix}")).collect())
        })
        .collect()
}

/// The metrics of Everfold that a text names.
fn named(text: &str) -> impl Iterator<Item = &str> {
    let end = |text: &str| text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    text.match_indices("everfold_").map(move |(at, _)| &text[at..at + end(&text[at..])])
}

/// What the dashboard asks for.
fn of_panels() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/dashboards/everfold.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row");
    let targets = panels.flat_map(|panel| panel["targets"].as_array().unwrap());
    targets.map(|target| target["expr"].as_str().unwrap().to_owned()).collect()
}

/// The alerts with what they ask for.
fn of_alerts() -> Vec<(String, String)> {
    let alerts = yaml("deploy/prometheus/alerts.yml");
    let rules = alerts["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap());
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    rules.map(|rule| (text(&rule["alert"]), text(&rule["expr"]))).collect()
}

#[test]
fn dashboard_and_alerts_ask_for_what_the_server_tells() {
    let (metrics, panels, alerts) = (metrics(), of_panels(), of_alerts());
    assert!(metrics.len() > 20, "src/metrics.rs has another shape than this test reads: {metrics:?}");
    let known: BTreeSet<&str> = metrics.values().flatten().map(String::as_str).collect();
    for expression in panels.iter().chain(alerts.iter().map(|(_, expression)| expression)) {
        let unknown: Vec<&str> = named(expression).filter(|name| !known.contains(name)).collect();
        assert!(unknown.is_empty(), "{unknown:?} are no metrics: {expression}");
        assert!(named(expression).next().is_some() || expression.starts_with("up{"), "{expression}");
    }
    let shown = panels.join("\n");
    let unseen: Vec<&String> = metrics.keys().filter(|name| !shown.contains(*name)).collect();
    assert!(unseen.is_empty(), "the dashboard shows nothing of {unseen:?}");
}

#[test]
fn documents_name_metrics_that_there_are_and_every_alert() {
    let metrics = metrics();
    let known = |name: &str| metrics.contains_key(name) || metrics.values().flatten().any(|known| known == name);
    let operations = read("docs/operations.md");
    for text in [&operations, &read("README.md"), &read("docs/capacity.md")] {
        let unknown: Vec<&str> = named(text).filter(|name| !known(name)).collect();
        assert!(unknown.is_empty(), "{unknown:?} are no metrics");
    }
    for (alert, _) in of_alerts() {
        assert!(operations.contains(&format!("`{alert}`")), "docs/operations.md doesn't say what to do about {alert}");
    }
}

#[test]
fn prometheus_finds_the_services() {
    let (compose, prometheus, dockerfile) = (compose(), yaml("deploy/prometheus/prometheus.yml"), dockerfile());
    for rules in texts(&prometheus["rule_files"]) {
        assert!(root().join("deploy/prometheus").join(rules).is_file(), "there is no {rules}");
    }
    let jobs = prometheus["scrape_configs"].as_array().unwrap();
    assert_eq!(jobs[0]["job_name"], "everfold", "alerts go by this name");
    let mut asked = BTreeSet::new();
    for found in jobs.iter().flat_map(|job| job["dns_sd_configs"].as_array().unwrap()) {
        assert_eq!(found["port"].to_string(), instructions(&dockerfile, "EXPOSE")[0]);
        for name in texts(&found["names"]) {
            let service = &compose["services"][name];
            assert_eq!(service["image"], "everfold", "{name} is none of Everfold's services");
            let command = texts(&service["command"]);
            let listens = command.iter().position(|word| *word == "--listen").map(|at| command[at + 1]);
            if command[0] == "project" {
                assert_eq!(
                    listens,
                    Some(format!("0.0.0.0:{}", found["port"]).as_str()),
                    "{name} is reached from outside"
                );
            }
            asked.insert(name);
        }
    }
    let all: BTreeSet<&str> = everfolds(&compose).into_iter().map(|(name, _)| name).collect();
    assert_eq!(asked, all, "all of them are asked");
    let config = Config::load(Sources::default()).unwrap();
    assert!(config.telemetry.metrics, "there is something to find");
    let command = texts(&compose["services"]["prometheus"]["command"]).join(" ");
    assert!(command.contains("--config.file=/etc/prometheus/prometheus.yml"));
    let source = yaml("deploy/grafana/provisioning/datasources/prometheus.yml")["datasources"][0].clone();
    let port = compose["services"]["prometheus"]["ports"][0].as_str().unwrap().rsplit(':').next().unwrap().to_owned();
    assert_eq!(source["url"], format!("http://prometheus:{port}"));
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/dashboards/everfold.json")).unwrap();
    for panel in dashboard["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row") {
        assert_eq!(panel["datasource"]["uid"], source["uid"], "{}", panel["title"]);
    }
    let folder = yaml("deploy/grafana/provisioning/dashboards/everfold.yml")["providers"][0]["options"]["path"].clone();
    let mounts = texts(&compose["services"]["grafana"]["volumes"]);
    assert!(mounts.contains(&format!("./deploy/grafana/dashboards:{}:ro", folder.as_str().unwrap()).as_str()));
}
