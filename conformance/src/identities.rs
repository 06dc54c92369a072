//! A certificate authority and one folder per identity, as `cairn pki` and istiod leave them:
//! `cert-chain.pem`, `key.pem`, `root-cert.pem`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use cairn_config_schema::identity::Identity;
use cairn_waypoint::pki::{Authority, Issued, Leaf};

/// Validity of what is issued here.
pub const DAY: Duration = Duration::from_secs(24 * 3600);

/// An authority that writes into a folder.
#[derive(Debug)]
pub struct Identities {
    authority: Authority,
    folder: PathBuf,
}

impl Identities {
    /// A new authority.
    pub fn new(folder: &Path) -> Self {
        Self {
            authority: Authority::generate(DAY).expect("a root"),
            folder: folder.to_path_buf(),
        }
    }

    /// The authority.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Folder of the identity `namespace/service-account`, issued now if it is not there.
    pub fn folder_of(&self, workload: &str) -> PathBuf {
        let folder = self.folder.join(workload);
        if !folder.join("key.pem").exists() {
            write(&folder, &self.issue(workload));
        }
        folder
    }

    /// A fresh leaf of trust domain `cluster.local` for `namespace/service-account`.
    pub fn issue(&self, workload: &str) -> Issued {
        self.authority
            .issue(&identity(workload), DAY)
            .expect("a leaf")
    }

    /// A leaf, proper or not.
    pub fn issue_leaf(&self, leaf: &Leaf) -> Issued {
        self.authority.issue_leaf(leaf).expect("a leaf")
    }
}

/// `spiffe://cluster.local/ns/<namespace>/sa/<service account>`.
pub fn identity(workload: &str) -> Identity {
    let (namespace, account) = workload.split_once('/').expect("namespace/account");
    Identity::of_workload("cluster.local", namespace, account).expect("a SPIFFE ID")
}

/// Writes the three files, each in one step, the certificate last: whoever watches it finds the
/// key that belongs to it.
pub fn write(folder: &Path, issued: &Issued) {
    std::fs::create_dir_all(folder).expect("a folder");
    let files = [
        ("root-cert.pem", &issued.root_cert_pem),
        ("key.pem", &issued.key_pem),
        ("cert-chain.pem", &issued.cert_chain_pem),
    ];
    for (name, pem) in files {
        let new = folder.join(format!(".{name}.new"));
        std::fs::write(&new, pem).expect("a file");
        std::fs::rename(&new, folder.join(name)).expect("a rename");
    }
}
