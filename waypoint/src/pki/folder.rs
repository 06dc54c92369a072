//! The authority and its identities as a folder: `DIR/ca/` and `DIR/<namespace>/<service account>/`.
//! Issues nothing itself.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cairn_config_schema::identity::Identity;

use super::authority::{Authority, Issued, PkiError};

/// The three files of an identity, as istiod's and SPIRE's helpers name them: what
/// `--identity-dir` reads.
pub const IDENTITY_FILES: [&str; 3] = ["cert-chain.pem", "key.pem", "root-cert.pem"];

const AUTHORITY_FOLDER: &str = "ca";
const AUTHORITY_ROOT: &str = "root-cert.pem";
const AUTHORITY_KEY: &str = "key.pem";

/// A folder with an authority in it.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    authority: Authority,
}

impl Folder {
    /// The authority that is in the folder, or a new one, written there. `validity` is that of a
    /// new root.
    pub fn open_or_create(path: &Path, validity: Duration) -> Result<Self, PkiError> {
        let ca = path.join(AUTHORITY_FOLDER);
        let (root, key) = (ca.join(AUTHORITY_ROOT), ca.join(AUTHORITY_KEY));
        if root.exists() && key.exists() {
            let authority = Authority::from_pem(&read(&root)?, &read(&key)?)?;
            return Ok(Self {
                path: path.to_owned(),
                authority,
            });
        }
        // Half an authority is somebody's trouble, not a reason to make a new one over it.
        for file in [root, key] {
            if file.exists() {
                return Err(PkiError::Exists(file.display().to_string()));
            }
        }
        Self::create(path, validity)
    }

    /// A new authority, written to the folder over any that is there.
    pub fn create(path: &Path, validity: Duration) -> Result<Self, PkiError> {
        let ca = path.join(AUTHORITY_FOLDER);
        let authority = Authority::generate(validity)?;
        create_folder(&ca)?;
        write(&ca.join(AUTHORITY_KEY), authority.key_pem(), 0o600)?;
        write(&ca.join(AUTHORITY_ROOT), authority.root_cert_pem(), 0o644)?;
        Ok(Self {
            path: path.to_owned(),
            authority,
        })
    }

    /// The authority.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Where the three files of an identity are or would be. `None`: the identity has no namespace
    /// and service account.
    pub fn identity_folder(&self, identity: &Identity) -> Option<PathBuf> {
        let (namespace, account) = (identity.namespace()?, identity.service_account()?);
        Some(self.path.join(namespace).join(account))
    }

    /// Issues a leaf and writes its three files, over those that are there. Each file appears whole
    /// (written beside, then renamed); the key first, so that a reader who watches the chain finds
    /// the key that belongs to it. Returns the folder.
    pub fn issue(&self, identity: &Identity, validity: Duration) -> Result<PathBuf, PkiError> {
        let folder = self
            .identity_folder(identity)
            .ok_or_else(|| PkiError::NotWorkload(identity.uri().to_owned()))?;
        let issued = self.authority.issue(identity, validity)?;
        write_identity(&folder, &issued)?;
        Ok(folder)
    }

    /// Every identity in the folder, as its certificate says it, sorted.
    pub fn identities(&self) -> Result<Vec<Identity>, PkiError> {
        let mut found = Vec::new();
        for namespace in folders_in(&self.path)? {
            for account in folders_in(&namespace)? {
                let chain = account.join("cert-chain.pem");
                if chain.exists() {
                    found.push(identity_of(&chain)?);
                }
            }
        }
        found.sort();
        Ok(found)
    }
}

/// The SPIFFE ID of the first certificate of a file.
fn identity_of(chain: &Path) -> Result<Identity, PkiError> {
    let foreign = || PkiError::Foreign(chain.display().to_string());
    let text = read(chain)?;
    let (_, pem) = x509_parser::pem::parse_x509_pem(text.as_bytes()).map_err(|_| foreign())?;
    let certificate = pem.parse_x509().map_err(|_| foreign())?;
    let names = certificate
        .subject_alternative_name()
        .map_err(|_| foreign())?;
    let uri = names.and_then(|names| {
        names
            .value
            .general_names
            .iter()
            .find_map(|name| match name {
                x509_parser::extensions::GeneralName::URI(uri) => Some(*uri),
                _ => None,
            })
    });
    uri.and_then(|uri| Identity::parse(uri).ok())
        .ok_or_else(foreign)
}

/// Writes the three files of an identity into a folder, whatever the identity is.
///
/// # Errors
/// [`PkiError::File`].
pub fn write_identity(folder: &Path, issued: &Issued) -> Result<(), PkiError> {
    create_folder(folder)?;
    write(&folder.join("root-cert.pem"), &issued.root_cert_pem, 0o644)?;
    write(&folder.join("key.pem"), &issued.key_pem, 0o600)?;
    write(
        &folder.join("cert-chain.pem"),
        &issued.cert_chain_pem,
        0o644,
    )
}

fn folders_in(path: &Path) -> Result<Vec<PathBuf>, PkiError> {
    let mut folders = Vec::new();
    for entry in fs::read_dir(path).map_err(|e| file_error(path, e))? {
        let entry = entry.map_err(|e| file_error(path, e))?.path();
        if entry.is_dir() {
            folders.push(entry);
        }
    }
    Ok(folders)
}

fn read(path: &Path) -> Result<String, PkiError> {
    fs::read_to_string(path).map_err(|e| file_error(path, e))
}

fn create_folder(path: &Path) -> Result<(), PkiError> {
    fs::create_dir_all(path).map_err(|e| file_error(path, e))
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), PkiError> {
    let beside = path.with_extension("pem.new");
    let attempt = || -> std::io::Result<()> {
        // A left-over of an interrupted run could have any mode, which `mode` would not change.
        match fs::remove_file(&beside) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&beside)?;
        file.write_all(text.as_bytes())?;
        fs::rename(&beside, path)
    };
    attempt().map_err(|e| file_error(path, e))
}

fn file_error(path: &Path, error: std::io::Error) -> PkiError {
    PkiError::File {
        path: path.display().to_string(),
        error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

    fn web() -> Identity {
        Identity::of_workload("mesh.example", "shop", "web").unwrap()
    }

    #[test]
    fn identity_has_its_three_files_and_a_private_key_for_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open_or_create(dir.path(), YEAR).unwrap();
        let identity = folder.issue(&web(), YEAR).unwrap();
        assert_eq!(identity, dir.path().join("shop/web"));
        let mut names: Vec<_> = fs::read_dir(&identity)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, IDENTITY_FILES, "and nothing else is left behind");
        for key in [identity.join("key.pem"), dir.path().join("ca/key.pem")] {
            let mode = fs::metadata(key).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn a_second_run_uses_the_same_authority() {
        let dir = tempfile::tempdir().unwrap();
        let first = Folder::open_or_create(dir.path(), YEAR).unwrap();
        first.issue(&web(), YEAR).unwrap();
        let second = Folder::open_or_create(dir.path(), YEAR).unwrap();
        assert_eq!(
            first.authority().root_cert_pem(),
            second.authority().root_cert_pem()
        );
        assert_eq!(
            second.identities().unwrap(),
            [web()],
            "trust domain and all"
        );
    }

    #[test]
    fn half_an_authority_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        Folder::open_or_create(dir.path(), YEAR).unwrap();
        fs::remove_file(dir.path().join("ca/key.pem")).unwrap();
        let error = Folder::open_or_create(dir.path(), YEAR).unwrap_err();
        assert!(matches!(error, PkiError::Exists(_)), "{error}");
    }
}
