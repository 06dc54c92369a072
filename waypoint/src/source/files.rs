//! Configuration files: their text now, re-read only when something about a file has changed. Finding
//! them is `collect`'s business, noticing changes `watch`'s, and what they mean the schema's.

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::hash::{DefaultHasher, Hasher};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cairn_config_schema::limits::FILE_BYTES_MAX;

use super::collect::{Collected, collect};

/// A file changed this shortly before it was read may change again without its times telling:
/// kernels stamp files with the time of their last tick.
const TRUST_AFTER: Duration = Duration::from_millis(100);

/// How often a file that is written to while it is read is read again at once.
const TORN_READS_MAX: usize = 3;

/// Texts up to this size stay in memory between changes.
const KEPT_TEXT_BYTES_MAX: usize = 16 * 1024;

/// One configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// Path as the user would name it.
    pub path: Arc<str>,
    /// Its text, or why it could not be read.
    pub text: Result<Arc<str>, String>,
}

/// The files under some paths, as they were when last looked at.
#[derive(Debug)]
pub struct Files {
    paths: Vec<PathBuf>,
    sources: Vec<SourceFile>,
    known: HashMap<PathBuf, Known>,
    /// Paths and reasons of what could not be looked into.
    unreadable: Vec<(PathBuf, String)>,
}

/// A file that was read.
#[derive(Clone, Debug)]
struct Known {
    stamp: Stamp,
    /// Whether an equal stamp means an equal file.
    trusted: bool,
    /// Of the text. `None`: it could not be read.
    fingerprint: Option<(u64, usize)>,
    /// `None`: the text was let go, see [`Files::release`].
    source: Option<SourceFile>,
}

impl Known {
    fn is_same(&self, other: &Self) -> bool {
        match (self.fingerprint, other.fingerprint) {
            // Neither could be read, and then the reason is kept.
            (None, None) => self.source == other.source,
            (mine, others) => mine == others,
        }
    }
}

/// What changes with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    modified: SystemTime,
    changed: (i64, i64),
    bytes: u64,
    place: (u64, u64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            modified: metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            bytes: metadata.len(),
            place: (metadata.dev(), metadata.ino()),
        }
    }
}

impl Files {
    /// Files under these paths: a file is taken as it is, a folder gives its `*.yaml`, `*.yml` and
    /// `*.json`, recursively, sorted, hidden ones left out. Nothing is read yet.
    pub fn new(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        Self {
            paths: paths.into_iter().collect(),
            sources: Vec::new(),
            known: HashMap::new(),
            unreadable: Vec::new(),
        }
    }

    /// The files as they were at the last [`Files::refresh`] that found a change, in the order of the
    /// paths. A path or file that can not be read is in the list, with the reason.
    pub fn sources(&self) -> &[SourceFile] {
        &self.sources
    }

    /// Looks again, and says whether anything is different from the last time. Reads only files that
    /// may have changed, and those whose text was let go if any has.
    pub fn refresh(&mut self) -> bool {
        self.refresh_with_folders().0
    }

    /// [`Files::refresh`], and what was found on the way.
    pub(super) fn refresh_with_folders(&mut self) -> (bool, Collected) {
        let mut collected = collect(&self.paths);
        let mut known = HashMap::with_capacity(collected.files.len());
        let mut changed = false;
        for found in &collected.files {
            let stamp = Stamp::of(&found.metadata);
            let before = self.known.remove(&found.path);
            let now = match &before {
                Some(entry) if entry.trusted && entry.stamp == stamp => entry.clone(),
                _ => read(&found.path, stamp, before.as_ref()),
            };
            changed |= before.is_none_or(|before| !before.is_same(&now));
            known.insert(found.path.clone(), now);
        }
        let unreadable = self.keep_unreadable(&mut collected, &mut known);
        changed |= unreadable != self.unreadable || !self.known.is_empty();
        self.known = known;
        self.unreadable = unreadable;
        if changed {
            self.gather(&collected);
        }
        (changed, collected)
    }

    /// What can not be looked into is not deleted: its files stay, as unreadable ones. The path itself
    /// is told only if no file is known behind it, for then nothing is known of what it should hold.
    fn keep_unreadable(
        &mut self,
        collected: &mut Collected,
        known: &mut HashMap<PathBuf, Known>,
    ) -> Vec<(PathBuf, String)> {
        let mut unreadable = Vec::new();
        for (path, error) in std::mem::take(&mut collected.unreadable) {
            let reason = reason(&error);
            let inside = self.known.extract_if(|file, _| file.starts_with(&path));
            let mut inside: Vec<_> = inside.collect();
            inside.sort_by(|(a, _), (b, _)| a.cmp(b));
            // Of two paths one may lie in the other, and then its files are kept already.
            if inside.is_empty() && !known.keys().any(|file| file.starts_with(&path)) {
                unreadable.push((path, reason));
                continue;
            }
            for (file, entry) in inside {
                unreadable.push((file.clone(), reason.clone()));
                let trusted = false;
                known.insert(file, Known { trusted, ..entry });
            }
        }
        unreadable
    }

    /// Puts the list of sources together, in order. Texts that were let go are read again.
    fn gather(&mut self, collected: &Collected) {
        self.sources.clear();
        for found in &collected.files {
            let Some(entry) = self.known.get_mut(&found.path) else {
                continue;
            };
            if entry.source.is_none() {
                *entry = read(&found.path, Stamp::of(&found.metadata), None);
            }
            self.sources.extend(entry.source.clone());
        }
        let unreadable = self.unreadable.iter();
        let unreadable = unreadable.map(|(path, reason)| source_file(path, Err(reason.clone())));
        self.sources.extend(unreadable);
    }

    /// Lets the texts go once they have served: what matters of them is in the objects made of them.
    /// Small ones stay, for many small files would take longer to read again than to keep.
    pub(super) fn release(&mut self) {
        self.sources = Vec::new();
        for entry in self.known.values_mut() {
            let large = |source: &SourceFile| {
                source
                    .text
                    .as_ref()
                    .is_ok_and(|text| text.len() > KEPT_TEXT_BYTES_MAX)
            };
            if entry.source.as_ref().is_some_and(large) {
                entry.source = None;
            }
        }
    }
}

/// Reads one file. The text it had before is kept if it is the same, so that it is in memory once.
fn read(path: &Path, mut stamp: Stamp, before: Option<&Known>) -> Known {
    let mut attempt = 0;
    loop {
        attempt += 1;
        let started = SystemTime::now();
        let (text, after) = match read_once(path) {
            Ok((text, after)) => (Ok(text), after),
            Err(error) => (Err(error), stamp.clone()),
        };
        if after != stamp && attempt < TORN_READS_MAX {
            stamp = after;
            continue;
        }
        let quiet = stamp.modified + TRUST_AFTER < started;
        let trusted = after == stamp && quiet && text.is_ok();
        let fingerprint = text.as_ref().ok().map(|text| fingerprint(text));
        let same = before.filter(|b| fingerprint.is_some() && b.fingerprint == fingerprint);
        let kept = same.and_then(|before| before.source.clone());
        let source = kept.unwrap_or_else(|| source_file(path, text.map(Into::into)));
        return Known {
            stamp: after,
            trusted,
            fingerprint,
            source: Some(source),
        };
    }
}

fn fingerprint(text: &str) -> (u64, usize) {
    let mut hasher = DefaultHasher::new();
    hasher.write(text.as_bytes());
    (hasher.finish(), text.len())
}

/// The text of a file, and its stamp after it was read.
fn read_once(path: &Path) -> Result<(String, Stamp), String> {
    // Asked before opening: to open a FIFO is to wait for its writer, perhaps for ever.
    if !fs::metadata(path).map_err(|e| reason(&e))?.is_file() {
        return Err("is not a regular file".to_owned());
    }
    let mut file = File::open(path).map_err(|e| reason(&e))?;
    let metadata = file.metadata().map_err(|e| reason(&e))?;
    let bytes_max = FILE_BYTES_MAX;
    if metadata.len() > bytes_max {
        return Err(format!("is larger than {bytes_max} bytes"));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0) + 1);
    let read = Read::by_ref(&mut file)
        .take(bytes_max + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| reason(&e))?;
    if read as u64 > bytes_max {
        return Err(format!("is larger than {bytes_max} bytes"));
    }
    let text = String::from_utf8(bytes)
        .map_err(|e| format!("is not UTF-8: byte {}", e.utf8_error().valid_up_to()))?;
    let after = file.metadata().map_err(|e| reason(&e))?;
    Ok((text, Stamp::of(&after)))
}

fn source_file(path: &Path, text: Result<Arc<str>, String>) -> SourceFile {
    SourceFile {
        path: path.display().to_string().into(),
        text,
    }
}

/// What the system says, without its error number.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file or folder".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}
