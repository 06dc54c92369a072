//! Limits of what is told of exchanges: spans and what else collectors get, flow records, the admin page's own.

use std::time::Duration;

/// Events of one span. Beyond: left out and counted in the span. A request has one for its verdict, one for
/// each retry and perhaps one for each ejection.
pub const SPAN_EVENTS_MAX: usize = 64;

/// The most that OTEL_BSP_MAX_QUEUE_SIZE and OTEL_BLRP_MAX_QUEUE_SIZE can be.
pub const OTLP_QUEUE_RECORDS_MAX: usize = 65_536;

/// The most that OTEL_BSP_MAX_EXPORT_BATCH_SIZE and OTEL_BLRP_MAX_EXPORT_BATCH_SIZE can be: some 8 MB.
pub const OTLP_BATCH_RECORDS_MAX: usize = 8_192;

/// Bytes of all spans and records that wait for OpenTelemetry collectors or are being sent, whatever the number; clients
/// choose how long paths are. One collector's are at most three times what is free of it, 12 MiB of one that is alone.
/// Beyond: dropped and counted. Beside them are the buffers' ends, which double as they grow, and
/// [`OTLP_ROOM_BYTES_MAX`] for each worker and collector.
pub const OTLP_QUEUE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Bytes of the records in one message to a collector; gRPC receivers take 4 MiB. Beyond: the rest goes in another
/// one, and only a record that is longer alone is sent as it is.
pub const OTLP_MESSAGE_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Room that a worker sets aside for the next message to a collector, whatever the length of the last one: a longer one makes
/// its buffer grow. Memory is taken as it is written to.
pub const OTLP_ROOM_BYTES_MAX: usize = OTLP_MESSAGE_BYTES_MAX + OTLP_MESSAGE_BYTES_MAX / 8;

/// Buffers of messages to collectors that were sent and are kept for the next ones, while there are some, each of at most
/// `OTLP_ROOM_BYTES_MAX`: one is filled while another is sent. Beyond: memory is given back.
pub const OTLP_SPARES_MAX: usize = 2;

/// Kinds of lines of the access log (by route, verdict, workloads, service and endpoint) of which a worker keeps what they have in
/// common: some 1,500 bytes each. Beyond: it begins anew, which costs time alone.
pub const ACCESS_LOG_ALIKE_MAX: usize = 1_024;

/// Objects of each kind (workloads, clients, endpoints, services, rules of routes and of policies) of which a worker keeps what spans
/// say of them, and kinds of requests and attempts: some 400 to 1,500 bytes each. Beyond: it begins anew, which costs time alone.
pub const OTLP_KNOWN_MAX: usize = 1_024;

/// How long the exporting thread lets records gather before it looks again: workers wake it no oftener.
pub const OTLP_GATHER_INTERVAL: Duration = Duration::from_millis(20);

/// Collectors that are exported to at once, each signal counted. Beyond: what is for the rest is dropped
/// and counted.
pub const OTLP_RECEIVERS_MAX: usize = 64;

/// Attempts to export one batch. Beyond: its records are given up and counted.
pub const OTLP_ATTEMPTS_MAX: u32 = 5;

/// Wait before the second attempt, then twice as long, to [`OTLP_BACK_OFF_MAX`].
pub const OTLP_BACK_OFF: Duration = Duration::from_millis(500);

/// See [`OTLP_BACK_OFF`]. Also the longest that a collector may ask for. Beyond: it is asked again after that.
pub const OTLP_BACK_OFF_MAX: Duration = Duration::from_secs(30);

/// Header block and message of a collector's answer. Beyond: it can not be read, and counts as refused.
pub const OTLP_ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Points in one message of metrics: about 2 MB, where collectors take 4 MB.
pub const OTLP_POINTS_PER_MESSAGE_MAX: usize = 1_000;

/// How long the exit waits for collectors to take what is left.
pub const OTLP_FLUSH_TIMEOUT: Duration = Duration::from_secs(3);

/// How long the first batch of a stream to Envoy's Access Log Service is in doubt: who does not know the service, or wants
/// none of it, says so by ending the stream. Beyond: it counts as handed over, like those after it.
pub const LOG_STREAM_DOUBT: Duration = Duration::from_millis(250);

/// How long such a server may take, at the exit or when it ends a connection, for what was sent to it. Beyond: the rest
/// may be lost.
pub const LOG_STREAM_LAST: Duration = Duration::from_secs(1);

/// Exchanges whose flow records are kept unless `--flow-records` says otherwise; three flows each, most of
/// the time. Beyond: the oldest is overwritten, and a reader who had not read it is told. About 1 KiB each, 6 KiB
/// at most.
pub const FLOW_RECORDS: usize = 4_096;

/// Bytes of a path, a host, a header or a reason in a flow record. Beyond: cut. Clients choose how long they
/// are, and the ring holds thousands.
pub const FLOW_TEXT_BYTES_MAX: usize = 1_024;

/// Room for a flow record's path, host and headers that the next one in its place takes over. Beyond: given back, so that
/// a few requests with long ones do not make all records large.
pub const FLOW_ROOM_BYTES_MAX: usize = 512;

/// The most that `--flow-records` can be.
pub const FLOW_RECORDS_MAX: usize = 1_048_576;

/// What the patterns of `matches` in one expression of a Telemetry, or of a filter of flows, may take when
/// compiled, which is done for every exchange. Beyond: it is no expression.
pub const EXPRESSION_REGEX_BYTES_MAX: usize = 64 * 1024;

/// Connections to the flow API. Beyond: they wait in the kernel's backlog until one ends.
pub const HUBBLE_CONNECTIONS_MAX: usize = 64;

/// Calls of one connection at once, as SETTINGS_MAX_CONCURRENT_STREAMS; each may read the whole ring.
pub const HUBBLE_CALLS_PER_CONNECTION_MAX: u32 = 32;

/// Time for the first bytes of a connection to the flow API, which HTTP/2 prescribes, and before them for its
/// TLS handshake. Beyond: it is closed; those that say nothing would keep the others out.
pub const HUBBLE_PREFACE_TIMEOUT: Duration = Duration::from_secs(15);

/// A request to the flow API, filters included. Beyond: RESOURCE_EXHAUSTED.
pub const HUBBLE_REQUEST_BYTES_MAX: usize = 64 * 1024;

/// Filters of one request to the flow API, of both lists; each is asked of every record. Beyond:
/// INVALID_ARGUMENT.
pub const HUBBLE_FILTERS_MAX: usize = 64;

/// What the regular expressions of all filters of a request may take when compiled. Beyond:
/// INVALID_ARGUMENT.
pub const HUBBLE_REGEX_BYTES_MAX: usize = 1024 * 1024;

/// CEL expressions of all filters of a request to the flow API; each is evaluated for every flow. Beyond:
/// INVALID_ARGUMENT.
pub const HUBBLE_EXPRESSIONS_MAX: usize = 8;

/// One CEL expression of a filter. Beyond: INVALID_ARGUMENT. As long as one of a Telemetry.
pub const HUBBLE_EXPRESSION_BYTES_MAX: usize = 1_024;

/// Records that are looked at for one client before the others' turn comes.
pub const HUBBLE_READ_SLICE: usize = 64;

/// A client that follows is told of what came meanwhile in this interval, so that a busy waypoint does not
/// wake up its reader with every request.
pub const HUBBLE_FOLLOW_INTERVAL: Duration = Duration::from_millis(20);

/// How often a client is told that records were overwritten before it read them.
pub const HUBBLE_LOST_INTERVAL: Duration = Duration::from_secs(1);

/// Records that one answer to the admin page looks at; it asks every second. Beyond: in the next answer.
pub const PAGE_RECORDS_MAX: u64 = 2_048;

/// Flows in one answer to the admin page, or a few more. Beyond: in the next answer.
pub const PAGE_FLOWS_MAX: usize = 500;

/// The newest records that the admin page's service map is made of: it is made on the thread that answers
/// readiness. Beyond: left out; the map says what span it covers.
pub const PAGE_MAP_RECORDS_MAX: u64 = 8_192;

/// Edges of the admin page's service map. Beyond: left out, which the page says.
pub const PAGE_EDGES_MAX: usize = 500;
