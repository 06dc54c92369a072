//! The kernel redirect as the agent uses it: a trait, so that the agent can be tested without a
//! kernel. What is steered where is decided in `agent`.

use std::net::SocketAddr;
use std::os::fd::BorrowedFd;

use cairn_kernel_redirect::{
    Counters, EnrolledPod, FlaggedService, Redirect, RedirectError, ServicesReport, Sizes,
};

/// Steers connections.
pub trait Steering {
    /// The services that are flagged now: at the start, those that an earlier process left.
    ///
    /// # Errors
    /// When the kernel's maps can not be read.
    fn services(&self) -> Result<Vec<FlaggedService>, RedirectError>;

    /// What every slot in the kernel stands for, also of services that are no longer flagged.
    fn named_slots(&self) -> Vec<(u32, SocketAddr)>;

    /// Network namespaces whose pods are enrolled now.
    ///
    /// # Errors
    /// When the kernel's maps can not be read.
    fn pods(&self) -> Result<Vec<u64>, RedirectError>;

    /// Flags exactly these services.
    ///
    /// # Errors
    /// When the kernel's maps can not be written.
    fn set_services(&mut self, wanted: &[FlaggedService]) -> Result<ServicesReport, RedirectError>;

    /// Steers a pod's connections to this listener.
    ///
    /// # Errors
    /// When there is no room, or the socket does not listen.
    fn enrol(&mut self, pod: &EnrolledPod, listener: BorrowedFd<'_>) -> Result<(), RedirectError>;

    /// Takes a pod's listener away for the time being: what each service asks for happens instead.
    ///
    /// # Errors
    /// When the kernel's maps can not be written.
    fn suspend(&mut self, netns_cookie: u64) -> Result<(), RedirectError>;

    /// Forgets a pod.
    ///
    /// # Errors
    /// When the kernel's maps can not be written.
    fn withdraw(&mut self, netns_cookie: u64) -> Result<(), RedirectError>;

    /// Everything is in place: what an earlier version left in another layout can go.
    ///
    /// # Errors
    /// When it can not be removed.
    fn settle(&mut self) -> Result<(), RedirectError>;

    /// What there is room for.
    fn sizes(&self) -> Sizes;

    /// How many services are flagged, and how many slots have a name. Read from no map.
    fn fill(&self) -> (usize, usize);

    /// What happened to connections to flagged services.
    ///
    /// # Errors
    /// When the kernel's maps can not be read.
    fn counters(&self) -> Result<Counters, RedirectError>;
}

impl Steering for Redirect {
    fn services(&self) -> Result<Vec<FlaggedService>, RedirectError> {
        Ok(self.services().copied().collect())
    }

    fn named_slots(&self) -> Vec<(u32, SocketAddr)> {
        self.slots().collect()
    }

    fn pods(&self) -> Result<Vec<u64>, RedirectError> {
        self.pods()
    }

    fn set_services(&mut self, wanted: &[FlaggedService]) -> Result<ServicesReport, RedirectError> {
        self.set_services(wanted)
    }

    fn enrol(&mut self, pod: &EnrolledPod, listener: BorrowedFd<'_>) -> Result<(), RedirectError> {
        self.enrol(pod, listener)
    }

    fn suspend(&mut self, netns_cookie: u64) -> Result<(), RedirectError> {
        self.suspend(netns_cookie)
    }

    fn withdraw(&mut self, netns_cookie: u64) -> Result<(), RedirectError> {
        self.withdraw(netns_cookie)
    }

    fn settle(&mut self) -> Result<(), RedirectError> {
        self.retire_other_layouts().map(drop)
    }

    fn sizes(&self) -> Sizes {
        self.sizes()
    }

    fn fill(&self) -> (usize, usize) {
        (self.services().count(), self.slots().count())
    }

    fn counters(&self) -> Result<Counters, RedirectError> {
        self.counters()
    }
}
