//! What is left when a test process ends, however it ends, is cleaned up by a shell that waits for its end.
//! Processes need no guard: the kernel kills them with the thread that started them.

use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};

/// A folder, and addresses that this machine answers for, as long as this lives.
#[derive(Debug)]
pub struct Guard {
    folder: PathBuf,
    shell: Child,
    /// The shell cleans up when this is closed.
    open: Option<ChildStdin>,
}

impl Guard {
    /// A new folder under the system's temporary one, and the block of addresses `pods` made local.
    pub fn new(pods: &str) -> Result<Self, String> {
        let status = Command::new("ip")
            .args(["route", "replace", "local", pods, "dev", "lo"])
            .status()
            .map_err(|e| format!("ip route: {e}"))?;
        if !status.success() {
            return Err("ip route add local was refused (not root?)".to_owned());
        }
        let folder = tempfile::Builder::new()
            .prefix("cairn-cluster-")
            .tempdir()
            .map_err(|e| e.to_string())?
            .keep();
        // The processes die at the same time and may still write.
        let clean = r#"cat >/dev/null; ip route del local "$2" dev lo 2>/dev/null
            for _ in 1 2 3 4 5 6 7 8 9 10; do rm -rf -- "$1" && break; sleep 0.2; done"#;
        let mut shell = Command::new("setsid")
            .args(["sh", "-c", clean, "guard"])
            .arg(&folder)
            .arg(pods)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| format!("setsid: {e}"))?;
        let open = shell.stdin.take();
        Ok(Self {
            folder,
            shell,
            open,
        })
    }

    /// The folder.
    pub fn folder(&self) -> &std::path::Path {
        &self.folder
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.open.take();
        let _ = self.shell.wait();
    }
}
