//! Which files there are under the configured paths, and which folders to watch to learn of changes.
//! Reads no file.
//!
//! The mounts of Kubernetes ConfigMaps look like this: `app.yaml -> ..data/app.yaml` and
//! `..data -> ..2026_11_21`. Hidden entries are skipped, so each file is found once, by the name a
//! user knows; and every symlink on the way is watched where it lies, so that its swap is noticed.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::OsString;
use std::fs::{self, FileType, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Folders inside folders, and symlinks behind symlinks. Linux follows 40 symlinks.
const DEPTH_MAX: usize = 40;

const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Collected {
    /// Files in the order of the paths, then sorted within a folder; none twice.
    pub(super) files: Vec<Found>,
    /// Configured paths and folders that can not be looked into, with the reason.
    pub(super) unreadable: Vec<(PathBuf, io::Error)>,
    /// Folders to watch, absolute.
    pub(super) folders: BTreeMap<PathBuf, Interest>,
    /// Files and folders that were there already, by device and inode.
    seen: HashSet<(u64, u64)>,
}

/// One file.
#[derive(Debug)]
pub(super) struct Found {
    /// As the user would name it.
    pub(super) path: PathBuf,
    /// Of the file, symlinks followed.
    pub(super) metadata: Metadata,
}

/// Which entries of a watched folder matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Interest {
    /// Any.
    All,
    /// Those of these names: the folder is only on the way to a configured path.
    Names(BTreeSet<OsString>),
}

impl Interest {
    /// Whether an entry of that name matters.
    pub(super) fn includes(&self, name: Option<&std::ffi::OsStr>) -> bool {
        match (self, name) {
            (Self::All, _) | (_, None) => true,
            (Self::Names(names), Some(name)) => names.contains(name),
        }
    }
}

/// Looks under every path. A path that names a file is taken whatever its name.
pub(super) fn collect(paths: &[PathBuf]) -> Collected {
    let mut collected = Collected::default();
    for path in paths {
        // Relative paths stay as the user wrote them in messages, and become absolute for watching.
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.clone());
        collected.watch_way_to(&absolute, 0);
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => collected.folder(path, &absolute, &metadata, 0),
            Ok(metadata) => collected.file(path.clone(), metadata),
            Err(error) => collected.unreadable.push((path.clone(), error)),
        }
    }
    collected
}

impl Collected {
    fn file(&mut self, path: PathBuf, metadata: Metadata) {
        if self.seen.insert((metadata.dev(), metadata.ino())) {
            self.files.push(Found { path, metadata });
        }
    }

    fn folder(&mut self, path: &Path, absolute: &Path, metadata: &Metadata, depth: usize) {
        // A folder that was there already is a symlink's loop, or the user's second name for it.
        if depth > DEPTH_MAX || !self.seen.insert((metadata.dev(), metadata.ino())) {
            return;
        }
        self.folders.insert(absolute.to_owned(), Interest::All);
        let mut names = match entry_names(path) {
            Ok(names) => names,
            Err(error) => return self.unreadable.push((path.to_owned(), error)),
        };
        names.sort_by(|(a, _), (b, _)| a.cmp(b));
        for (name, kind) in names {
            let symlink = kind.is_symlink();
            if name.as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let (child, child_absolute) = (path.join(&name), absolute.join(&name));
            let metadata = match fs::metadata(&child) {
                Ok(metadata) => metadata,
                // Gone between listing and looking, or a dangling link: a mount in the middle of
                // its swap. It may have led to a folder of policies, whatever its name.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    if symlink {
                        self.watch_way_to(&child_absolute, 0);
                        self.unreadable.push((child, error));
                    }
                    continue;
                }
                // What would not have been read anyway is not missed.
                Err(_) if kind.is_file() && !is_configuration(&child) => continue,
                Err(error) => {
                    self.unreadable.push((child, error));
                    continue;
                }
            };
            let wanted = metadata.is_dir() || is_configuration(&child);
            if symlink && wanted {
                self.watch_way_to(&child_absolute, 0);
            }
            if metadata.is_dir() {
                self.folder(&child, &child_absolute, &metadata, depth + 1);
            } else if wanted {
                self.file(child, metadata);
            }
        }
    }

    /// Watches the folder a path lies in (or would), and every symlink on the way to it.
    fn watch_way_to(&mut self, absolute: &Path, depth: usize) {
        if depth > DEPTH_MAX {
            return;
        }
        let mut ancestors: Vec<&Path> = absolute.ancestors().collect();
        ancestors.reverse();
        for step in ancestors {
            let (Some(parent), Some(name)) = (step.parent(), step.file_name()) else {
                continue;
            };
            match fs::symlink_metadata(step) {
                Ok(found) if found.is_symlink() => {
                    self.watch_name(parent, name.to_owned());
                    if let Ok(target) = fs::read_link(step) {
                        let rest = absolute.strip_prefix(step).unwrap_or(Path::new(""));
                        let target = parent.join(target);
                        let target = if rest.as_os_str().is_empty() {
                            target
                        } else {
                            target.join(rest)
                        };
                        self.watch_way_to(&target, depth + 1);
                    }
                }
                // The deepest folder that is there tells when the next one appears.
                Err(_) => return self.watch_name(parent, name.to_owned()),
                Ok(_) if step == absolute => self.watch_name(parent, name.to_owned()),
                Ok(_) => {}
            }
        }
    }

    fn watch_name(&mut self, folder: &Path, name: OsString) {
        let empty = Interest::Names(BTreeSet::new());
        if let Interest::Names(names) = self.folders.entry(folder.to_owned()).or_insert(empty) {
            names.insert(name);
        }
    }
}

fn is_configuration(path: &Path) -> bool {
    path.extension()
        .and_then(|e| e.to_str())
        .is_some_and(|e| EXTENSIONS.iter().any(|known| e.eq_ignore_ascii_case(known)))
}

/// The names in a folder, each with what it is, symlinks not followed.
fn entry_names(folder: &Path) -> io::Result<Vec<(OsString, FileType)>> {
    fs::read_dir(folder)?
        .map(|entry| {
            let entry = entry?;
            Ok((entry.file_name(), entry.file_type()?))
        })
        .collect()
}
