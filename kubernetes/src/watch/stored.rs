//! What the API server said last, in a file, so that a waypoint can start while the server is away. Written
//! whole beside the old one and renamed over it; never half, and never believed when its checksum is wrong.
//! Holds nothing secret: Secrets are not watched.
//!
//! A line with the format's version and the time, one line an object (path, tab, JSON) sorted by path, and a
//! line with their number and a checksum of all before it.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use xxhash_rust::xxh64::Xxh64;

use crate::limits::STATE_BYTES_MAX;

/// The first word of the file, with the version of its format.
const MAGIC: &str = "cairn-state-1";

/// The name of the file.
const NAME: &str = "objects";

/// The state of a process on disk.
#[derive(Clone, Debug)]
pub struct Stored {
    dir: PathBuf,
}

/// What was stored.
#[derive(Debug)]
pub struct State {
    /// When it was read from the API server.
    pub at: SystemTime,
    /// Objects by path, as JSON.
    pub objects: Vec<(Arc<str>, Arc<str>)>,
}

/// Changes since the file was written; `None`: gone.
pub type Differences = BTreeMap<Arc<str>, Option<Arc<str>>>;

impl Stored {
    /// The state in this folder, which is made if it is not there.
    ///
    /// # Errors
    /// When the folder can not be made.
    pub fn open(dir: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&dir)?;
        Ok(Self { dir })
    }

    /// The file.
    pub fn path(&self) -> PathBuf {
        self.dir.join(NAME)
    }

    /// What was stored; `None`: nothing was.
    ///
    /// # Errors
    /// When the file can not be read, or is not whole.
    pub fn load(&self) -> io::Result<Option<State>> {
        let mut objects = Vec::new();
        let at = read(&self.path(), |path, text| {
            objects.push((path.into(), text.into()));
            Ok(())
        })?;
        Ok(at.map(|at| State { at, objects }))
    }

    /// Stores what is there now: everything, or what the file has with the differences.
    ///
    /// # Errors
    /// When it can not be written, is too large, or the file to begin with is not whole any more.
    pub fn save(&self, differences: &Differences, is_everything: bool) -> io::Result<()> {
        // Two processes on one volume would write into each other's file: the second one comes later.
        let mut options = OpenOptions::new();
        options.write(true).create(true).mode(0o600);
        let lock = options
            .clone()
            .open(self.dir.join(format!("{NAME}.lock")))?;
        lock.try_lock()?;
        let beside = self.dir.join(format!("{NAME}.new"));
        let mut new = Writer::new(options.truncate(true).open(&beside)?)?;
        let mut rest = differences.iter().peekable();
        if !is_everything {
            let old = read(&self.path(), |path, text| {
                while let Some((new_path, new_text)) = rest.next_if(|(new, _)| &***new < path) {
                    new.object(new_path, new_text.as_deref())?;
                }
                match rest.next_if(|(new, _)| &***new == path) {
                    Some((_, new_text)) => new.object(path, new_text.as_deref()),
                    None => new.object(path, Some(text)),
                }
            })?;
            if old.is_none() {
                return Err(broken("it is gone"));
            }
        }
        for (path, text) in rest {
            new.object(path, text.as_deref())?;
        }
        new.end()?;
        fs::rename(&beside, self.path())?;
        // The name is on disk when the folder is.
        File::open(&self.dir)?.sync_all()
    }

    /// Takes the file away, for it is not to be believed.
    ///
    /// # Errors
    /// When it can not be taken away.
    pub fn discard(&self) -> io::Result<()> {
        match fs::remove_file(self.path()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// Writes a state line by line.
struct Writer {
    file: BufWriter<File>,
    hash: Xxh64,
    objects: u64,
    bytes: u64,
}

impl Writer {
    fn new(file: File) -> io::Result<Self> {
        let mut writer = Self {
            file: BufWriter::new(file),
            hash: Xxh64::new(0),
            objects: 0,
            bytes: 0,
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now_s = now.unwrap_or_default().as_secs();
        writer.line(&[MAGIC, " ", &now_s.to_string()])?;
        Ok(writer)
    }

    fn line(&mut self, parts: &[&str]) -> io::Result<()> {
        for part in parts.iter().chain(&["\n"]) {
            self.hash.update(part.as_bytes());
            self.bytes += part.len() as u64;
            self.file.write_all(part.as_bytes())?;
        }
        match self.bytes > STATE_BYTES_MAX {
            true => Err(io::Error::other(format!(
                "the state is larger than {STATE_BYTES_MAX} bytes"
            ))),
            false => Ok(()),
        }
    }

    fn object(&mut self, path: &str, text: Option<&str>) -> io::Result<()> {
        // JSON has neither raw tabs nor raw line ends, and names of the API have none at all.
        match text {
            Some(text) if !path.contains(['\t', '\n']) && !text.contains('\n') => {
                self.objects += 1;
                self.line(&[path, "\t", text])
            }
            Some(_) => Err(io::Error::other(format!("{path:?} does not fit in a line"))),
            None => Ok(()),
        }
    }

    fn end(mut self) -> io::Result<()> {
        let end = format!("end {} {:016x}", self.objects, self.hash.digest());
        self.line(&[&end])?;
        self.file
            .into_inner()
            .map_err(|e| e.into_error())?
            .sync_all()
    }
}

fn broken(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// Reads a state, giving each object to `take`; when it was written, if it is there. Only the end says that
/// what was given is to be believed.
fn read(
    path: &Path,
    mut take: impl FnMut(&str, &str) -> io::Result<()>,
) -> io::Result<Option<SystemTime>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if file.metadata()?.len() > STATE_BYTES_MAX {
        return Err(broken("it is too large"));
    }
    let mut lines = BufReader::new(file);
    let (mut hash, mut line, mut objects) = (Xxh64::new(0), String::new(), 0_u64);
    let mut at = None;
    loop {
        line.clear();
        if lines.read_line(&mut line)? == 0 {
            return Err(broken("it has no end"));
        }
        let digest = hash.digest();
        hash.update(line.as_bytes());
        let Some(text) = line.strip_suffix('\n') else {
            return Err(broken("its last line is cut off"));
        };
        if at.is_none() {
            let written = text.strip_prefix(MAGIC).and_then(|s| s.trim().parse().ok());
            let written = written.ok_or_else(|| broken("it is of another version"))?;
            at = UNIX_EPOCH.checked_add(Duration::from_secs(written));
            if at.is_none() {
                return Err(broken("its time is none"));
            }
        } else if let Some((path, text)) = text.split_once('\t') {
            objects += 1;
            take(path, text)?;
        } else if text == format!("end {objects} {digest:016x}") {
            return Ok(at);
        } else {
            return Err(broken("its checksum is wrong"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use proptest::prelude::*;

    use super::*;

    fn differences(of: &[(&str, Option<&str>)]) -> Differences {
        let one = |(path, text): &(&str, Option<&str>)| ((*path).into(), text.map(Into::into));
        of.iter().map(one).collect()
    }

    fn texts(stored: &Stored) -> Vec<(String, String)> {
        let state = stored.load().unwrap().unwrap();
        let pairs = state.objects.iter();
        pairs
            .map(|(path, text)| (path.to_string(), text.to_string()))
            .collect()
    }

    #[test]
    fn what_was_stored_is_there_again_and_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let stored = Stored::open(dir.path().join("state")).unwrap();
        assert!(stored.load().unwrap().is_none());
        stored
            .save(
                &differences(&[("a", Some("{}")), ("b", Some("{\"x\":1}"))]),
                true,
            )
            .unwrap();
        assert_eq!(
            texts(&stored),
            [("a".into(), "{}".into()), ("b".into(), "{\"x\":1}".into())]
        );
        let mode = fs::metadata(stored.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        stored.discard().unwrap();
        assert!(stored.load().unwrap().is_none());
    }

    #[test]
    fn only_one_process_writes_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let stored = Stored::open(dir.path().to_owned()).unwrap();
        let all = differences(&[("a", Some("{}"))]);
        stored.save(&all, true).unwrap();
        let other = File::open(dir.path().join("objects.lock")).unwrap();
        other.lock().unwrap();
        let refused = stored.save(&all, true).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        drop(other);
        stored.save(&all, true).unwrap();
    }

    #[test]
    fn a_state_that_is_damaged_anywhere_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let stored = Stored::open(dir.path().to_owned()).unwrap();
        let all = differences(&[("a", Some("{\"n\":1}")), ("b", Some("{}"))]);
        stored.save(&all, true).unwrap();
        let whole = fs::read(stored.path()).unwrap();
        for at in 0..whole.len() {
            // The time of writing says nothing about the objects, but is covered as well.
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            fs::write(stored.path(), &damaged).unwrap();
            assert!(stored.load().is_err(), "byte {at}");
            fs::write(stored.path(), &whole[..at]).unwrap();
            assert!(stored.load().is_err(), "cut at {at}");
        }
        // Nor is it built upon.
        fs::write(stored.path(), &whole[..whole.len() - 1]).unwrap();
        assert!(
            stored
                .save(&differences(&[("c", Some("{}"))]), false)
                .is_err()
        );
    }

    proptest! {
        /// However it is stored, piece by piece, it is what a map would hold.
        #[test]
        fn differences_add_up(rounds in prop::collection::vec(
            prop::collection::btree_map("[a-d]", prop::option::of("[x-z]"), 0..4), 1..6)
        ) {
            let dir = tempfile::tempdir().unwrap();
            let stored = Stored::open(dir.path().to_owned()).unwrap();
            let mut naive: BTreeMap<String, String> = BTreeMap::new();
            for (number, round) in rounds.iter().enumerate() {
                let mut differences = Differences::new();
                for (path, text) in round {
                    differences.insert(path.as_str().into(), text.as_deref().map(Into::into));
                    match text {
                        Some(text) => drop(naive.insert(path.clone(), text.clone())),
                        None => drop(naive.remove(path)),
                    }
                }
                stored.save(&differences, number == 0).unwrap();
                prop_assert_eq!(texts(&stored), naive.clone().into_iter().collect::<Vec<_>>());
            }
        }
    }
}
