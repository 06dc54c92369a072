//! The configuration once every endpoint that is listed is ready. An EndpointSlice names address and ports of a pod
//! that is not, so that what will be asked of it is known; of pods that no slice lists it is not (`behind`).

use std::sync::Arc;

use crate::resources::kube::EndpointSliceSpec;
use crate::resources::{Loaded, Object, Resources};

/// The same with all listed endpoints ready. `None`: they are.
pub(super) fn ready(resources: &Resources) -> Option<Resources> {
    let late = |loaded: &Loaded<EndpointSliceSpec>| {
        let endpoints = loaded.object().map(|object| &object.spec.endpoints);
        endpoints.is_some_and(|all| all.iter().any(|endpoint| !endpoint.ready))
    };
    if !resources.endpoint_slices.values().any(late) {
        return None;
    }
    let mut coming = resources.clone();
    let slices = coming.endpoint_slices.values_mut();
    for loaded in slices.filter(|loaded| late(loaded)) {
        let (Loaded::Good(object) | Loaded::KeptLastGood(object)) = loaded else {
            continue;
        };
        let slice: &mut Object<EndpointSliceSpec> = Arc::make_mut(object);
        for endpoint in &mut slice.spec.endpoints {
            endpoint.ready = true;
        }
    }
    Some(coming)
}
