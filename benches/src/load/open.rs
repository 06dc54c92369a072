//! The open loop: requests are due at fixed times whatever the answers do, and latency counts
//! from the due time, so that a slow answer can not hide the ones it delayed.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context;
use http::StatusCode;
use tokio::sync::{mpsc, oneshot};

use super::lane::{Lane, Template};
use super::tally::Tally;

/// Lanes that wait for a due time, longest first, and due times that wait for a lane.
#[derive(Default)]
struct Queue {
    idle: VecDeque<oneshot::Sender<Instant>>,
    due: VecDeque<Instant>,
}

/// Starts a lane's loop for each of `lanes` and the clock that feeds them, on the current
/// `LocalSet`.
///
/// # Errors
/// When the clock's thread can not be started.
pub fn start(
    lanes: Vec<Lane>,
    template: &Rc<Template>,
    tally: &Rc<Tally>,
    rate: u32,
) -> anyhow::Result<()> {
    let queue = Rc::new(RefCell::new(Queue::default()));
    for lane in lanes {
        tokio::task::spawn_local(drive(lane, queue.clone(), template.clone(), tally.clone()));
    }
    let (sender, mut due) = mpsc::unbounded_channel();
    // A thread of its own, for the runtime's timers are no finer than a millisecond.
    std::thread::Builder::new()
        .name("clock".to_owned())
        .spawn(move || tick(&sender, rate))
        .context("can not start the clock")?;
    tokio::task::spawn_local(async move {
        while let Some(intended) = due.recv().await {
            dispatch(&mut queue.borrow_mut(), intended);
        }
    });
    Ok(())
}

fn dispatch(queue: &mut Queue, intended: Instant) {
    // A lane whose task is gone drops its receiver; the next one takes the request.
    while let Some(lane) = queue.idle.pop_front() {
        if lane.send(intended).is_ok() {
            return;
        }
    }
    queue.due.push_back(intended);
}

fn tick(due: &mpsc::UnboundedSender<Instant>, rate: u32) {
    let step = Duration::from_secs(1) / rate.max(1);
    let mut next = Instant::now() + step;
    loop {
        if let Some(wait) = next.checked_duration_since(Instant::now()) {
            std::thread::sleep(wait);
        }
        if due.send(next).is_err() {
            return;
        }
        next += step;
    }
}

async fn drive(
    mut lane: Lane,
    queue: Rc<RefCell<Queue>>,
    template: Rc<Template>,
    tally: Rc<Tally>,
) {
    let mut errors = 0;
    while errors < 10 {
        let waiting = queue.borrow_mut().due.pop_front();
        let intended = match waiting {
            Some(intended) => intended,
            None => {
                let (sender, receiver) = oneshot::channel();
                queue.borrow_mut().idle.push_back(sender);
                match receiver.await {
                    Ok(intended) => intended,
                    Err(_) => return,
                }
            }
        };
        tally.written(intended);
        let outcome = lane.exchange(&template).await;
        errors += u32::from(outcome.is_err());
        if (outcome.as_ref()).is_ok_and(|a| a.status() == StatusCode::TOO_MANY_REQUESTS) {
            tally.turned_away();
        }
        tally.ended(intended, outcome);
    }
}
