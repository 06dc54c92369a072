//! Which generation of each route and policy was read: what a waypoint acknowledges, and what people and the
//! controller compare with the API server. Judges nothing.

use std::collections::BTreeMap;

use super::{Loaded, Resources};
use crate::origin::{ObjectKey, Origin};

impl Resources {
    /// Objects whose generation tells whether they are in force as written: routes and policies. Of a text that is not
    /// in force the one that is; what comes from files has no generation and is left out.
    pub fn generations(&self) -> impl Iterator<Item = (&Origin, i64)> {
        of(&self.http_routes)
            .chain(of(&self.grpc_routes))
            .chain(of(&self.tls_routes))
            .chain(of(&self.tcp_routes))
            .chain(of(&self.authorization_policies))
            .chain(of(&self.request_authentications))
            .chain(of(&self.traffic_policies))
            .chain(of(&self.backend_traffic_policies))
            .chain(of(&self.backend_tls_policies))
            .chain(of(&self.virtual_services))
            .chain(of(&self.cilium_policies))
            .chain(of(&self.cilium_clusterwide_policies))
    }
}

fn of<T>(objects: &BTreeMap<ObjectKey, Loaded<T>>) -> impl Iterator<Item = (&Origin, i64)> {
    let known = objects.values().filter_map(Loaded::object);
    known.filter_map(|object| Some((&object.origin, object.meta.generation?)))
}
