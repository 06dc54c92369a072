//! Limits on configuration, each with its reason. Limits of the data path live in the waypoint.

/// Nodes (scalars, lists and maps, aliases expanded) in one document. A `kubectl get -o yaml` list
/// of 10,000 objects has about 3 million; beyond that an alias bomb is likelier than a cluster.
pub const NODES_PER_DOCUMENT_MAX: usize = 8_000_000;

/// Nesting of lists and maps. The deepest Kubernetes schema needs about 20.
pub const DEPTH_MAX: usize = 128;

/// Size of one configuration file in bytes.
pub const FILE_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Diagnostics reported for one object; the rest is summed up in one line.
pub const DIAGNOSTICS_PER_OBJECT_MAX: usize = 50;

/// Size in bytes of one compiled regular expression; a route may not take the memory of the rest.
pub const REGEX_BYTES_MAX: usize = 1024 * 1024;

/// Size in bytes of one `jwks` that stands in an object; a set of a hundred RSA keys has 50 KiB.
pub const INLINE_JWKS_BYTES_MAX: usize = 256 * 1024;

/// Points of one hash ring (`ringHash.minimumRingSize`): a ring is made anew with every change of the
/// endpoints, and more points would make that slow and the spread no better.
pub const RING_POINTS_MAX: u32 = 262_144;

/// Entries of one Maglev table (`maglev.tableSize`), four bytes each: Envoy's limit.
pub const MAGLEV_SIZE_MAX: u32 = 5_000_011;

/// Comparisons that one lint makes; beyond it says that it stopped. A thousand policies of ten rules
/// on one service have a million pairs of an ALLOW and a DENY rule.
pub const LINT_COMPARISONS_MAX: usize = 2_000_000;

/// Retries of one request that a route may ask for. Beyond: a warning, and so many. A request that
/// failed this often does not need another try but a mended backend.
pub const RETRIES_PER_REQUEST_MAX: u32 = 20;
