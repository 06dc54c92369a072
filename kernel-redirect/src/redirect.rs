//! The redirect in force: which services and pods the kernel knows. Loading, inspecting and the
//! bytes in the maps are elsewhere.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

use crate::changes::{Services, changes};
use crate::kernel::PinnedLink;
use crate::layout::{self, LAYOUT};
use crate::maps::{Maps, failed, gone_is_fine};
use crate::{
    Counters, Detached, EnrolledPod, FlaggedService, LeftOut, LeftOutReason, Place, RedirectError,
    ServicesReport, Sizes, Status, host, inspect, is_host_key, listener, load, place, stranger,
};

/// The redirect, attached. Dropping it leaves everything attached and pinned: connections are then
/// steered to listeners as long as those are there, and refused or let go direct after.
#[derive(Debug)]
pub struct Redirect {
    place: Place,
    maps: Maps,
    services: Services,
    /// What each slot in the kernel stands for; more than `services` have, because running
    /// connections of services that are no longer flagged still ask for their peer's name.
    slots: BTreeMap<u32, (IpAddr, u16)>,
}

impl Redirect {
    /// Loads the program and attaches it to the pods' cgroup, or takes over what an earlier process
    /// left pinned: its services and pods stay in force, its program is replaced in place. Processes
    /// in the cgroup `own_cgroup` (not in folders below it) are never steered: it is the waypoint's.
    /// Call it once for each process: the cgroup's id changes when a container is started again.
    ///
    /// # Errors
    /// Every one of [`RedirectError`]; nothing stays half attached.
    pub fn attach(place: &Place, own_cgroup: &Path) -> Result<Self, RedirectError> {
        Self::attach_sized(place, own_cgroup, Sizes::default())
    }

    /// As [`attach`](Self::attach), with maps of these sizes. What is pinned with others is set aside
    /// as another layout is: it stays attached until
    /// [`retire_other_layouts`](Self::retire_other_layouts), and its pods are known here from the
    /// start, with nobody listening until they are enrolled anew.
    ///
    /// # Errors
    /// As [`attach`](Self::attach); [`RedirectError::TooSmall`] if there would not be room for what is
    /// known from before.
    pub fn attach_sized(
        place: &Place,
        own_cgroup: &Path,
        sizes: Sizes,
    ) -> Result<Self, RedirectError> {
        place::may_attach()?;
        let own = place::cgroup_id(own_cgroup)?;
        place::cgroup_id(&place.cgroup)?;
        stranger::none_on_the_cgroup(place)?;
        let maps = load::attach(&layout_folder(place), &place.cgroup, own, sizes)?;
        Ok(Self {
            services: maps.flagged()?,
            slots: maps.slot_addresses()?,
            place: place.clone(),
            maps,
        })
    }

    /// Makes the flagged services exactly `wanted`, changing only what differs. Services that have
    /// no room or can not be steered are told in the report and go direct; of others that collide
    /// the first is taken.
    ///
    /// # Errors
    /// If the kernel refuses a change for another reason than a full map; what was changed so far
    /// stays, and the next call goes on from there.
    pub fn set_services(
        &mut self,
        wanted: &[FlaggedService],
    ) -> Result<ServicesReport, RedirectError> {
        let changes = changes(&self.services, wanted);
        let mut report = ServicesReport {
            left_out: changes.left_out,
            ..ServicesReport::default()
        };
        for service in &changes.remove {
            self.unflag(service)?;
            report.removed += 1;
        }
        for service in changes.put {
            let known = self.services.contains_key(&service.key());
            match self.flag(&service) {
                Ok(()) if known => report.changed += 1,
                Ok(()) => report.added += 1,
                Err(RedirectError::Full { .. }) => report.left_out.push(LeftOut {
                    service,
                    reason: LeftOutReason::MapFull,
                }),
                Err(error) => return Err(error),
            }
        }
        report.flagged = self.services.len();
        Ok(report)
    }

    /// The slot first: whoever is steered can be told its peer's name.
    fn flag(&mut self, service: &FlaggedService) -> Result<(), RedirectError> {
        let named = self.name_slot(service);
        if matches!(named, Err(RedirectError::Full { .. })) {
            self.forget_old_slots()?;
            self.name_slot(service)?;
        } else {
            named?;
        }
        let (address, port) = service.key();
        self.maps
            .services
            .insert(layout::endpoint(address, port), layout::service(service), 0)
            .map_err(failed(
                self.maps.sizes.of(layout::SERVICES),
                "adding a service",
            ))?;
        self.services.insert(service.key(), *service);
        Ok(())
    }

    fn unflag(&mut self, service: &FlaggedService) -> Result<(), RedirectError> {
        let (address, port) = service.key();
        gone_is_fine(self.maps.services.remove(&layout::endpoint(address, port))).map_err(
            failed(self.maps.sizes.of(layout::SERVICES), "removing a service"),
        )?;
        self.services.remove(&service.key());
        Ok(())
    }

    fn name_slot(&mut self, service: &FlaggedService) -> Result<(), RedirectError> {
        let (address, port) = service.key();
        if self.slots.get(&service.slot) == Some(&(address, port)) {
            return Ok(());
        }
        self.maps
            .slots
            .insert(service.slot, layout::endpoint(address, port), 0)
            .map_err(failed(self.maps.sizes.of(layout::SLOTS), "naming a slot"))?;
        self.slots.insert(service.slot, (address, port));
        Ok(())
    }

    /// Drops the slots that no flagged service has.
    fn forget_old_slots(&mut self) -> Result<(), RedirectError> {
        let used: std::collections::BTreeSet<_> = self.services.values().map(|s| s.slot).collect();
        let old: Vec<_> = self
            .slots
            .keys()
            .filter(|slot| !used.contains(slot))
            .copied()
            .collect();
        for slot in old {
            gone_is_fine(self.maps.slots.remove(&slot)).map_err(failed(
                self.maps.sizes.of(layout::SLOTS),
                "forgetting a slot",
            ))?;
            self.slots.remove(&slot);
        }
        Ok(())
    }

    /// What each slot in the kernel stands for, also for services that are no longer flagged: with
    /// it a process that takes over knows what connections that are on their way were meant for.
    pub fn slots(&self) -> impl Iterator<Item = (u32, SocketAddr)> + '_ {
        self.slots
            .iter()
            .map(|(slot, (address, port))| (*slot, SocketAddr::new(*address, *port)))
    }

    /// Steers the connections of a pod to `listener`, a TCP socket that listens in the pod's network
    /// namespace on the unspecified address, bound to device `lo`; or in the host's namespace, bound to
    /// the host's end of the pod's link and transparent. Also brings a suspended pod back,
    /// and gives a pod a new listener. The kernel notices by itself when the last descriptor of the
    /// socket closes, and lets each service's failure mode apply.
    ///
    /// # Errors
    /// [`RedirectError::Listener`] if it is not such a socket, [`RedirectError::Full`] with too many
    /// pods; the pod is then not enrolled, or still as it was.
    pub fn enrol(
        &mut self,
        pod: &EnrolledPod,
        listener: BorrowedFd<'_>,
    ) -> Result<(), RedirectError> {
        let unusable = |why| RedirectError::Listener {
            netns_cookie: pod.netns_cookie,
            why,
        };
        if is_host_key(pod.netns_cookie) {
            host::check(pod, listener).map_err(unusable)?;
            return self.enrol_in_host(pod, listener);
        }
        listener::check(pod, listener).map_err(unusable)?;
        self.insert(pod, listener)
    }

    fn enrol_in_host(
        &mut self,
        pod: &EnrolledPod,
        listener: BorrowedFd<'_>,
    ) -> Result<(), RedirectError> {
        let (own_cgroup, features) = self.maps.about()?;
        self.maps.set_about(own_cgroup, features, true)?;
        self.insert(pod, listener)
    }

    fn insert(&mut self, pod: &EnrolledPod, listener: BorrowedFd<'_>) -> Result<(), RedirectError> {
        self.maps
            .listeners
            .insert(pod.netns_cookie, listener.as_raw_fd(), 0)
            .map_err(failed(
                self.maps.sizes.of(layout::LISTENERS),
                "adding a listener",
            ))?;
        self.maps
            .pods
            .insert(pod.netns_cookie, layout::pod(pod), 0)
            .map_err(failed(self.maps.sizes.of(layout::PODS), "adding a pod"))
    }

    /// Takes a pod's listener away and keeps the pod enrolled: its connections to flagged services
    /// are refused, or go direct where the service fails open, until it is enrolled again. For a
    /// waypoint that hangs.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn suspend(&mut self, netns_cookie: u64) -> Result<(), RedirectError> {
        gone_is_fine(self.maps.listeners.remove(&netns_cookie)).map_err(failed(
            self.maps.sizes.of(layout::LISTENERS),
            "removing a listener",
        ))
    }

    /// Takes the listeners of all pods away, as [`suspend`](Self::suspend) does, by the pins alone:
    /// for a guard beside a waypoint that stands still. Returns how many there were.
    ///
    /// # Errors
    /// If the kernel refuses, or nothing is attached.
    pub fn suspend_all(place: &Place) -> Result<usize, RedirectError> {
        let mut maps = Maps::open(&layout_folder(place))?;
        let pods = maps.enrolled()?;
        let listening = pods.iter().filter(|pod| pod.listening);
        let mut suspended = 0;
        for pod in listening {
            gone_is_fine(maps.listeners.remove(&pod.netns_cookie))
                .map_err(failed(layout::LISTENERS, "removing a listener"))?;
            suspended += 1;
        }
        Ok(suspended)
    }

    /// Forgets a pod: its connections go direct. For pods that are gone or leave the mesh.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn withdraw(&mut self, netns_cookie: u64) -> Result<(), RedirectError> {
        gone_is_fine(self.maps.pods.remove(&netns_cookie))
            .map_err(failed(self.maps.sizes.of(layout::PODS), "removing a pod"))?;
        self.suspend(netns_cookie)
    }

    /// Detaches and removes what versions of Cairn with another layout left, or what has maps of
    /// other sizes: to be called once services and pods are in place. Until then both are attached,
    /// and the older refuses what it has no listener for. Returns how many layouts there were.
    ///
    /// # Errors
    /// If pins can not be removed; what is there still stays attached.
    pub fn retire_other_layouts(&mut self) -> Result<usize, RedirectError> {
        let others = inspect::other_layouts(&self.place.bpffs)?;
        for name in &others {
            remove_layout(&self.place.bpffs.join(name))?;
        }
        Ok(others.len())
    }

    /// What the maps have room for.
    #[must_use]
    pub fn sizes(&self) -> Sizes {
        self.maps.sizes
    }

    /// Cookies of the network namespaces of all pods that are enrolled.
    ///
    /// # Errors
    /// If the map can not be read.
    pub fn pods(&self) -> Result<Vec<u64>, RedirectError> {
        let pods = self.maps.enrolled()?;
        Ok(pods.iter().map(|pod| pod.netns_cookie).collect())
    }

    /// Flagged services.
    pub fn services(&self) -> impl Iterator<Item = &FlaggedService> {
        self.services.values()
    }

    /// What happened to connections to flagged services since the maps were made.
    ///
    /// # Errors
    /// If the map can not be read.
    pub fn counters(&self) -> Result<Counters, RedirectError> {
        self.maps.counters()
    }

    /// The state of the redirect.
    ///
    /// # Errors
    /// If a map or pin can not be read.
    pub fn status(&self) -> Result<Status, RedirectError> {
        inspect::status(&self.place, &layout_folder(&self.place), &self.maps)
    }

    /// The state of what is pinned, without taking it over; `None` if nothing is.
    ///
    /// # Errors
    /// If a map or pin can not be read, or is not of this version.
    pub fn inspect(place: &Place) -> Result<Option<Status>, RedirectError> {
        let folder = layout_folder(place);
        if !folder.is_dir() {
            return Ok(None);
        }
        inspect::status(place, &folder, &Maps::open(&folder)?).map(Some)
    }

    /// Detaches the programs and removes all pins, of every layout. New connections go direct. Those
    /// that are steered already go on, save those to slots in the host's namespace, which are not
    /// routed there any more.
    ///
    /// # Errors
    /// If pins can not be removed.
    pub fn detach(place: &Place) -> Result<Detached, RedirectError> {
        let mut all = Detached::default();
        if !place.bpffs.is_dir() {
            return Ok(all);
        }
        let mut folders = inspect::other_layouts(&place.bpffs)?;
        folders.push(layout_name());
        for name in folders {
            let one = remove_layout(&place.bpffs.join(name))?;
            all.programs += one.programs;
            all.maps += one.maps;
        }
        // Once nobody is steered there. Of the namespace we are in, which is the host's if there ever
        // was such a route.
        host::unroute_slots().map_err(|source| RedirectError::HostRoute { source })?;
        fs::remove_dir(&place.bpffs)
            .map_err(load::pin_failed(&place.bpffs, "removing the folder"))?;
        Ok(all)
    }
}

fn layout_name() -> String {
    format!("v{LAYOUT}")
}

fn layout_folder(place: &Place) -> PathBuf {
    place.bpffs.join(layout_name())
}

/// Links first: without its maps no program must run.
fn remove_layout(folder: &Path) -> Result<Detached, RedirectError> {
    let mut removed = Detached::default();
    if !folder.is_dir() {
        return Ok(removed);
    }
    let name = |pin: &Path| {
        pin.file_name()
            .map(|name| name.to_string_lossy().into_owned())
    };
    let (mut links, maps): (Vec<_>, Vec<_>) = load::pins(folder)?
        .into_iter()
        .partition(|pin| name(pin).is_some_and(|name| name.ends_with("_link")));
    // Against the order in which they were attached: whoever is steered finds its peer's name hidden.
    let attached = |pin: &PathBuf| {
        let is = |program: &&str| name(pin) == Some(load::link_name(program));
        layout::PROGRAMS.iter().position(is)
    };
    links.sort_by_key(|pin| std::cmp::Reverse(attached(pin)));
    removed.programs = links.len();
    removed.maps = maps.len();
    for link in &links {
        PinnedLink::open(link)
            .and_then(|opened| opened.detach())
            .map_err(load::pin_failed(link, "detaching"))?;
    }
    for pin in links.iter().chain(&maps) {
        fs::remove_file(pin).map_err(load::pin_failed(pin, "removing"))?;
    }
    fs::remove_dir(folder).map_err(load::pin_failed(folder, "removing the folder"))?;
    Ok(removed)
}
