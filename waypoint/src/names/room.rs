//! Room for the names that requests ask for. Clients choose them, and can make up as many as they like:
//! those that have no address, or none yet, take no place of those that have one. Looks nothing up.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::state::Entry;
use crate::limits::{DNS_ABSENT_NAMES_MAX, DNS_FIRST_LOOKUPS_MAX, DNS_REQUESTED_NAMES_MAX};

/// What is known of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing yet.
    Asked,
    /// It has addresses.
    Known,
    /// It has none.
    Absent,
}

impl State {
    pub fn of(entry: &Entry) -> Self {
        match &*entry.answer.borrow() {
            None => Self::Asked,
            Some(answer) if answer.addresses.is_empty() => Self::Absent,
            Some(_) => Self::Known,
        }
    }

    /// For metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Asked => "refused",
            Self::Known => "known",
            Self::Absent => "absent",
        }
    }

    fn most(self) -> usize {
        match self {
            Self::Asked => DNS_FIRST_LOOKUPS_MAX,
            Self::Known => DNS_REQUESTED_NAMES_MAX,
            Self::Absent => DNS_ABSENT_NAMES_MAX,
        }
    }
}

/// What has to go before one more name is looked up: those beyond the limits that were not asked for for
/// longest.
///
/// # Errors
/// When it can not be looked up, for too many are.
pub(super) fn make<'n>(
    names: impl Iterator<Item = (&'n Arc<str>, &'n Arc<Entry>)>,
) -> Result<Vec<(Arc<str>, State)>, ()> {
    let (mut asked, mut known, mut absent) = (0, Vec::new(), Vec::new());
    for (name, entry) in names {
        let used_ms = entry.used_ms.load(Ordering::Relaxed);
        match State::of(entry) {
            State::Asked => asked += 1,
            State::Known => known.push((used_ms, name)),
            State::Absent => absent.push((used_ms, name)),
        }
    }
    if asked >= State::Asked.most() {
        return Err(());
    }
    let mut gone = Vec::new();
    for (state, mut of_state) in [(State::Known, known), (State::Absent, absent)] {
        let beyond = (of_state.len() + 1).saturating_sub(state.most());
        if beyond > 0 {
            of_state.sort_unstable();
            let oldest = of_state.into_iter().take(beyond);
            gone.extend(oldest.map(|(_, name)| (name.clone(), state)));
        }
    }
    Ok(gone)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::atomic::AtomicU64;
    use std::time::Instant;

    use tokio::sync::watch;

    use super::*;
    use crate::names::Answer;

    type Names = Vec<(Arc<str>, Arc<Entry>)>;

    fn add(names: &mut Names, of: &str, count: usize, addresses: Option<&[IpAddr]>) {
        for n in 0..count {
            let answer = addresses.map(|addresses| {
                Arc::new(Answer {
                    addresses: addresses.to_vec(),
                    reason: None,
                    answered: Instant::now(),
                })
            });
            let entry = Entry {
                answer: watch::Sender::new(answer),
                used_ms: AtomicU64::new(n as u64),
            };
            names.push((format!("{of}{n}").into(), Arc::new(entry)));
        }
    }

    fn make(names: &Names) -> Result<Vec<String>, ()> {
        let gone = super::make(names.iter().map(|(name, entry)| (name, entry)))?;
        Ok(gone.into_iter().map(|(name, _)| name.to_string()).collect())
    }

    const ADDRESS: [IpAddr; 1] = [IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1))];

    #[test]
    fn inventions_crowd_out_inventions_alone() {
        let mut names = Names::new();
        add(&mut names, "known", 10, Some(&ADDRESS));
        add(&mut names, "made-up", DNS_ABSENT_NAMES_MAX + 1, Some(&[]));
        // Used at 0 and 1, long before the others.
        assert_eq!(make(&names).unwrap(), ["made-up0", "made-up1"]);
    }

    #[test]
    fn of_names_that_exist_the_oldest_goes() {
        let mut names = Names::new();
        add(
            &mut names,
            "known",
            DNS_REQUESTED_NAMES_MAX - 1,
            Some(&ADDRESS),
        );
        assert!(make(&names).unwrap().is_empty());
        add(&mut names, "newer", 1, Some(&ADDRESS));
        names[0].1.used_ms.store(1_000_000, Ordering::Relaxed);
        assert_eq!(make(&names).unwrap(), ["newer0"]);
    }

    #[test]
    fn what_is_looked_up_for_the_first_time_waits_for_its_answer() {
        let mut names = Names::new();
        add(&mut names, "asked", DNS_FIRST_LOOKUPS_MAX - 1, None);
        assert!(make(&names).unwrap().is_empty());
        add(&mut names, "one-more", 1, None);
        assert_eq!(make(&names), Err(()));
    }
}
