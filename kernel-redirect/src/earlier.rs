//! What earlier maps know and new ones must not forget: the pods, which would pass policy by if nobody
//! knew them. Reads maps of other layouts and sizes; moves and removes none.

use std::collections::BTreeSet;
use std::path::Path;

use crate::inspect::other_layouts;
use crate::layout::PROGRAMS;
use crate::load::link_name;
use crate::maps::{flagged_in, pods_in};
use crate::{RedirectError, Sizes};

/// What is pinned by whoever was here before.
#[derive(Debug, Default)]
pub(crate) struct Earlier {
    /// Keys of the pods that new maps have to know from the start.
    pub pods: BTreeSet<u64>,
    /// Flagged services, of the map that has the most.
    services: usize,
}

impl Earlier {
    /// What is left for the maps in `folder` to take over. Nothing if they have it already: programs
    /// are attached to them only once they do, and pods that were withdrawn since must not come back.
    pub(crate) fn than(folder: &Path, same_sizes: bool) -> Result<Self, RedirectError> {
        let attached = |name: &&str| folder.join(link_name(name)).exists();
        if same_sizes && PROGRAMS.iter().all(attached) {
            return Ok(Self::default());
        }
        let mut earlier = Self::default();
        earlier.read(folder)?;
        if let Some(bpffs) = folder.parent() {
            for name in other_layouts(bpffs)? {
                earlier.read(&bpffs.join(name))?;
            }
        }
        Ok(earlier)
    }

    fn read(&mut self, folder: &Path) -> Result<(), RedirectError> {
        self.pods.extend(pods_in(folder)?);
        self.services = self.services.max(flagged_in(folder)?);
        Ok(())
    }

    /// Whether maps of these sizes have room for it. Pods without room could never be taken over, so
    /// that the old maps would have to stay, and refuse, for ever; services would go direct at once.
    pub(crate) fn fits(&self, sizes: Sizes) -> Result<(), RedirectError> {
        let judge = |what, flag, known: usize, asked: u32| match known > asked as usize {
            true => Err(RedirectError::TooSmall {
                what,
                flag,
                known,
                asked,
            }),
            false => Ok(()),
        };
        judge(
            "pods are enrolled",
            "--pods-max",
            self.pods.len(),
            sizes.pods,
        )?;
        judge(
            "services are flagged",
            "--services-max",
            self.services,
            sizes.services,
        )
    }
}
