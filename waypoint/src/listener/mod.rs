//! From a TCP connection to a stream that is served: accept, TLS, CONNECT, protocol; or the listener
//! inside a pod and the slot its connections arrive at.

pub mod accept;
pub mod admit;
pub mod admitted;
pub mod protocol;
pub mod server_name;
pub mod steered;
pub mod tunnel;
