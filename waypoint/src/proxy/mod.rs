//! What happens to a request or a TCP stream once its tunnel is open. The HTTP engine is Pingora,
//! and the only folder that knows it is this one.

mod arrival;
pub mod attempt;
mod balance;
mod body;
pub mod connector;
pub mod context;
pub mod deadline;
mod endpoint_stream;
pub mod engine;
pub mod error;
mod external;
mod fault;
pub mod grpc_messages;
mod head;
pub mod headers;
pub mod http;
mod http2;
mod judge;
mod login;
pub mod mirror;
mod persistence;
mod plan;
mod rate_limit;
mod refusal;
pub mod reply;
mod requested;
mod retry;
mod route_table;
mod screen;
pub mod session;
pub mod stream;
pub mod stream_context;
pub mod tcp;
pub mod tcp_open;
mod throttle;
mod unread;
