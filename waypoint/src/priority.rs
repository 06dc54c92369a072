//! What is told of requests must not hold them up: threads that no request waits for step back.

use rustix::process::{getpriority_process, setpriority_process};

/// From where workers are: a tenth of the processor time of one that wants the same processor, all of one that nobody
/// wants (sched(7)).
const BEHIND_WORKERS: i32 = 10;

/// The lowest priority there is.
const LAST: i32 = 19;

/// Puts the calling thread behind those that serve requests and take over configuration, for good.
pub fn step_back() {
    // On Linux "this process" is the calling thread. Down is never refused, but by a seccomp profile of somebody's own.
    let back = getpriority_process(None)
        .and_then(|now| setpriority_process(None, (now + BEHIND_WORKERS).min(LAST)));
    if let Err(error) = back {
        tracing::debug!(%error, "a thread could not be put behind the workers");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thread_steps_back_and_not_the_process() {
        let before = getpriority_process(None).unwrap();
        let behind = std::thread::spawn(|| {
            step_back();
            getpriority_process(None).unwrap()
        });
        let expected = (before + BEHIND_WORKERS).min(LAST);
        assert_eq!(behind.join().unwrap(), expected);
        assert_eq!(getpriority_process(None).unwrap(), before);
    }
}
