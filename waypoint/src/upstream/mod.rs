//! Connections towards endpoints: HBONE tunnels with pools of their own, or plain TCP. What is
//! sent over them is `proxy/`'s business.

mod asked;
pub mod carrier;
pub mod connector;
pub mod egress;
mod inner_tunnel;
pub mod proxy_header;
pub mod tunnel_pool;

pub use carrier::Carrier;
pub use connector::{ConnectError, Destination, Dialer, Reach};
pub use egress::Egress;
pub use proxy_header::ProxyHeader;
