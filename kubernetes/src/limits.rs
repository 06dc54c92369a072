//! Limits on what is taken from the API server, each with its reason.

/// Objects of one page of a list: what `kubectl` asks for as well. A page of Pods is a few megabytes.
pub const PAGE_OBJECTS: u32 = 500;

/// Pages that are asked for and read at once. Each takes several times its size while it is read, and all kinds
/// are listed when a waypoint starts. The others wait.
pub const PAGES_AT_ONCE: usize = 4;

/// Size in bytes of the state that is stored for the next start. A hundred thousand Pods have 50 MiB.
/// Beyond: nothing is stored, and the log says so.
pub const STATE_BYTES_MAX: u64 = 256 * 1024 * 1024;
