//! A mesh whose waypoint has no certificate in files: a service, a pod, and what a waypoint's pod has on its
//! disk. Where the certificate comes from is the tests' business.

use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cairn_conformance::app::App;
use cairn_conformance::cairn::Cairn;
use cairn_conformance::client;
use cairn_conformance::hbone::{Tls, Tunnel};
use cairn_conformance::lab::{Client, Lab, Port, Reach};
use cairn_conformance::process::until;
use cairn_waypoint::pki::Issued;

/// A service, one pod of it, and perhaps a waypoint.
pub struct Mesh {
    pub lab: Lab,
    _app: App,
    authority: String,
}

impl Mesh {
    pub fn new() -> Self {
        let mut lab = Lab::new();
        let address = lab.service("web", &[Port::new("http", 80)]);
        let app = lab.pod("web", "web-a", Reach::Hbone, |at| App::http("a", at));
        let mesh = Self {
            lab,
            _app: app,
            authority: format!("{address}:80"),
        };
        let root = mesh.lab.identities.authority().root_cert_pem();
        mesh.write("root-cert.pem", root);
        mesh.write("token", &token("shop", "waypoint", "1"));
        mesh
    }

    /// A file of the waypoint's pod.
    pub fn file(&self, name: &str) -> PathBuf {
        self.lab.folder().join(name)
    }

    /// Writes it, in one step.
    pub fn write(&self, name: &str, text: &str) {
        let new = self.file(&format!(".{name}.new"));
        std::fs::write(&new, text).expect("a file");
        std::fs::rename(new, self.file(name)).expect("a rename");
    }

    pub fn cairn(&self) -> &Cairn {
        self.lab.cairn()
    }

    /// Waits until the waypoint is ready, and gives a client of its.
    pub async fn client(&mut self) -> Client {
        self.lab.cairn_mut().until_ready().await;
        self.lab.client("shop/viewer").await
    }

    /// What the waypoint answers to probes.
    pub async fn probe(&self) -> (u16, String) {
        let answer = client::get(self.cairn().ready, "/healthz/ready").await;
        (answer.status().as_u16(), client::text(&answer))
    }

    /// Asks the waypoint to look, or ask, now.
    pub fn look(&self) {
        self.cairn().process.signal("HUP");
    }

    /// The leaf that it shows to a new connection.
    pub async fn shown(&self) -> Vec<u8> {
        let tls = Tls::of(&self.lab.identities.folder_of("shop/viewer"));
        let stream = tls.connect(self.cairn().hbone, self.lab.client_address());
        let stream = stream.await.expect("a handshake");
        let (_, session) = stream.get_ref();
        session.peer_certificates().expect("a certificate")[0].to_vec()
    }

    /// Whether a client with this certificate gets in.
    pub async fn accepts(&self, issued: &Issued) -> bool {
        let tls = Tls::with(issued.cert_chain_pem.clone(), issued.key_pem.clone());
        let tunnel = Tunnel::connect(&tls, self.cairn().hbone, self.lab.client_address());
        match tunnel.await {
            Ok(mut tunnel) => tunnel.open(&self.authority).await.is_ok(),
            Err(_) => false,
        }
    }

    /// Attempts to get a certificate that came to this.
    pub async fn attempts(&self, outcome: &str) -> f64 {
        let label = format!("outcome=\"{outcome}\"");
        let metric = "cairn_identity_attempts_total";
        self.cairn().metric(metric, &[&label]).await
    }

    /// Waits until there were more than `before` of them.
    pub async fn attempts_beyond(&self, outcome: &str, before: f64) {
        until(&format!("another attempt: {outcome}"), async || {
            self.attempts(outcome).await > before
        })
        .await;
    }

    /// Waits until it stands so with the identity.
    pub async fn is_in(&self, state: &str) {
        let label = format!("state=\"{state}\"");
        let metric = "cairn_identity_state";
        self.cairn().metric_reaches(metric, &[&label], 1.0).await;
    }
}

/// A token as Kubernetes projects it, as far as anybody here looks at it; `number` tells two apart.
pub fn token(namespace: &str, account: &str, number: &str) -> String {
    let claims =
        format!("{{\"sub\":\"system:serviceaccount:{namespace}:{account}\",\"jti\":\"{number}\"}}");
    format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
}
