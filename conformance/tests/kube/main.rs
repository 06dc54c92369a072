//! Cairn on a real Kubernetes API server: upstream's etcd, kube-apiserver and controllers, kubectl as the user,
//! Cairn's own binary in the pods. Needs root, Go and its module proxy (`make setup`); elsewhere every test
//! says loudly that it is skipped, which REQUIRE_KUBE=1 makes a failure.

// A panic here is a failed test.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod attach;
mod chart;
mod class_change;
mod control_plane;
mod controller;
mod doctor;
mod guides;
mod istiod;
mod node;
mod people;
mod rbac;
mod watch;
