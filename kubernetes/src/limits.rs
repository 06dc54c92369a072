//! Limits on what is taken from the API server, each with its reason.

/// Objects of one page of a list: what `kubectl` asks for as well. A page of Pods is a few megabytes.
pub const PAGE_OBJECTS: u32 = 500;

/// Size in bytes of the state that is stored for the next start. A hundred thousand Pods have 50 MiB.
/// Beyond: nothing is stored, and the log says so.
pub const STATE_BYTES_MAX: u64 = 256 * 1024 * 1024;
