//! Whether the waypoint should be given traffic, and why not. Who decides that is elsewhere.

use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};

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
}

impl NotReady {
    const ALL: [Self; 6] = [
        Self::NoConfiguration,
        Self::NoGateway,
        Self::NoIdentity,
        Self::IdentityExpired,
        Self::NotListening,
        Self::Draining,
    ];

    fn bit(self) -> u8 {
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
        })
    }
}

/// Readiness, shared by those who know a part of it and those who are asked.
#[derive(Debug)]
pub struct Readiness(AtomicU8);

impl Default for Readiness {
    /// Not ready for every reason of a process that has just started.
    fn default() -> Self {
        let later = [NotReady::IdentityExpired, NotReady::Draining];
        let at_start = NotReady::ALL.into_iter().filter(|r| !later.contains(r));
        Self(AtomicU8::new(at_start.fold(0, |bits, r| bits | r.bit())))
    }
}

impl Readiness {
    /// The reason holds.
    pub fn add(&self, reason: NotReady) {
        self.0.fetch_or(reason.bit(), Ordering::AcqRel);
    }

    /// The reason no longer holds.
    pub fn remove(&self, reason: NotReady) {
        self.0.fetch_and(!reason.bit(), Ordering::AcqRel);
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
        let bits = self.0.load(Ordering::Acquire);
        let holds = |r: &NotReady| bits & r.bit() != 0;
        NotReady::ALL.into_iter().filter(holds).collect()
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
}
