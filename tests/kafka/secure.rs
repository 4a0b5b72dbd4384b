//! Brokers that want TLS and a password.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    broker::Broker,
    served::{Place, TIMEOUT},
};

const PASSWORD: &str = "of everfold, nobody else's";

/// Runs the JRE's tool for keys.
fn keytool(arguments: &[&str]) {
    let output = Command::new("keytool").args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// A broker whose second listener takes those alone who trust its certificate and know a password.
fn secure() -> Option<(Broker, String)> {
    let mut listener = String::new();
    let broker = Broker::start_with(|folder, port| {
        let (store, certificate) = (folder.join("store.p12"), folder.join("ca.pem"));
        let (store, certificate) = (store.to_str().unwrap(), certificate.to_str().unwrap());
        let keys = ["-keystore", store, "-storetype", "PKCS12", "-storepass", "of the store", "-alias", "broker"];
        let made =
            ["-genkeypair", "-keyalg", "EC", "-dname", "CN=broker", "-ext", "SAN=IP:127.0.0.1", "-validity", "2"];
        keytool(&[&made[..], &keys[..]].concat());
        keytool(&[&["-exportcert", "-rfc", "-file", certificate][..], &keys[..]].concat());
        let secure = port + 2;
        let login = "org.apache.kafka.common.security.plain.PlainLoginModule";
        let settings = format!(
            "listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{},SECURE://127.0.0.1:{secure}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{port},SECURE://127.0.0.1:{secure}\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:SASL_SSL\n\
             ssl.keystore.location={store}\nssl.keystore.type=PKCS12\nssl.keystore.password=of the store\n\
             ssl.key.password=of the store\n\
             listener.name.secure.sasl.enabled.mechanisms=PLAIN\n\
             listener.name.secure.plain.sasl.jaas.config={login} required user_everfold=\"{PASSWORD}\";\n",
            port + 1
        );
        fs::write(folder.join("extra.properties"), settings).unwrap();
        listener = format!("127.0.0.1:{secure}");
    })?;
    Some((broker, listener))
}

/// Settings for that listener; the secret is in a file.
fn place((broker, listener): &(Broker, String), folder: &Path, password: &str) -> Place {
    let secrets = folder.join("secrets");
    fs::write(&secrets, format!("sasl.username=everfold\nsasl.password={password}\n")).unwrap();
    fs::set_permissions(&secrets, fs::Permissions::from_mode(0o600)).unwrap();
    let authority = broker.folder.join("ca.pem");
    let properties = format!("security.protocol=SASL_SSL,sasl.mechanism=PLAIN,ssl.ca.location={}", authority.display());
    Place::on(listener).with([
        ("EVERFOLD_LOG_KAFKA_PROPERTIES", properties),
        ("EVERFOLD_LOG_KAFKA_PROPERTIES_FILE", secrets.to_str().unwrap().to_owned()),
    ])
}

#[tokio::test]
async fn tls_and_passwords_are_passed_on() {
    let Some(broker) = secure() else { return };
    let folder = tempfile::TempDir::new().unwrap();
    let secured = place(&broker, folder.path(), PASSWORD);
    let served = secured.start();
    let alice = served.register("alice").await;
    alice.post("/createRoom", json!({})).await.ok();
    served.stop();
    secured.check_through(&broker.0.address());
    let told = fs::read_to_string(secured.data().join("told")).unwrap();
    assert!(!told.contains(PASSWORD), "secrets are not for log lines");
}

#[test]
fn who_is_not_let_in_is_told_why_in_time() {
    let Some(broker) = secure() else { return };
    let folder = tempfile::TempDir::new().unwrap();
    let refused = |place: &Place| {
        let began = Instant::now();
        let why = place.refusal(&["serve", "--listen", "127.0.0.1:0"]);
        assert!(began.elapsed() < Duration::from_secs(3 * TIMEOUT), "{:?}", began.elapsed());
        why
    };
    let why = refused(&place(&broker, folder.path(), "a wrong one"));
    assert!(why.contains("Authentication failed") && !why.contains("a wrong one"), "{why}");
    let trusts_others = place(&broker, folder.path(), PASSWORD)
        .with([("EVERFOLD_LOG_KAFKA_PROPERTIES", "security.protocol=SASL_SSL,sasl.mechanism=PLAIN".to_owned())]);
    let why = refused(&trusts_others);
    assert!(why.contains("certificate"), "{why}");
    let plain = Place::on(&broker.1);
    let why = refused(&plain);
    assert!(why.contains("security.protocol"), "{why}");
}
