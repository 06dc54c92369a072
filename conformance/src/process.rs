//! A child process that is killed by its id when dropped, with its output in files.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long anything may take to become ready. Generous, because CI shares its cores.
pub const READY_DEADLINE: Duration = Duration::from_secs(60);

/// How often a state is looked at that sends no event.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// A command for a program that the kernel kills when the thread that starts it ends, so that none outlives
/// a test process that is killed.
pub fn tied(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// A running child.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    out: PathBuf,
    err: PathBuf,
}

impl Process {
    /// Starts `command`; output goes to `<folder>/<name>.out` and `.err`.
    pub fn start(name: &str, mut command: Command, folder: &Path) -> Self {
        let out = folder.join(format!("{name}.out"));
        let err = folder.join(format!("{name}.err"));
        let child = command
            .stdin(Stdio::null())
            .stdout(File::create(&out).expect("a log file"))
            .stderr(File::create(&err).expect("a log file"))
            .spawn()
            .unwrap_or_else(|e| panic!("{name} does not start: {e}"));
        Self {
            name: name.to_owned(),
            child,
            out,
            err,
        }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote to stdout so far.
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.out).unwrap_or_default()).into_owned()
    }

    /// What it wrote to stderr so far.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.err).unwrap_or_default()).into_owned()
    }

    /// Sends a signal by name: `TERM`, `HUP`, `STOP`.
    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill")
            .args([&format!("-{signal}"), &self.id().to_string()])
            .status()
            .expect("kill runs");
        assert!(status.success(), "{} is gone already", self.name);
    }

    /// Whether it has ended, and how.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// Waits for its end.
    pub async fn wait(&mut self, deadline: Duration) -> ExitStatus {
        let end = Instant::now() + deadline;
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(
                Instant::now() < end,
                "{} still runs after {deadline:?}\n{}",
                self.name,
                self.stderr()
            );
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Waits until a TCP connection is accepted. Panics with the log when the process ends first.
    pub async fn listening(&mut self, address: SocketAddr) {
        let name = self.name.clone();
        self.until(&format!("{name} listens on {address}"), async || {
            tokio::net::TcpStream::connect(address).await.is_ok()
        })
        .await;
    }

    /// Waits until `ready`. Panics with the log when the process ends first, or too late.
    pub async fn until(&mut self, what: &str, mut ready: impl AsyncFnMut() -> bool) {
        let end = Instant::now() + READY_DEADLINE;
        while !ready().await {
            if let Some(status) = self.ended() {
                panic!("{} ended with {status}\n{}", self.name, self.stderr());
            }
            assert!(
                Instant::now() < end,
                "not in time: {what}\n{}",
                self.stderr()
            );
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Errors mean that it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- {} stderr\n{}", self.name, tail(&self.stderr()));
            eprintln!("--- {} stdout\n{}", self.name, tail(&self.stdout()));
        }
    }
}

/// The last 20 lines, long ones cut: logs of many processes must not bury what the test itself says.
fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    let last = lines[lines.len().saturating_sub(20)..].iter();
    let cut = last.map(|line| line.chars().take(300).collect::<String>());
    cut.collect::<Vec<_>>().join("\n")
}

/// Waits until `ready`, without a process to blame.
pub async fn until(what: &str, mut ready: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + READY_DEADLINE;
    while !ready().await {
        assert!(Instant::now() < end, "not in time: {what}");
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}
