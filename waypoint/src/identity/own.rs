//! The identity in force, if there is one yet, and what readiness, metrics and log are told of it. Gets none
//! by itself.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

use crate::admin::{NotReady, Readiness};
use crate::telemetry::counters;
use crate::tls::{IdentitySource, LocalIdentity};

/// What an attempt to get an identity came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It was had.
    Success,
    /// Files can not be loaded.
    Files,
    /// The pod's token can not be used, or is not accepted.
    Token,
    /// The roots can not be used.
    Roots,
    /// The issuer can not be reached.
    Connect,
    /// The issuer is not who it should be.
    Tls,
    /// The issuer refuses.
    Refused,
    /// What the issuer handed out must not be used.
    Answer,
}

impl Outcome {
    const ALL: [Self; 8] = [
        Self::Success,
        Self::Files,
        Self::Token,
        Self::Roots,
        Self::Connect,
        Self::Tls,
        Self::Refused,
        Self::Answer,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Files => "files",
            Self::Token => "token",
            Self::Roots => "roots",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Refused => "refused",
            Self::Answer => "answer",
        }
    }
}

/// How it stands with the identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// There is none yet.
    Waiting,
    /// There is one, and the last attempt to get one went well.
    Valid,
    /// There is one, and the last attempt to get another one failed.
    Failing,
    /// It has expired.
    Expired,
}

impl State {
    const ALL: [Self; 4] = [Self::Waiting, Self::Valid, Self::Failing, Self::Expired];

    fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Valid => "valid",
            Self::Failing => "failing",
            Self::Expired => "expired",
        }
    }

    fn of(not_after: Option<SystemTime>, failing: bool, now: SystemTime) -> Self {
        match not_after {
            None => Self::Waiting,
            Some(end) if end <= now => Self::Expired,
            Some(_) if failing => Self::Failing,
            Some(_) => Self::Valid,
        }
    }
}

/// The identity in force, if there is one yet.
pub(super) struct OwnIdentity {
    in_force: OnceLock<Arc<IdentitySource>>,
    is_there: watch::Sender<bool>,
    failing: AtomicBool,
    readiness: Arc<Readiness>,
}

impl OwnIdentity {
    pub fn new(readiness: Arc<Readiness>) -> Self {
        counters::IDENTITY_ATTEMPTS.preset(Outcome::ALL.map(Outcome::as_str));
        Self {
            in_force: OnceLock::new(),
            is_there: watch::Sender::new(false),
            failing: AtomicBool::new(false),
            readiness,
        }
    }

    /// What is in force, for those who use it.
    pub fn in_force(&self) -> Option<Arc<IdentitySource>> {
        self.in_force.get().cloned()
    }

    /// Waits for the first one.
    pub async fn first(&self) {
        // The sender is in `self`, so that this does not fail.
        let _ = self.is_there.subscribe().wait_for(|there| *there).await;
    }

    /// An attempt went well.
    pub fn take(&self, identity: LocalIdentity) {
        self.count(Outcome::Success);
        self.install(identity);
    }

    /// Puts an identity in force for connections to come, if it is not in force already.
    pub fn install(&self, identity: LocalIdentity) {
        let name = identity.identity.clone();
        let expires = not_after(&identity);
        let changed = match self.in_force.get() {
            Some(source) => source.install(identity),
            None => {
                let first = Arc::new(IdentitySource::new(identity));
                self.in_force.set(first).is_ok()
            }
        };
        if changed {
            counters::certificate_expires(expires);
            let epoch = self.in_force.get().map_or(0, |s| s.borrow().epoch);
            let valid_s = expires.duration_since(SystemTime::now());
            let valid_s = valid_s.unwrap_or_default().as_secs();
            tracing::info!(epoch, identity = %name, valid_s, "certificate or roots changed, in force for new connections");
        }
        self.look(SystemTime::now());
        self.is_there.send_replace(true);
    }

    /// An attempt failed. What is in force stays.
    pub fn failed(&self, outcome: Outcome, error: &dyn fmt::Display, retry: Duration) {
        self.count(outcome);
        let retry_ms = retry.as_millis() as u64;
        match self.in_force.get().is_some() {
            true => {
                tracing::error!(%error, retry_ms, "no new certificate, the last one stays in force");
            }
            false => tracing::error!(%error, retry_ms, "no certificate yet, nothing is served"),
        }
        self.look(SystemTime::now());
    }

    /// Counts an attempt; whether it failed shows in the state.
    pub fn count(&self, outcome: Outcome) {
        counters::IDENTITY_ATTEMPTS.inc(outcome.as_str());
        self.failing.store(outcome != Outcome::Success, Relaxed);
    }

    /// Whether the last attempt failed.
    pub fn is_failing(&self) -> bool {
        self.failing.load(Relaxed)
    }

    /// What failed was no attempt, and is over: it stands as it stood before.
    pub fn restore(&self, failing: bool) {
        self.failing.store(failing, Relaxed);
    }

    /// Tells readiness and metrics how it stands.
    pub fn look(&self, now: SystemTime) {
        let expires = self.in_force.get().map(|s| not_after(&s.borrow()));
        let state = State::of(expires, self.failing.load(Relaxed), now);
        for each in State::ALL {
            counters::IDENTITY_STATE.set(each.as_str(), u64::from(each == state));
        }
        let ready = &self.readiness;
        ready.set(NotReady::NoIdentity, state == State::Waiting);
        ready.set(NotReady::IdentityExpired, state == State::Expired);
    }
}

fn not_after(identity: &LocalIdentity) -> SystemTime {
    let seconds = u64::try_from(identity.not_after_s).unwrap_or_default();
    UNIX_EPOCH + Duration::from_secs(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_that_expired_is_told_apart_from_one_that_could_not_be_renewed_yet() {
        let at = |s| UNIX_EPOCH + Duration::from_secs(s);
        assert_eq!(State::of(None, true, at(5)), State::Waiting);
        assert_eq!(State::of(Some(at(10)), false, at(5)), State::Valid);
        assert_eq!(State::of(Some(at(10)), true, at(5)), State::Failing);
        assert_eq!(State::of(Some(at(10)), true, at(10)), State::Expired);
        assert_eq!(State::of(Some(at(10)), false, at(11)), State::Expired);
    }

    #[test]
    fn nobody_is_sent_here_before_there_is_an_identity() {
        let readiness = Arc::<Readiness>::default();
        let own = OwnIdentity::new(readiness.clone());
        own.look(SystemTime::now());
        assert!(readiness.reasons().contains(&NotReady::NoIdentity));
        assert!(!readiness.reasons().contains(&NotReady::IdentityExpired));
    }
    /// The file of roots breaks and is whole again while the CA refuses: it refuses still.
    #[test]
    fn what_is_over_leaves_the_state_as_it_was_before() {
        let own = OwnIdentity::new(Arc::default());
        for before in [Outcome::Refused, Outcome::Success] {
            own.count(before);
            let was_failing = own.is_failing();
            own.count(Outcome::Roots);
            assert!(own.is_failing());
            own.restore(was_failing);
            assert_eq!(own.is_failing(), before == Outcome::Refused);
        }
    }
}
