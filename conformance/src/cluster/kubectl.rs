//! kubectl as the user of the tests: what it was told on stdin, what it said and how it ended.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::workspace;

/// What kubectl said.
#[derive(Debug)]
pub struct Said {
    /// Whether it ended well.
    pub ok: bool,
    /// Its stdout.
    pub stdout: String,
    /// Its stderr.
    pub stderr: String,
}

impl Said {
    /// Its stdout; panics with its stderr where it failed.
    pub fn expect(self, what: &str) -> String {
        assert!(self.ok, "{what}: {}{}", self.stderr, self.stdout);
        self.stdout
    }

    /// Its stderr; panics where it did not fail.
    pub fn refused(self, what: &str) -> String {
        assert!(!self.ok, "{what} was not refused: {}", self.stdout);
        self.stderr
    }
}

/// Runs kubectl with this kubeconfig, its caches in `caches`.
pub async fn run(kubeconfig: PathBuf, caches: &Path, arguments: &[&str], stdin: &str) -> Said {
    let mut command = Command::new(workspace::kubectl());
    command
        .env("KUBECONFIG", kubeconfig)
        .env("KUBECACHEDIR", caches)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let stdin = stdin.to_owned();
    let run = tokio::task::spawn_blocking(move || {
        let mut child = command.spawn().expect("kubectl starts");
        let mut pipe = child.stdin.take().expect("a pipe");
        // It may end without having read: what it says then tells why.
        let _ = pipe.write_all(stdin.as_bytes());
        drop(pipe);
        child.wait_with_output().expect("kubectl runs")
    });
    let output = run.await.expect("kubectl");
    Said {
        ok: output.status.success(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
