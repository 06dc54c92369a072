//! Hubble's observer API over the flow records (specs/policies.md 3.2 to 3.4): what the `hubble` command,
//! its UI and `cairn observe` ask. Records are told as flows only here, for whoever reads them; nothing
//! here is on the path of a request.
//!
//! [`flows`] says a record in Hubble's terms, [`filter`] decides which flows a client wants, [`reader`]
//! walks the ring for one client, [`service`] answers the calls and [`server`] has the socket.
//! [`client`] is the other side, for `cairn observe`.

pub mod ask;
pub mod client;
pub mod endpoint;
pub mod filter;
pub mod flows;
pub mod mask;
pub mod messages;
pub mod reader;
pub mod redact;
pub mod server;
pub mod service;
mod settings;

pub use redact::Redaction;
pub use server::Server;
pub use service::Observer;
pub use settings::Settings;

/// The version of the observer API that is spoken here, for clients that compare it with theirs.
pub const API_VERSION: &str = "1.19.4";

/// The service whose health is asked for.
pub const HEALTH_SERVICE: &str = "hubble.server.Observer";
