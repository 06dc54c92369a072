//! A small certificate authority for `cairn pki`, the demo and tests: mesh roots and SPIFFE leafs.
//! Not for production, where istiod or SPIRE issues; it does not verify anybody.

mod authority;
mod folder;
mod issuer;

pub use authority::{Authority, Issued, Leaf, PkiError};
pub use folder::{Folder, IDENTITY_FILES, write_identity};
pub use issuer::Issuer;
