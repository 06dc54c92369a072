//! What is told of requests must not hold them up: threads that no request waits for step back.

use rustix::process::setpriority_process;

/// A tenth of the processor time of a worker that wants the same processor, all of one that nobody wants (sched(7)).
const BEHIND_WORKERS: i32 = 10;

/// Puts the calling thread behind those that serve requests and take over configuration, for good.
pub fn step_back() {
    // On Linux "this process" is the calling thread. Lower is never refused, but by a seccomp profile of somebody's own.
    if let Err(error) = setpriority_process(None, BEHIND_WORKERS) {
        tracing::debug!(%error, "a thread could not be put behind the workers");
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::getpriority_process;

    use super::*;

    #[test]
    fn one_thread_steps_back_and_not_the_process() {
        let before = getpriority_process(None).unwrap();
        let behind = std::thread::spawn(|| {
            step_back();
            getpriority_process(None).unwrap()
        });
        assert_eq!(behind.join().unwrap(), BEHIND_WORKERS);
        assert_eq!(getpriority_process(None).unwrap(), before);
    }
}
