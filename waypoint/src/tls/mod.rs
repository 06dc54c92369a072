//! mTLS on both sides of the waypoint: its own identity, who may connect, whom it connects to.
//! The only folder that knows rustls.

pub mod any_peer;
mod api;
mod client_hello;
pub mod handshake;
pub mod identity;
pub mod originate;
mod outside;
pub mod rotate;
mod trust;
pub mod verify;
pub mod web;

pub use any_peer::connect_to_any;
pub use api::{ApiClientFiles, ApiFiles, ApiTls, connect_to_api};
pub use client_hello::ClientHello;
pub use handshake::{Acceptor, connect};
pub use identity::{
    IdentityFiles, LoadError, LocalIdentity, Material, MaterialError, certificates_of_pem,
    is_self_issued,
};
pub use originate::{Alpn, Originate, Originations};
pub use rotate::IdentitySource;
pub use tokio_rustls::client::TlsStream;
pub use trust::Anchors;
pub use verify::{Expected, VerifyError, peer_identity};
pub use web::WebClient;
