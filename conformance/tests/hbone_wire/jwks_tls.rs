//! Keys over HTTPS: from servers that have no more than TLS 1.2, too, if the system trusts them.

use std::process::Command;
use std::sync::Arc;

use cairn_conformance::client;
use cairn_conformance::golden::tokens::jwks;
use cairn_conformance::net::free_address;
use cairn_conformance::process::{Process, until};
use cairn_conformance::workspace;
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::mesh::Mesh;

/// A server of keys for `localhost`, and its certificate.
async fn server(version: &'static rustls::SupportedProtocolVersion) -> (u16, String) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .expect("a version")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], PrivateKeyDer::from(key))
        .expect("a certificate");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a server");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let Ok(mut client) = acceptor.accept(client).await else {
                continue;
            };
            let mut request = [0; 4096];
            let _ = client.read(&mut request).await;
            let body = jwks();
            let head = match request.starts_with(b"GET /moved ") {
                true => "HTTP/1.1 302 Found\r\nlocation: http://localhost:1/keys".to_owned(),
                false => "HTTP/1.1 200 OK".to_owned(),
            };
            let head = format!("{head}\r\ncontent-length: {}\r\n\r\n", body.len());
            let _ = client.write_all((head + &body).as_bytes()).await;
            let _ = client.shutdown().await;
        }
    });
    (port, made.cert.pem())
}

/// From the latter nothing leads to a server without TLS, where anybody on the way could give other keys.
#[tokio::test]
async fn keys_are_fetched_over_tls_1_3_and_1_2() {
    let mesh = Mesh::start().await;
    let (new, new_root) = server(&TLS13).await;
    let (old, old_root) = server(&TLS12).await;
    let roots = mesh.lab.folder().join("roots.pem");
    std::fs::write(&roots, new_root + &old_root).expect("a file");
    let rule = |scheme, port, path| {
        format!(
            "  - {{issuer: '{scheme}://{port}.example/{path}', jwksUri: '{scheme}://localhost:{port}/{path}'}}\n"
        )
    };
    let yaml = format!(
        "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\n\
         metadata: {{name: raw, namespace: shop}}\nspec:\n  \
         targetRefs: [{{group: \"\", kind: Service, name: raw}}]\n  jwtRules:\n{}{}{}{}",
        rule("https", new, "keys"),
        rule("https", old, "keys"),
        rule("https", new, "moved"),
        rule("HTTPS", new, "moved")
    );
    mesh.configure("raw", &yaml).await;
    let [hbone, metrics, ready, admin] = [(); 4].map(|()| free_address(mesh.cairn().hbone.ip()));
    let mut command = Command::new(workspace::cairn());
    command
        .args(["run", "--workers", "1", "--jwks-allow-local"])
        .arg("--config")
        .arg(mesh.lab.config())
        .arg("--identity-dir")
        .arg(mesh.lab.waypoint_identity())
        .args(["--hbone-addr", &hbone.to_string()])
        .args(["--metrics-addr", &metrics.to_string()])
        .args(["--ready-addr", &ready.to_string()])
        .args(["--admin-addr", &admin.to_string()])
        .env("SSL_CERT_FILE", &roots)
        .env_remove("SSL_CERT_DIR");
    let mut cairn = Process::start("cairn-beside", command, mesh.lab.folder());
    cairn.listening(admin).await;
    until("both sets of keys are there, and no others", async || {
        let answer = client::get_as("localhost", admin, "/config_dump").await;
        let dump: serde_json::Value = serde_json::from_slice(answer.body()).expect("JSON");
        let sets = dump["keys"].as_array().cloned().unwrap_or_default();
        let led_away = |set: &serde_json::Value| {
            let error = set["error"].as_str().unwrap_or_default();
            set["keys"] == 0 && error.contains("from https to http")
        };
        sets.len() == 4
            && sets.iter().filter(|set| set["keys"] == 4).count() == 2
            && sets.iter().filter(|set| led_away(set)).count() == 2
    })
    .await;
}
