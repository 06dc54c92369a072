//! What happens to a request or a TCP stream once its tunnel is open. The HTTP engine is Pingora,
//! and the only folder that knows it is this one.

pub mod attempt;
pub mod connector;
pub mod context;
pub mod engine;
pub mod error;
pub mod headers;
pub mod http;
pub mod reply;
pub mod session;
pub mod stream;
pub mod tcp;
