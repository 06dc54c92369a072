//! Limits on configuration, each with its reason. Limits of the data path live in the waypoint.

/// Nodes (scalars, lists and maps, aliases expanded) in one document. A `kubectl get -o yaml` list
/// of 10,000 objects has about 3 million; beyond that an alias bomb is likelier than a cluster.
pub const NODES_PER_DOCUMENT_MAX: usize = 8_000_000;

/// Nesting of lists and maps. The deepest Kubernetes schema needs about 20.
pub const DEPTH_MAX: usize = 128;

/// Length of a key in bytes up to which a document in one line is read as JSON. Beyond: as YAML, whose parser looks at
/// most 1,024 characters ahead for the colon after a key.
pub const JSON_KEY_BYTES_MAX: usize = 512;

/// Spaces in a row up to which a document in one line is read as JSON, so that with the longest key there are fewer than
/// 1,024 characters before the colon. Beyond: as YAML.
pub const JSON_SPACES_MAX: usize = 256;

/// Size in bytes of a document up to which it is read as JSON if it is in one line: far from as many values as a
/// document may have, and no object of the API server is larger. Beyond: as YAML.
pub const JSON_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Size of one configuration file in bytes.
pub const FILE_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Diagnostics reported for one object; the rest is summed up in one line.
pub const DIAGNOSTICS_PER_OBJECT_MAX: usize = 50;

/// Size in bytes of one compiled regular expression; a route may not take the memory of the rest.
pub const REGEX_BYTES_MAX: usize = 1024 * 1024;

/// Size in bytes of one `jwks` that stands in an object; a set of a hundred RSA keys has 50 KiB.
pub const INLINE_JWKS_BYTES_MAX: usize = 256 * 1024;

/// Largest part of a request's body, in bytes, that an authorization service gets. The engine keeps 64
/// KiB of a body to be sent again, and gives it out in pieces of up to 16 KiB in HTTP/2. Beyond: 413,
/// or the part alone.
pub const EXT_AUTHZ_BODY_BYTES_MAX: usize = 48 * 1024;

/// How long the answer of an authorization service may take when its provider does not say, in
/// milliseconds: Istio's default.
pub const EXT_AUTHZ_TIMEOUT_DEFAULT_MS: u64 = 600_000;

/// How long the answer to an ExternalAuth filter may take, which has no field for it, in milliseconds.
/// Beyond: 403. Enough for a service that asks another one; no request should wait longer to be let in.
pub const EXT_AUTHZ_FILTER_TIMEOUT_MS: u64 = 10_000;

/// Points of one hash ring (`ringHash.minimumRingSize`): a ring is made anew with every change of the
/// endpoints, and more points would make that slow and the spread no better.
pub const RING_POINTS_MAX: u32 = 262_144;

/// Entries of one Maglev table (`maglev.tableSize`), four bytes each: Envoy's limit.
pub const MAGLEV_SIZE_MAX: u32 = 5_000_011;

/// Comparisons that one lint makes; beyond it says that it stopped. Two hundred policies of
/// ten rules on one service, half of them DENY, have a million pairs.
pub const LINT_COMPARISONS_MAX: usize = 2_000_000;

/// Retries of one request that a route may ask for. Beyond: a warning, and so many. A request that
/// failed this often does not need another try but a mended backend.
pub const RETRIES_PER_REQUEST_MAX: u32 = 20;

/// Name of a session (`sessionName`) in bytes: the API's limit. It travels with every request.
pub const SESSION_NAME_BYTES_MAX: usize = 128;

/// Sessions that one cookie or header holds, one for each rule whose `sessionName` is the same. The oldest is
/// dropped: its client gets a new one. Eight tokens are 400 bytes of each request.
pub const SESSIONS_PER_NAME_MAX: usize = 8;

/// Body of one `directResponse` of a VirtualService in bytes: Istio's limit at a waypoint
/// (specs/istio-waypoint.md 4.5).
pub const DIRECT_RESPONSE_BYTES_MAX: usize = 1024 * 1024;

/// Longest delay that a route may inject, in milliseconds. Beyond: the rule answers 500. A delayed
/// request holds its place and its memory; nobody waits longer than an hour.
pub const FAULT_DELAY_MAX_MS: u64 = 3_600_000;

/// Size in bytes of one CEL expression of a Telemetry; a longer one is no expression for a metric or
/// a filter any more, and it would be evaluated for every request.
pub const TELEMETRY_EXPRESSION_BYTES_MAX: usize = 1024;

/// Labels that one override of a Telemetry changes; each makes more series.
pub const METRIC_TAGS_MAX: usize = 16;

/// Shortest `reportingInterval` of a Telemetry, in milliseconds. Below: an error, and as without it. Each
/// open TCP stream counts its bytes so often.
pub const REPORT_INTERVAL_MIN_MS: u64 = 100;

/// Longest `reportingInterval` of a Telemetry, in milliseconds. Beyond: an error, and as without it. Idle streams are
/// noticed as often.
pub const REPORT_INTERVAL_MAX_MS: u64 = 3_600_000;

/// Tags of spans that one Telemetry adds; each is in every span.
pub const SPAN_TAGS_MAX: usize = 32;

/// Size in bytes of a format of access logs; a line is longer still.
pub const LOG_FORMAT_BYTES_MAX: usize = 16 * 1024;

/// Headers of requests, and headers of responses, that a log of Envoy's Access Log Service has beside the usual ones: each is
/// looked up for each request.
pub const LOGGED_HEADERS_MAX: usize = 64;

/// How long an export to a collector may take when its provider does not say, in milliseconds: the
/// default of OpenTelemetry's exporters.
pub const COLLECTOR_TIMEOUT_DEFAULT_MS: u64 = 10_000;

/// Length of the value of a tag when its provider does not say (`maxTagLength`): Istio's default.
pub const TAG_BYTES_DEFAULT: u32 = 256;

/// Descriptors of one `globalRateLimit`. Beyond: the policy is broken. Each is a question for every request.
pub const RATE_LIMIT_DESCRIPTORS_MAX: usize = 16;

/// Entries of one descriptor. Beyond: the policy is broken.
pub const RATE_LIMIT_ENTRIES_MAX: usize = 8;

/// Workloads or services that one finding on what istiod tells names; the rest is counted.
pub const LEFT_OUT_NAMED_MAX: usize = 5;

/// Weight of an endpoint that istiod tells of (`capacity`). Beyond: so much. One workload that claims to bear
/// everything must not starve the others for good.
pub const CAPACITY_MAX: u32 = 10_000;

/// HTTP rules that one rule of an AuthorizationPolicy becomes in a CiliumNetworkPolicy: one for each path,
/// host and value of a header together. Beyond: it is not translated. An object of some hundred KiB is all that
/// the API server takes.
pub const TRANSLATED_HTTP_RULES_MAX: usize = 1_024;
