//! Identity from three files that an orchestrator replaces in its own ways: looking at them every second is
//! simpler than watching and as good.

use tokio::sync::Notify;

use super::LOOK_INTERVAL;
use super::own::{Outcome, OwnIdentity};
use crate::tls::{IdentityFiles, LocalIdentity};

/// Loads them again when they change. Those that can not be loaded leave the last good ones in force.
pub(super) async fn follow(files: &IdentityFiles, own: &OwnIdentity, reload: &Notify) {
    let mut last_error = String::new();
    let mut before = read(files);
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
            () = reload.notified() => {}
        }
        let now = read(files);
        if now == before && last_error.is_empty() {
            continue;
        }
        match LocalIdentity::load(files, 0) {
            Ok(identity) => {
                own.take(identity);
                last_error.clear();
                before = now;
            }
            Err(error) => {
                let words = error.to_string();
                if words != last_error {
                    own.count(Outcome::Files);
                    tracing::error!(error = %words, "identity files can not be loaded, the last good ones stay in force");
                    last_error = words;
                }
            }
        }
    }
}

type Contents = [Option<Vec<u8>>; 3];

fn read(files: &IdentityFiles) -> Contents {
    [files.chain(), files.key(), files.roots()].map(|path| std::fs::read(path).ok())
}
