//! The guard: a small process beside the agent that takes the pods' listeners away when the whole
//! process stands still (stopped, swapped out, deadlocked), which no watchdog inside it can do. It
//! hears a beat on its standard input; the end of it means that the agent has ended, and then the
//! kernel has taken the listeners away already.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use anyhow::Context;
use cairn_kernel_redirect::{Place, Redirect};

use super::watchdog::HUNG_AFTER;

/// This very program, also after its file was replaced by another version's: that one may know
/// another layout of the pins.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// The agent's side: the guard's process and the line to it.
#[derive(Debug)]
pub struct Guard {
    process: Child,
    line: UnixStream,
}

impl Guard {
    /// Starts a guard for a redirect.
    ///
    /// # Errors
    /// When no process can be started.
    pub fn start(place: &Place) -> io::Result<Self> {
        let (line, theirs) = UnixStream::pair()?;
        line.set_nonblocking(true)?;
        let process = Command::new(THIS_PROGRAM)
            .arg0("cairn")
            .args(["node", "guard", "--bpffs"])
            .arg(&place.bpffs)
            .arg("--cgroup")
            .arg(&place.cgroup)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()?;
        Ok(Self { process, line })
    }

    /// Says that the agent is alive. `false`: nobody hears it.
    pub fn beat(&mut self) -> bool {
        match self.line.write(b".") {
            Ok(written) => written > 0,
            // A guard that does not read is as stopped as we might be; it hears us when it goes on.
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // It ends by itself at the end of its line; only a dead one is waited for here.
        let _ = self.line.shutdown(std::net::Shutdown::Both);
        let _ = self.process.try_wait();
    }
}

/// Guards until the agent ends. `line` is where it beats.
///
/// # Errors
/// When the line can not be read.
pub fn guard(line: &mut UnixStream, place: &Place) -> anyhow::Result<()> {
    line.set_read_timeout(Some(HUNG_AFTER))?;
    let mut taken_away = false;
    let mut beats = [0; 64];
    loop {
        match line.read(&mut beats) {
            Ok(0) => return Ok(()),
            Ok(_) => taken_away = false,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if is_silence(&error) => {
                if !taken_away {
                    taken_away = take_away(place);
                }
            }
            Err(error) => return Err(error).context("listen to the agent"),
        }
    }
}

fn is_silence(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

/// Whether it is done; else it is tried again after as long a silence. By the pins alone: to attach
/// anew would replace the programs of an agent that may go on at any moment.
fn take_away(place: &Place) -> bool {
    match Redirect::suspend_all(place) {
        Ok(pods) => tracing::error!(
            pods,
            "the agent stands still, its listeners were taken away: each service's failure mode applies"
        ),
        Err(error) => {
            tracing::error!(%error, "the agent stands still, and its listeners stay; tried again");
            return false;
        }
    }
    true
}
