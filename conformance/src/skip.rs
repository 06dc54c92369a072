//! Says loudly that a test is skipped, or fails it where the machine is known to be able to run it.

use std::io::Write as _;

/// Says on stderr, past the test harness, that the test of this thread can not run because of `why`. With the
/// environment variable `required` at 1 it fails instead: CI must not skip in silence.
pub fn skipped(what: &str, why: &str, required: &str) {
    assert!(
        std::env::var_os(required).is_none_or(|value| value != "1"),
        "{required}=1, but {what} can not run here: {why}"
    );
    let _ = writeln!(
        std::io::stderr(),
        "SKIPPED {}: {what} can not run here: {why}",
        std::thread::current().name().unwrap_or("a test")
    );
}
