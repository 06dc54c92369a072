//! Which version of each object is in force here, for the controller: a Gateway is Programmed once every ready
//! replica has acknowledged it (specs/istio-waypoint.md 1.4). Names and numbers only: the port is open to the cluster.

use cairn_config_schema::origin::Origin;
use cairn_config_schema::resources::{Loaded, Resources, Version};
use cairn_config_schema::snapshot::Snapshot;
use serde::Serialize;
use serde::ser::SerializeMap;
use serde_json::Number;

use crate::limits::ACKNOWLEDGED_OBJECTS_MAX;

/// What `/acknowledged` answers.
#[derive(Debug, Default, Serialize)]
pub struct Acknowledged {
    /// The snapshot in force.
    snapshot: u64,
    /// The Gateway that is served, and not only known; absent when every tunnel is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<String>,
    /// Generations and fingerprints by `Kind/namespace/name`: of the text in force, which may be older than the present
    /// one. What comes from files has none.
    #[serde(flatten, serialize_with = "by_text")]
    objects: Vec<(Origin, Version)>,
    /// Objects beyond the limit.
    left_out: usize,
}

impl Acknowledged {
    /// Of a snapshot and what it was resolved from.
    pub fn of(resources: &Resources, snapshot: &Snapshot) -> Self {
        let serves = snapshot.waypoint.as_ref().filter(|w| w.blocked.is_none());
        let mut all = Listed::default();
        // First, so that it is never among those left out.
        if let Some(waypoint) = &snapshot.waypoint {
            let gateway = resources.gateways.get(&waypoint.origin.key);
            let gateway = gateway.and_then(Loaded::object);
            all.add(gateway.and_then(|g| Some((&g.origin, g.meta.version()?))));
        }
        all.add(resources.versions());
        Self {
            snapshot: snapshot.version,
            gateway: serves.map(|waypoint| waypoint.origin.key.to_string()),
            objects: all.objects,
            left_out: all.left_out,
        }
    }

    pub(super) fn render(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }
}

#[derive(Default)]
struct Listed {
    objects: Vec<(Origin, Version)>,
    left_out: usize,
}

impl Listed {
    fn add<'a>(&mut self, objects: impl IntoIterator<Item = (&'a Origin, Version)>) {
        for (origin, version) in objects {
            if self.objects.len() < ACKNOWLEDGED_OBJECTS_MAX {
                self.objects.push((origin.clone(), version));
            } else {
                self.left_out += 1;
            }
        }
    }
}

fn by_text<S: serde::Serializer>(objects: &[(Origin, Version)], to: S) -> Result<S::Ok, S::Error> {
    let mut map = to.serialize_map(Some(2))?;
    let generation = |version: &Version| Number::from(version.generation);
    map.serialize_entry("objects", &Column(objects, generation))?;
    let fingerprint = |version: &Version| Number::from(version.fingerprint);
    map.serialize_entry("fingerprints", &Column(objects, fingerprint))?;
    map.end()
}

/// One number of each version, by the text of its object.
struct Column<'a>(&'a [(Origin, Version)], fn(&Version) -> Number);

impl Serialize for Column<'_> {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let each = self.0.iter();
        to.collect_map(each.map(|(origin, version)| (origin.to_string(), self.1(version))))
    }
}

#[cfg(test)]
mod tests {
    use cairn_config_schema::origin::{Kind, ObjectKey};
    use cairn_kubernetes::limits::ACKNOWLEDGED_BYTES_MAX;

    use super::*;

    /// An answer that is too long counts as none, and the Gateway would never be programmed.
    #[test]
    fn the_longest_answer_is_one_that_the_controller_takes() {
        let version = Version {
            generation: i64::MAX,
            fingerprint: u64::MAX,
        };
        let origin = Origin {
            kind: Kind::RequestAuthentication,
            key: ObjectKey {
                namespace: "n".repeat(63).into(),
                name: "r".repeat(253).into(),
            },
        };
        let all = Acknowledged {
            snapshot: u64::MAX,
            gateway: Some(origin.key.to_string()),
            objects: vec![(origin, version); ACKNOWLEDGED_OBJECTS_MAX],
            left_out: usize::MAX,
        };
        let bytes = all.render().unwrap().len();
        assert_eq!(bytes / ACKNOWLEDGED_OBJECTS_MAX, 725);
        assert!(bytes <= ACKNOWLEDGED_BYTES_MAX, "{bytes}");
    }
}
