//! Which route, which backend, which endpoint, and whether to try again.
//!
//! Pure: the request, random numbers and configuration come in, a choice goes out. This crate has
//! no clock, no socket, no randomness and no async; it opens no connection and changes no request.

mod audience;
mod back_off;
mod balance;
mod breaker;
mod budget;
mod cluster;
mod ejection;
mod endpoint;
mod limit;
mod matcher;
mod ordered;
mod rate;
mod request;
mod retry;
mod session;
mod split;
mod streams;
mod table;

pub use audience::PortRoutes;
pub use back_off::delay_ms;
pub use balance::{Choice, key_hash};
pub use breaker::{Breaker, Limited, Permit};
pub use budget::{Budget, InFlight};
pub use cluster::{Cluster, Hold};
pub use ejection::{AnswerKind, EjectionCause, EjectionEvent, Ejections, Health};
pub use endpoint::{ActiveRequest, LiveEndpoint};
pub use limit::{Bucket, KeyedBuckets, Place, Places, Rate, Share, Taken};
pub use request::{Claims, RequestParts};
pub use retry::{Attempt, AttemptOutcome, RetryDecision, decide, http_status_of_grpc};
pub use session::{Session, rule_id};
pub use split::choose;
pub use streams::{FoundStream, ServerName, StreamParts, StreamRoutes, StreamRuleRef};
pub use table::{Found, RouteTable, RuleRef};
