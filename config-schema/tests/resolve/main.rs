//! What a configuration means: YAML in, the snapshot and what is said about it out. One module for
//! each topic; each test is one rule.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking
#![allow(clippy::indexing_slicing)]

mod attachment;
mod backend_tls;
mod backend_traffic_policies;
mod broken_policies;
mod destination_rules;
mod elsewhere;
mod elsewhere_addresses;
mod elsewhere_labels;
mod elsewhere_oracle;
mod endpoints;
mod entry_logs;
mod entry_networks;
mod findings;
mod l7_ports;
mod mesh;
mod network;
mod networks;
mod places;
mod policies;
mod policy_rules;
mod route_filters;
mod route_rules;
mod route_traffic;
mod routes;
mod service_entries;
mod services;
mod streams;
mod support;
mod telemetry;
mod traffic_limits;
mod virtual_services;
mod waypoint;
mod workloads;
