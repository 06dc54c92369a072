//! An address as a text of JSON. How it is written quickly is in `member`.

use std::net::SocketAddr;

use serde::{Serialize, Serializer};

/// Written as it displays.
pub struct Address(pub SocketAddr);

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}
