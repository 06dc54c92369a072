//! The claim on a redirect: one agent at a time changes it, for two would take each other's listeners
//! away. Held as long as the process lives; the kernel gives it back when that ends.

use std::fs::{self, File, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::load::{pin_failed, pins};
use crate::{Place, Redirect, RedirectError, place};

/// A lock (flock(2)) on the folder of the pins. Dropping it removes the folder if nothing is in it.
#[derive(Debug)]
pub struct Claim {
    place: Place,
    found_nothing: bool,
    locked: File,
}

impl Claim {
    /// Undoes what was attached under it if nothing was there before: for a start that fails later.
    /// What an earlier process left stays, and goes on refusing what nobody serves.
    ///
    /// # Errors
    /// If pins can not be removed.
    pub fn give_up(&self) -> Result<(), RedirectError> {
        match self.found_nothing {
            true => Redirect::detach(&self.place).map(drop),
            false => Ok(()),
        }
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
                    place: place.clone(),
                    locked: opened,
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
        // If what we hold was removed, a folder of that name is somebody else's, who may have claimed
        // it and pinned nothing yet. Fails if something is pinned in it, which is as it should be.
        if is(&self.locked, &self.place.bpffs) {
            let _ = fs::remove_dir(&self.place.bpffs);
        }
    }
}
