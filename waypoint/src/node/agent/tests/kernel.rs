//! A kernel that remembers what it was told, and refuses what it is told to refuse.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex};

use cairn_kernel_redirect::{
    Counters, EnrolledPod, FlaggedService, LeftOut, LeftOutReason, RedirectError, ServicesReport,
    Sizes,
};

use crate::node::Steering;

/// Remembers what it was told.
#[derive(Clone, Default)]
pub struct Kernel(pub Arc<Mutex<State>>);

#[derive(Default)]
pub struct State {
    pub services: Vec<FlaggedService>,
    pub room: Option<usize>,
    pub fails: bool,
    /// Enrolled pods, and whether somebody listens for them.
    pub pods: BTreeMap<u64, bool>,
    pub settled: usize,
    pub pods_max: Option<u32>,
}

impl Steering for Kernel {
    fn services(&self) -> Result<Vec<FlaggedService>, RedirectError> {
        Ok(self.0.lock().unwrap().services.clone())
    }

    fn named_slots(&self) -> Vec<(u32, SocketAddr)> {
        Vec::new()
    }

    fn pods(&self) -> Result<Vec<u64>, RedirectError> {
        Ok(self.0.lock().unwrap().pods.keys().copied().collect())
    }

    fn set_services(&mut self, wanted: &[FlaggedService]) -> Result<ServicesReport, RedirectError> {
        let mut state = self.0.lock().unwrap();
        if state.fails {
            return Err(RedirectError::Pin {
                path: "/nowhere".into(),
                doing: "writing",
                source: std::io::ErrorKind::Other.into(),
            });
        }
        let room = state.room.unwrap_or(usize::MAX);
        state.services = wanted.iter().take(room).copied().collect();
        let left_out = wanted.iter().skip(room).map(|service| LeftOut {
            service: *service,
            reason: LeftOutReason::MapFull,
        });
        Ok(ServicesReport {
            left_out: left_out.collect(),
            ..ServicesReport::default()
        })
    }

    fn enrol(&mut self, pod: &EnrolledPod, _: BorrowedFd<'_>) -> Result<(), RedirectError> {
        let mut state = self.0.lock().unwrap();
        state.pods.insert(pod.netns_cookie, true);
        Ok(())
    }

    fn suspend(&mut self, netns_cookie: u64) -> Result<(), RedirectError> {
        let mut state = self.0.lock().unwrap();
        state.pods.entry(netns_cookie).and_modify(|l| *l = false);
        Ok(())
    }

    fn withdraw(&mut self, netns_cookie: u64) -> Result<(), RedirectError> {
        self.0.lock().unwrap().pods.remove(&netns_cookie);
        Ok(())
    }

    fn settle(&mut self) -> Result<(), RedirectError> {
        self.0.lock().unwrap().settled += 1;
        Ok(())
    }

    fn sizes(&self) -> Sizes {
        let pods_max = self.0.lock().unwrap().pods_max;
        Sizes {
            pods: pods_max.unwrap_or(Sizes::default().pods),
            ..Sizes::default()
        }
    }

    fn fill(&self) -> (usize, usize) {
        let flagged = self.0.lock().unwrap().services.len();
        (flagged, flagged)
    }

    fn counters(&self) -> Result<Counters, RedirectError> {
        Ok(Counters::default())
    }
}
