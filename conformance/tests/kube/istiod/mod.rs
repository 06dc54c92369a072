//! Cairn beside a real istiod: workloads that it tells of, certificates that it gives, and whether it leads ztunnels to
//! waypoints of Cairn (docs/kube-source.md). By hand, for istiod takes minutes to compile: `make istiod`.

mod authority;
mod discovery;
mod waypoint;
mod world;
