//! The pinned maps, opened and typed. Says what is in them; what should be is decided elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;

use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, SockHash};

use crate::changes::Services;
use crate::layout::{self, About, Endpoint, Pod, Service, Shape};
use crate::{Counters, EnrolledPod, PodStatus, RedirectError, Sizes, is_host_key};

/// All maps of one layout.
pub(crate) struct Maps {
    pub services: HashMap<MapData, Endpoint, Service>,
    pub slots: HashMap<MapData, u32, Endpoint>,
    pub pods: HashMap<MapData, u64, Pod>,
    pub listeners: SockHash<MapData, u64>,
    counters: PerCpuArray<MapData, u64>,
    about: Array<MapData, About>,
    /// What they have room for.
    pub sizes: Sizes,
}

impl std::fmt::Debug for Maps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Maps")
    }
}

/// Names the map and what was tried.
pub(crate) fn failed(map: Shape, doing: &'static str) -> impl FnOnce(MapError) -> RedirectError {
    move |source| match os_error(&source) {
        Some(libc::E2BIG) => RedirectError::Full {
            map: map.name,
            limit: map.max_entries,
        },
        _ => RedirectError::Map {
            map: map.name,
            doing,
            source: source.into(),
        },
    }
}

/// What the kernel answered, if it was asked.
fn os_error(error: &MapError) -> Option<i32> {
    match error {
        MapError::SyscallError(e) => e.io_error.raw_os_error(),
        MapError::IoError(e) => e.raw_os_error(),
        _ => None,
    }
}

/// Leaves out that there was nothing to remove.
pub(crate) fn gone_is_fine(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound | MapError::ElementNotFound) => Ok(()),
        Err(error) if os_error(&error) == Some(libc::ENOENT) => Ok(()),
        other => other,
    }
}

impl Maps {
    /// Opens the maps pinned in `folder`, if they are what this version made.
    pub fn open(folder: &Path) -> Result<Self, RedirectError> {
        let sizes = Sizes {
            services: pinned(folder, layout::SERVICES)?.1,
            pods: pinned(folder, layout::PODS)?.1,
        };
        Ok(Self {
            services: typed(folder, layout::SERVICES)?,
            slots: typed(folder, layout::SLOTS)?,
            pods: typed(folder, layout::PODS)?,
            listeners: typed(folder, layout::LISTENERS)?,
            counters: typed(folder, layout::COUNTERS)?,
            about: typed(folder, layout::ABOUT)?,
            sizes,
        })
    }

    /// Whether those maps that are pinned in `folder` already have room for as much as `sizes` says.
    ///
    /// # Errors
    /// When one is of another shape: using it would read and write past its values.
    pub fn have(folder: &Path, sizes: Sizes) -> Result<bool, RedirectError> {
        let mut same = true;
        for map in layout::MAPS {
            if folder.join(map.name).exists() {
                let (_, room) = pinned(folder, map)?;
                same &= room == sizes.of(map).max_entries;
            }
        }
        Ok(same)
    }

    /// Enrols pods that earlier maps know and these do not, with nobody listening: until one has a
    /// listener its connections are refused, where they would else pass policy by.
    pub fn carry_over(&mut self, pods: &BTreeSet<u64>) -> Result<(), RedirectError> {
        for cookie in pods {
            if self.pods.get(cookie, 0).is_ok() {
                continue;
            }
            let nobody = EnrolledPod {
                netns_cookie: *cookie,
                listener_port: 0,
                ipv6_slots: false,
            };
            self.pods
                .insert(cookie, layout::pod(&nobody), 0)
                .map_err(failed(self.sizes.of(layout::PODS), "carrying a pod over"))?;
        }
        Ok(())
    }

    /// Flagged services.
    pub fn flagged(&self) -> Result<Services, RedirectError> {
        let mut services = Services::new();
        for entry in self.services.iter() {
            let (key, value) = entry.map_err(failed(layout::SERVICES, "reading"))?;
            let service = layout::read_service(&key, &value);
            services.insert(service.key(), service);
        }
        Ok(services)
    }

    /// Which address each slot stands for, those of services no longer flagged included.
    pub fn slot_addresses(&self) -> Result<BTreeMap<u32, (IpAddr, u16)>, RedirectError> {
        self.slots
            .iter()
            .map(|entry| entry.map(|(slot, value)| (slot, layout::read_endpoint(&value))))
            .collect::<Result<_, _>>()
            .map_err(failed(layout::SLOTS, "reading"))
    }

    /// Enrolled pods, by cookie.
    pub fn enrolled(&self) -> Result<Vec<PodStatus>, RedirectError> {
        let listening = self
            .listeners
            .keys()
            .collect::<Result<BTreeSet<_>, _>>()
            .map_err(failed(layout::LISTENERS, "reading"))?;
        let mut pods = self
            .pods
            .iter()
            .map(|entry| {
                let (netns_cookie, value) = entry?;
                Ok(PodStatus {
                    netns_cookie,
                    listener_port: layout::read_pod_port(&value),
                    ipv6_slots: layout::read_pod_has_ipv6(&value),
                    listening: listening.contains(&netns_cookie),
                })
            })
            .collect::<Result<Vec<_>, MapError>>()
            .map_err(failed(layout::PODS, "reading"))?;
        pods.sort_by_key(|pod| pod.netns_cookie);
        Ok(pods)
    }

    /// Counters, summed over the CPUs.
    pub fn counters(&self) -> Result<Counters, RedirectError> {
        let sum = |index: u32| {
            self.counters
                .get(&index, 0)
                .map(|values| values.iter().sum::<u64>())
                .map_err(failed(layout::COUNTERS, "reading"))
        };
        Ok(Counters {
            steered: sum(0)?,
            refused: sum(1)?,
            opened: sum(2)?,
            unreachable: sum(3)?,
            not_enrolled: sum(4)?,
            own: sum(5)?,
        })
    }

    /// The cgroup that is not steered, and the features in use.
    pub fn about(&self) -> Result<(u64, u32), RedirectError> {
        self.about
            .get(&0, 0)
            .map(|bytes| layout::read_about(&bytes))
            .map_err(failed(layout::ABOUT, "reading"))
    }

    /// Sets what [`about`](Self::about) tells, and whether pods are to be looked for by their cgroup:
    /// if there are such, or are about to be.
    pub fn set_about(
        &mut self,
        own_cgroup: u64,
        features: u32,
        by_cgroup: bool,
    ) -> Result<(), RedirectError> {
        let mut known = self.pods.keys().flatten();
        let by_cgroup = by_cgroup || known.any(is_host_key);
        self.about
            .set(0, layout::about(own_cgroup, features, by_cgroup), 0)
            .map_err(failed(layout::ABOUT, "writing"))
    }
}

/// Keys of the pods that the maps in `folder` know; none if there is no such map.
pub(crate) fn pods_in(folder: &Path) -> Result<Vec<u64>, RedirectError> {
    if !folder.join(layout::PODS.name).exists() {
        return Ok(Vec::new());
    }
    let pods: HashMap<MapData, u64, Pod> = typed(folder, layout::PODS)?;
    let keys = pods.keys().collect::<Result<_, _>>();
    keys.map_err(failed(layout::PODS, "reading that of an earlier version"))
}

/// How many services the maps in `folder` flag.
pub(crate) fn flagged_in(folder: &Path) -> Result<usize, RedirectError> {
    if !folder.join(layout::SERVICES.name).exists() {
        return Ok(0);
    }
    let services: HashMap<MapData, Endpoint, Service> = typed(folder, layout::SERVICES)?;
    let keys = services.keys().collect::<Result<Vec<_>, _>>();
    let keys = keys.map_err(failed(
        layout::SERVICES,
        "reading that of an earlier version",
    ))?;
    Ok(keys.len())
}

fn typed<T: TryFrom<Map, Error = MapError>>(folder: &Path, map: Shape) -> Result<T, RedirectError> {
    Map::from_map_data(pinned(folder, map)?.0)
        .and_then(T::try_from)
        .map_err(failed(map, "opening"))
}

/// A pinned map, and how many entries it has room for: that is for whoever attaches to choose.
fn pinned(folder: &Path, map: Shape) -> Result<(MapData, u32), RedirectError> {
    let path = folder.join(map.name);
    let open = MapData::from_pin(&path).and_then(|opened| {
        let info = opened.info()?;
        Ok((opened, info))
    });
    let (opened, info) = open.map_err(failed(map, "opening its pin"))?;
    let found = (info.key_size(), info.value_size());
    let ours = (map.key_size, map.value_size);
    if found != ours {
        return Err(RedirectError::Layout {
            path,
            detail: format!("sizes of key and value are {found:?} and not {ours:?}"),
        });
    }
    Ok((opened, info.max_entries()))
}
