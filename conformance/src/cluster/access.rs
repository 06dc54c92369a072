//! Who may call the API server of the tests: static tokens, kubeconfig files, the key that signs tokens of
//! ServiceAccounts. Decides nothing: what a caller may do is RBAC's.

use std::path::{Path, PathBuf};
use std::time::Duration;

use cairn_waypoint::pki::Authority;
use serde_json::json;

/// Token of the administrator, in group `system:masters`.
pub const ADMIN: &str = "administrator";
/// Token of a user whom no rule allows anything.
pub const NOBODY: &str = "nobody";

/// Longer than any test.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// The files of an API server that say whom it knows.
#[derive(Debug)]
pub struct Access {
    folder: PathBuf,
}

impl Access {
    /// Writes the static tokens and the key for tokens of ServiceAccounts.
    pub fn write(folder: &Path) -> Self {
        let access = Self {
            folder: folder.to_path_buf(),
        };
        let tokens = format!("{ADMIN},administrator,1,system:masters\n{NOBODY},nobody,2,people\n");
        std::fs::write(access.tokens(), tokens).expect("a file");
        // Any key pair will do, and a certificate is a public key too.
        let pair = Authority::generate(DAY).expect("a key");
        std::fs::write(access.signing_key(), pair.key_pem()).expect("a file");
        std::fs::write(access.verifying_key(), pair.root_cert_pem()).expect("a file");
        std::fs::create_dir_all(access.certificates()).expect("a folder");
        access
    }

    /// `--token-auth-file`.
    pub fn tokens(&self) -> PathBuf {
        self.folder.join("tokens.csv")
    }

    /// `--service-account-signing-key-file`.
    pub fn signing_key(&self) -> PathBuf {
        self.folder.join("accounts.key")
    }

    /// `--service-account-key-file`.
    pub fn verifying_key(&self) -> PathBuf {
        self.folder.join("accounts.crt")
    }

    /// `--cert-dir`: the server signs its own certificate there at its first start.
    pub fn certificates(&self) -> PathBuf {
        self.folder.join("certificates")
    }

    /// Its certificate, with the authority that signed it.
    pub fn root(&self) -> PathBuf {
        self.certificates().join("apiserver.crt")
    }

    /// A kubeconfig file for a token.
    pub fn kubeconfig(&self, name: &str, port: u16, token: &str) -> PathBuf {
        let path = self.folder.join(format!("{name}.kubeconfig"));
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [{ "name": "test", "context": { "cluster": "test", "user": name } }],
            "clusters": [{ "name": "test", "cluster": {
                "server": format!("https://127.0.0.1:{port}"),
                "certificate-authority": self.root(),
            }}],
            "users": [{ "name": name, "user": { "token": token } }],
        });
        std::fs::write(&path, config.to_string()).expect("a file");
        path
    }
}
