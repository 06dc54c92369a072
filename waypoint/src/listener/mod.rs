//! From a TCP connection to a tunnelled stream: accept, TLS, CONNECT, protocol.

pub mod accept;
pub mod admit;
pub mod protocol;
pub mod tunnel;
