//! A small certificate authority for `cairn pki`, the demo and tests: mesh roots and SPIFFE leafs.
//! Not for production, where istiod or SPIRE issues: there only `request` has a part. Verifies nobody.

mod authority;
mod folder;
mod issuer;
mod request;

pub use authority::{Authority, Issued, Leaf, PkiError};
pub use folder::{Folder, IDENTITY_FILES, write_identity};
pub use issuer::Issuer;
pub use request::SigningRequest;
