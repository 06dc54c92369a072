//! Whether the waypoint should be given traffic, and why not. Who decides that is elsewhere.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};

/// A reason for not being ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotReady {
    /// No snapshot was published yet.
    NoConfiguration,
    /// The snapshot has no Gateway for this waypoint.
    NoGateway,
    /// There was no certificate yet.
    NoIdentity,
    /// The certificate has expired and there is no new one.
    IdentityExpired,
    /// The tunnel port is not open yet.
    NotListening,
    /// It is shutting down.
    Draining,
    /// Not everything that the API server has is known yet; [`Readiness::told`] says what is missing.
    NotSynced,
    /// istiod has told nothing of workloads yet; [`Readiness::told`] says why.
    NotDiscovered,
    /// It is the agent of a node, and the pods there are not steered yet.
    NotSteering,
}

impl NotReady {
    const ALL: [Self; 9] = [
        Self::NoConfiguration,
        Self::NoGateway,
        Self::NoIdentity,
        Self::IdentityExpired,
        Self::NotListening,
        Self::Draining,
        Self::NotSynced,
        Self::NotDiscovered,
        Self::NotSteering,
    ];

    fn bit(self) -> u16 {
        1 << (self as u8)
    }
}

impl fmt::Display for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoConfiguration => "no configuration yet",
            Self::NoGateway => "the configuration has no Gateway for this waypoint",
            Self::NoIdentity => "no certificate yet",
            Self::IdentityExpired => "the certificate has expired",
            Self::NotListening => "the tunnel port is not open yet",
            Self::Draining => "draining",
            Self::NotSynced => "not everything that the API server has is known yet",
            Self::NotDiscovered => "istiod has not told of workloads yet",
            Self::NotSteering => "this node's pods are not steered yet",
        })
    }
}

/// Readiness, shared by those who know a part of it and those who are asked.
pub struct Readiness {
    bits: AtomicU16,
    missing: OnceLock<Missing>,
    undiscovered: OnceLock<Missing>,
}

/// Says what is not known yet, one thing a line.
type Missing = Box<dyn Fn() -> Vec<String> + Send + Sync>;

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Readiness").field(&self.reasons()).finish()
    }
}

impl Default for Readiness {
    /// Not ready for every reason of a process that has just started and that needs no API server.
    fn default() -> Self {
        let later = [
            NotReady::IdentityExpired,
            NotReady::Draining,
            NotReady::NotSynced,
            NotReady::NotDiscovered,
            NotReady::NotSteering,
        ];
        let at_start = NotReady::ALL.into_iter().filter(|r| !later.contains(r));
        Self {
            bits: AtomicU16::new(at_start.fold(0, |bits, r| bits | r.bit())),
            missing: OnceLock::new(),
            undiscovered: OnceLock::new(),
        }
    }
}

impl Readiness {
    /// The reason holds.
    pub fn add(&self, reason: NotReady) {
        self.bits.fetch_or(reason.bit(), Ordering::AcqRel);
    }

    /// The reason no longer holds.
    pub fn remove(&self, reason: NotReady) {
        self.bits.fetch_and(!reason.bit(), Ordering::AcqRel);
    }

    /// The reason holds, or does not.
    pub fn set(&self, reason: NotReady, holds: bool) {
        if holds {
            self.add(reason);
        } else {
            self.remove(reason);
        }
    }

    /// All reasons that hold; empty: ready.
    pub fn reasons(&self) -> Vec<NotReady> {
        let bits = self.bits.load(Ordering::Acquire);
        let holds = |r: &NotReady| bits & r.bit() != 0;
        NotReady::ALL.into_iter().filter(holds).collect()
    }

    /// Has what is missing while [`NotReady::NotSynced`] holds told by this; the first one counts.
    pub fn tell_missing(&self, missing: impl Fn() -> Vec<String> + Send + Sync + 'static) {
        // Set already: there is one source of objects in a process.
        let _ = self.missing.set(Box::new(missing));
    }

    /// Has what is missing while [`NotReady::NotDiscovered`] holds told by this; the first one counts.
    pub fn tell_undiscovered(&self, missing: impl Fn() -> Vec<String> + Send + Sync + 'static) {
        // Set already: a process asks one istiod.
        let _ = self.undiscovered.set(Box::new(missing));
    }

    fn missing(&self, reason: NotReady) -> Option<&Missing> {
        match reason {
            NotReady::NotSynced => self.missing.get(),
            NotReady::NotDiscovered => self.undiscovered.get(),
            _ => None,
        }
    }

    /// All reasons in words.
    pub fn told(&self) -> Vec<String> {
        let in_words = |reason: NotReady| match self.missing(reason) {
            Some(missing) => {
                let missing = missing();
                let list = missing.iter().map(|one| format!("{reason}: {one}"));
                match missing.is_empty() {
                    true => vec![reason.to_string()],
                    false => list.collect(),
                }
            }
            None => vec![reason.to_string()],
        };
        self.reasons().into_iter().flat_map(in_words).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_ready_once_every_reason_is_gone_and_not_while_draining() {
        let readiness = Readiness::default();
        assert_eq!(
            readiness.reasons(),
            [
                NotReady::NoConfiguration,
                NotReady::NoGateway,
                NotReady::NoIdentity,
                NotReady::NotListening
            ]
        );
        readiness.remove(NotReady::NoConfiguration);
        readiness.set(NotReady::NoGateway, false);
        readiness.remove(NotReady::NoIdentity);
        assert_eq!(readiness.reasons(), [NotReady::NotListening]);
        readiness.remove(NotReady::NotListening);
        assert_eq!(readiness.reasons(), []);
        readiness.add(NotReady::Draining);
        assert_eq!(readiness.reasons(), [NotReady::Draining]);
        readiness.set(NotReady::NoGateway, true);
        assert_eq!(
            readiness.reasons(),
            [NotReady::NoGateway, NotReady::Draining]
        );
    }

    #[test]
    fn what_the_api_server_did_not_give_is_told_kind_by_kind() {
        let readiness = Readiness::default();
        for reason in readiness.reasons() {
            readiness.remove(reason);
        }
        readiness.add(NotReady::NotSynced);
        assert_eq!(
            readiness.told(),
            ["not everything that the API server has is known yet"]
        );
        readiness.tell_missing(|| vec!["Pod: pods is forbidden".to_owned()]);
        assert_eq!(
            readiness.told(),
            ["not everything that the API server has is known yet: Pod: pods is forbidden"]
        );
        readiness.remove(NotReady::NotSynced);
        assert_eq!(readiness.told(), [""; 0]);
        readiness.tell_undiscovered(|| vec!["istiod:15012 can not be reached".to_owned()]);
        readiness.add(NotReady::NotDiscovered);
        assert_eq!(
            readiness.told(),
            ["istiod has not told of workloads yet: istiod:15012 can not be reached"]
        );
    }
}
