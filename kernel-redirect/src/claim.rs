//! The claim on a redirect: one agent at a time changes it, for two would take each other's listeners
//! away. Held as long as the process lives; the kernel gives it back when that ends.

use std::fs::{self, File, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::load::{pin_failed, pins};
use crate::{Place, RedirectError, place};

/// A lock (flock(2)) on the folder of the pins. Dropping it removes the folder if nothing is in it.
#[derive(Debug)]
pub struct Claim {
    folder: PathBuf,
    found_nothing: bool,
    _locked: File,
}

impl Claim {
    /// Whether nothing was pinned when it was taken: then what is there now is the taker's.
    #[must_use]
    pub fn found_nothing(&self) -> bool {
        self.found_nothing
    }

    /// Claims a redirect, and makes the folder of its pins if there is none.
    ///
    /// # Errors
    /// [`RedirectError::Claimed`] if another process has it; what keeps the folder from being made.
    pub fn take(place: &Place) -> Result<Self, RedirectError> {
        place::may_attach()?;
        let folder = &place.bpffs;
        loop {
            place::pin_folder(folder)?;
            let opened = File::open(folder).map_err(pin_failed(folder, "opening"))?;
            match opened.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    return Err(RedirectError::Claimed {
                        path: folder.clone(),
                    });
                }
                Err(TryLockError::Error(error)) => {
                    return Err(pin_failed(folder, "locking")(error));
                }
            }
            // Who had it before may have removed the folder between the two: then it is of no use.
            if is(&opened, folder) {
                return Ok(Self {
                    found_nothing: pins(folder)?.is_empty(),
                    folder: folder.clone(),
                    _locked: opened,
                });
            }
        }
    }
}

fn is(opened: &File, folder: &Path) -> bool {
    let id = |found: fs::Metadata| (found.dev(), found.ino());
    let opened = opened.metadata().map(id);
    opened.is_ok_and(|opened| {
        fs::metadata(folder)
            .map(id)
            .is_ok_and(|found| found == opened)
    })
}

impl Drop for Claim {
    fn drop(&mut self) {
        // Fails if something is pinned in it, which is as it should be.
        let _ = fs::remove_dir(&self.folder);
    }
}
