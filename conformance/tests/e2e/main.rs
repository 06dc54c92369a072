//! End to end over real sockets: an application's client, real Envoy as the client tunnel, Cairn,
//! real Envoy as the destination tunnel, an application.

// A panic here is a failed test.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

#[macro_use]
mod manifests;

mod change;
mod collectors;
mod destination_rule;
mod dry_run;
mod egress;
mod egress_dns;
mod egress_tls;
mod ext_authz;
mod ext_authz_backend;
mod ext_authz_envoy;
mod ext_authz_failures;
mod ext_authz_filter;
mod filters;
mod flows;
mod ipv6;
mod issuer;
mod laboratory;
mod log_service;
mod memory;
mod overload;
mod page;
mod places;
mod policy;
mod profile;
mod prometheus;
mod protocols;
mod rate_limit;
mod retries;
mod routes;
mod scrape;
mod sessions;
mod streams;
mod strict;
mod telemetry;
mod telemetry_api;
mod timeouts;
mod tracing;
mod traffic_policy;
mod virtual_service;
