//! Candidates around a lease in memory, with paused time.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

/// A lease in memory, that can be out of reach.
#[derive(Default)]
struct Memory {
    lease: Mutex<Option<Lease>>,
    away: AtomicBool,
}

impl Memory {
    fn holder(&self) -> String {
        let lease = self.lease.lock().unwrap();
        lease.as_ref().map(|l| l.holder.clone()).unwrap_or_default()
    }

    fn transitions(&self) -> u64 {
        self.lease.lock().unwrap().as_ref().unwrap().transitions
    }

    fn check(&self) -> Result<(), Failure> {
        let failure = Failure {
            code: 0,
            message: "gone".to_owned(),
        };
        match self.away.load(Ordering::Relaxed) {
            true => Err(failure),
            false => Ok(()),
        }
    }
}

impl Store for Arc<Memory> {
    async fn read(&self) -> Result<Option<Lease>, Failure> {
        self.check()?;
        Ok(self.lease.lock().unwrap().clone())
    }

    async fn write(&self, lease: &Lease, over: Option<&Lease>) -> Result<(), Failure> {
        self.check()?;
        let mut there = self.lease.lock().unwrap();
        if there.as_ref().map(|l| &l.version) != over.map(|l| &l.version) {
            return Err(Failure {
                code: 409,
                message: "changed".to_owned(),
            });
        }
        let version = over.map_or(0, |over| over.version.parse::<u64>().unwrap()) + 1;
        *there = Some(Lease {
            version: version.to_string(),
            renewed: version.to_string(),
            ..lease.clone()
        });
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_one_leads_and_the_other_does_when_it_has_gone_silent() {
    let memory = Arc::new(Memory::default());
    let (mut a, mut b) = (Candidate::new("a"), Candidate::new("b"));
    acquire(&memory, &mut a).await;
    assert_eq!(memory.holder(), "a");
    // `a` is killed: it renews nothing, and `b` waits for the end of the lease.
    let began = Instant::now();
    acquire(&memory, &mut b).await;
    let waited = began.elapsed();
    assert_eq!((memory.holder().as_str(), memory.transitions()), ("b", 1));
    assert!(
        waited >= LEASE_DURATION && waited < LEASE_DURATION + 2 * RETRY,
        "{waited:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn while_one_renews_no_other_gets_it() {
    let memory = Arc::new(Memory::default());
    let mut a = Candidate::new("a");
    acquire(&memory, &mut a).await;
    let others = memory.clone();
    let other = tokio::spawn(async move { acquire(&others, &mut Candidate::new("b")).await });
    let kept = timeout(Duration::from_secs(300), keep(&memory, &mut a)).await;
    assert!(kept.is_err(), "lost: {kept:?}");
    assert!(!other.is_finished());
    assert_eq!(memory.holder(), "a");
}

#[tokio::test(start_paused = true)]
async fn who_can_not_renew_stops_before_another_one_may_begin() {
    let memory = Arc::new(Memory::default());
    let mut a = Candidate::new("a");
    acquire(&memory, &mut a).await;
    memory.away.store(true, Ordering::Relaxed);
    let began = Instant::now();
    let why = keep(&memory, &mut a).await;
    assert!(why.contains("renewed"), "{why}");
    assert!(began.elapsed() < LEASE_DURATION, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn who_sees_anothers_name_stops_at_once() {
    let memory = Arc::new(Memory::default());
    let mut a = Candidate::new("a");
    acquire(&memory, &mut a).await;
    let mut stolen = memory.lease.lock().unwrap().clone().unwrap();
    (stolen.holder, stolen.version) = ("b".to_owned(), "9".to_owned());
    *memory.lease.lock().unwrap() = Some(stolen);
    let began = Instant::now();
    assert_eq!(
        keep(&memory, &mut a).await,
        "another controller has the lease"
    );
    assert!(began.elapsed() <= RETRY);
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_given_back_is_taken_at_the_next_look() {
    let memory = Arc::new(Memory::default());
    let (mut a, mut b) = (Candidate::new("a"), Candidate::new("b"));
    acquire(&memory, &mut a).await;
    release(&memory, &a).await;
    let began = Instant::now();
    acquire(&memory, &mut b).await;
    assert!(began.elapsed() <= RETRY, "{:?}", began.elapsed());
    // Who has it no longer gives nothing back.
    release(&memory, &a).await;
    assert_eq!(memory.holder(), "b");
}

#[test]
fn an_object_says_what_was_read_from_it() {
    let lease = Lease {
        holder: "a".to_owned(),
        duration_s: 15,
        acquired: "2026-11-22T00:00:00.000000Z".to_owned(),
        transitions: 3,
        ..Lease::default()
    };
    let over = Lease {
        version: "7".to_owned(),
        ..Lease::default()
    };
    let now = "2026-11-22T04:00:00Z".parse().unwrap();
    let object = lease.object("mesh", "l", Some(&over), now);
    assert_eq!(object["spec"]["renewTime"], "2026-11-22T04:00:00.000000Z");
    let read = Lease::read(&object);
    assert_eq!((&*read.version, &*read.acquired), ("7", &*lease.acquired));
    assert_eq!((&*read.holder, read.transitions), ("a", 3));
}
