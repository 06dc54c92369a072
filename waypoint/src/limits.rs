//! Every limit of the data path: its value, its reason, and what the user sees beyond it. Those of what is told
//! of exchanges are in `observation`.

mod observation;

use std::time::Duration;

use cairn_config_schema::limits::RETRIES_PER_REQUEST_MAX;

pub use observation::*;

/// Client connections a worker holds. Beyond: the connection is closed before TLS and counted as
/// `connection_limit`. One connection per client pod and worker is the rule (specs 2.2), so this is
/// far above a node's pods.
pub const CONNECTIONS_PER_WORKER_MAX: usize = 20_000;

/// Steered connections of one pod that may be open at once. Beyond: reset, counted as
/// `connection_limit`. One pod must not take the descriptors of all others.
pub const STEERED_CONNECTIONS_PER_POD_MAX: usize = 8_192;

/// How long a steered connection that is done waits for its client to be done too, so that the
/// client reads the end of an answer instead of a reset.
pub const STEERED_LINGER_TIMEOUT: Duration = Duration::from_secs(2);

/// Connections of one pod that wait for a socket of its network namespace. Beyond: the attempt fails,
/// and another endpoint is tried.
pub const EGRESS_SOCKETS_WAITING_MAX: usize = 1_024;

/// The most that `--pods-max` can be. It is the size of two maps of the kernel, and of what each
/// worker can be handed at once. Beyond `--pods-max` (4,096 by default) a pod is not enrolled, which
/// is logged, counted and shown by `cairn node status`.
pub const PODS_MAX: u32 = 65_536;

/// cgroups looked at for those of pods, and for the processes of one pod: a kubelet makes one for each pod and one
/// for each container. Beyond: the rest is not looked at, and pods in it wait, which is counted and logged.
pub const CGROUP_FOLDERS_MAX: usize = 16_384;

/// Processes of one pod that are looked at to find its network namespace, the runtime's own among the first. A pod
/// with more is found by these.
pub const PROCESSES_OF_POD_MAX: usize = 4_096;

/// The most that `--services-max` can be: 34 MB of the kernel's memory, 220 MB when full. Beyond
/// `--services-max` (65,536 by default) a service port is not flagged, which is logged and counted.
pub const FLAGGED_SERVICES_MAX: u32 = 1_048_576;

/// TLS handshake, accept to ALPN. Beyond: closed, counted as `timeout`.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Streams of one tunnel that may be open at once, as SETTINGS_MAX_CONCURRENT_STREAMS. ztunnel
/// opens at most 100 a connection and more connections after that; 1,000 lets one go on.
pub const STREAMS_PER_TUNNEL_MAX: u32 = 1_000;

/// Stream window of a tunnel, as ztunnel's (specs/istio-waypoint.md 2.2).
pub const TUNNEL_STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;

/// Connection window of a tunnel, as ztunnel's.
pub const TUNNEL_CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;

/// Frame size of a tunnel, as ztunnel's.
pub const TUNNEL_FRAME_BYTES_MAX: u32 = 1024 * 1024;

/// Header list of a CONNECT.
pub const CONNECT_HEADER_BYTES_MAX: u32 = 16 * 1024;

/// Bytes a tunnel stream gathers before it makes a DATA frame.
pub const WRITE_BUFFER_BYTES: usize = 16 * 1024;

/// PING interval on every tunnel, both sides, and how long an answer may take.
pub const PING_INTERVAL: Duration = Duration::from_secs(10);
/// See [`PING_INTERVAL`].
pub const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// PING interval on connections to istiod and to services that are asked about requests. A gRPC server ends a connection
/// that pings more often than it allows (GOAWAY `too_many_pings`, after the fourth): istiod allows one in 15 s. This is
/// what Istio's own clients of istiod do. Calls to the other services end sooner than a PING is due.
pub const GRPC_PING_INTERVAL: Duration = Duration::from_secs(30);

/// How long the other end of an HTTP/2 connection without a tunnel may be silent when TCP asks it for an
/// acknowledgement, or leave no room for what is to be sent. Beyond: the connection is dead and closed, and its requests
/// fail. Applications and collectors are sent no PINGs, for many gRPC servers allow one in five minutes and end a
/// connection with more of them, and every quiet stream on it.
pub const UNACKNOWLEDGED_TIMEOUT: Duration = Duration::from_secs(20);

/// A client connection without streams is closed after this, with GOAWAY.
pub const TUNNEL_IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

/// A pooled upstream tunnel without streams is closed after this, as ztunnel's pool does.
pub const UPSTREAM_TUNNEL_IDLE_TIMEOUT: Duration = Duration::from_secs(300);

/// Streams we put on one upstream tunnel: ztunnel's server allows 200, its own pool uses 100.
pub const STREAMS_PER_UPSTREAM_TUNNEL_MAX: usize = 100;

/// How long the tunnel inside of a stream to the gateway of another network may take to end once its stream is given up.
/// Beyond: the outer stream is reset.
pub const INNER_TUNNEL_CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Tunnels to one next hop and identity, per worker. Beyond: 503, flag UO.
pub const UPSTREAM_TUNNELS_PER_DESTINATION_MAX: usize = 100;

/// Destinations that a worker has names for. Where endpoints are told whose connection it is
/// (`proxyProtocol`), each client is one of its own. Beyond: those not used for longest are given up with
/// their idle connections.
pub const UPSTREAM_DESTINATIONS_MAX: usize = 16_384;

/// Idle upstream HTTP/1.1 streams kept per worker.
pub const UPSTREAM_IDLE_STREAMS_MAX: usize = 1_024;

/// An idle upstream stream is closed after this; below the usual 60 s keep-alive of applications,
/// so that they rarely close under our hands (specs/istio-waypoint.md 8 no. 4).
pub const UPSTREAM_IDLE_STREAM_TIMEOUT: Duration = Duration::from_secs(50);

/// Header block of one request. Beyond: 431, connection closed.
pub const REQUEST_HEADER_BYTES_MAX: usize = 60 * 1024;

/// Bytes of a header that are kept beside the engine's own copy, so that a refusal can say what was
/// wrong. Beyond: the reason is told in general words.
pub const HEAD_BYTES_KEPT: usize = 4 * 1024;

/// Time for the header block of one request, first byte to last. Beyond: 408, connection closed.
pub const REQUEST_HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Header lines of one HTTP/1.1 request: the engine's limit. Beyond: 431, connection closed.
pub const REQUEST_HEADERS_MAX: usize = 256;

/// Idle time between requests of one HTTP/1.1 keep-alive connection.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(3600);

/// How long an undeclared port waits for the client's first bytes before it takes the stream for
/// TCP (specs/istio-waypoint.md 2.5: server-first protocols).
pub const SNIFF_TIMEOUT: Duration = Duration::from_millis(1000);

/// Bytes of a TLS ClientHello that are read where a route depends on its server name; the largest in use,
/// with post-quantum keys and tickets, have a few thousand. Beyond: as if it named no server.
pub const CLIENT_HELLO_BYTES_MAX: usize = 32 * 1024;

/// How long such a ClientHello may take. Beyond: as if it were none; what only TLS may reach is reset.
pub const CLIENT_HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// Idle time of a spliced TCP stream, as Istio's `tcp.idleTimeout`.
pub const TCP_IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

/// Streams of an HTTP/2 connection inside a tunnel.
pub const INNER_STREAMS_MAX: u32 = 1_000;

/// Header list of an HTTP/2 request inside a tunnel.
pub const INNER_HEADER_BYTES_MAX: u32 = REQUEST_HEADER_BYTES_MAX as u32;

/// Malformed requests on one HTTP/2 connection inside a tunnel, the engine's own number. Beyond: the
/// connection is closed, GOAWAY with ENHANCE_YOUR_CALM.
pub const INNER_MALFORMED_STREAMS_MAX: u32 = 32;

/// Open streams and tunnels judged again at once when policy changes, before the worker serves others:
/// 128 take well under a millisecond.
pub const RECHECK_SLICE: usize = 128;

/// How long an upgraded connection that policy no longer allows may take to end by itself, while its
/// endpoint takes no bytes. Beyond: it is cut.
pub const CLOSING_TIMEOUT: Duration = Duration::from_secs(1);

/// Attempts to reach an endpoint for a TCP stream: the first and two retries on connect failure, as
/// Istio's default (specs/istio-waypoint.md 4.6).
pub const CONNECT_ATTEMPTS_MAX: u32 = 3;

/// Attempts of one HTTP request: the first and as many retries as a route may ask for
/// (`RETRIES_PER_REQUEST_MAX`). Beyond: the answer or the error of the last.
pub const ATTEMPTS_PER_REQUEST_MAX: u32 = 21;
const _: () = assert!(ATTEMPTS_PER_REQUEST_MAX == 1 + RETRIES_PER_REQUEST_MAX);

/// Bytes of a request's body that are kept to be sent again, the engine's own number. Beyond: nothing
/// of it is kept, and the request is not retried once its body was begun; `retry_denied` is `body`.
pub const RETRY_BODY_BYTES_MAX: usize = 64 * 1024;

/// The longest that `Retry-After` is waited for. Beyond: the client gets the answer, and may wait by
/// itself.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(5);

/// Copies of requests (RequestMirror) in flight. Beyond: no copy is made, counted as `too_many`.
pub const MIRRORS_PER_WORKER_MAX: usize = 1_000;

/// Pieces of a request's body that wait to be copied; a piece has 64 KiB at most. Beyond: the copy
/// breaks off, counted as `too_slow`, for the request itself does not wait.
pub const MIRROR_QUEUE_PIECES: usize = 32;

/// How long a copy may take, its answer included. Beyond: dropped, counted as `timeout`.
pub const MIRROR_TIMEOUT: Duration = Duration::from_secs(15);

/// Access log lines waiting for stdout. Beyond: dropped and counted.
pub const ACCESS_LOG_QUEUE_LINES: usize = 16_384;

/// Requests that `cairn diff` asks of both configurations: of its matrix unless `--requests` says
/// otherwise, and different ones of an access log. Beyond: left out, and said.
pub const DIFF_REQUESTS_MAX: usize = 100_000;

/// Requests that `cairn diff` writes out or groups. Beyond: counted.
pub const DIFF_CHANGES_MAX: usize = 10_000;

/// Policies that one line of the access log names under `audit`, and as many under `dry_run`. Beyond:
/// left out there, but counted by the metrics. A thousand policies may be tried at once.
pub const POLICY_RECORDS_PER_LINE_MAX: usize = 32;

/// Label sets of one metric. Beyond: counted into one series whose labels are `other`.
pub const METRIC_SERIES_MAX: usize = 10_000;

/// Minutes after which a label set in which nothing is counted is forgotten, unless `--metrics-idle-minutes` says
/// otherwise; at least that, and up to two minutes more. `increase()` over longer times would miss what comes less often.
pub const METRIC_IDLE_MINUTES: u32 = 360;

/// The most that `--metrics-idle-minutes` can be: a month.
pub const METRIC_IDLE_MINUTES_MAX: u32 = 43_200;

/// How often idle label sets are looked for, at most; a thread lets go of all its own as often.
pub const METRIC_STEP_MIN: Duration = Duration::from_secs(5);

/// How often idle label sets are looked for, at least.
pub const METRIC_STEP_MAX: Duration = Duration::from_secs(60);

/// Clients whose names come from baggage, as label sets. Any client can make up a new name in every
/// stream; beyond, its names are `unknown` and only namespace and principal tell it apart.
pub const METRIC_BAGGAGE_CLIENTS_MAX: usize = 1_000;

/// Bytes of one value that a Telemetry gives a label; the rest is cut. Clients may choose the value.
pub const METRIC_TAG_BYTES_MAX: usize = 256;

/// How often a TCP stream adds its bytes to the metrics, as Istio's `reportingInterval`.
pub const TCP_REPORT_INTERVAL: Duration = Duration::from_secs(5);

/// Bytes of access log lines that wait for stdout, per worker. Beyond: dropped and counted.
pub const ACCESS_LOG_QUEUE_BYTES: usize = 8 * 1024 * 1024;

/// How long access log lines are gathered before they are written.
pub const ACCESS_LOG_BATCH_INTERVAL: Duration = Duration::from_millis(20);

/// How long the exit waits for stdout to take the last lines of the access log.
pub const ACCESS_LOG_FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// Bytes of the process's own log that wait for stderr; as much again may be on its way. Beyond: the
/// line is dropped and counted, for a worker that waited for stderr would answer nobody.
pub const LOG_QUEUE_BYTES: usize = 1024 * 1024;

/// How long the exit waits for stderr to take the last lines of the log.
pub const LOG_FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// Of the lines about clients that are refused before there is a stream, one for each reason is
/// written in this time. Any client can cause them as fast as it can send.
pub const LOG_REPEAT_INTERVAL: Duration = Duration::from_secs(1);

/// Connections to one of the metrics, readiness and admin addresses. Beyond: they wait in the
/// kernel's backlog until one ends.
pub const ADMIN_CONNECTIONS_MAX: usize = 64;

/// Time for the head of a request to the admin endpoints, and for idling between two.
pub const ADMIN_HEADER_TIMEOUT: Duration = Duration::from_secs(15);

/// The longest profile; what is noted is bounded by the stacks there are. Longer ones are refused.
pub const PROFILE_SECONDS_MAX: Duration = Duration::from_secs(60);

/// Stacks that a heap profile tells apart: 2 MB while it is taken. What is allocated by others is counted as dropped.
pub const HEAP_PROFILE_STACKS_MAX: usize = 4_096;

/// Samples of a heap profile that are not freed yet: some 8 GiB of memory, told of in 2 MB. Others are dropped likewise.
pub const HEAP_PROFILE_SAMPLES_MAX: usize = 16_384;

/// How long a connection to the admin endpoints may last: a reader that stalls must not keep
/// readiness probes out for ever.
pub const ADMIN_CONNECTION_TIMEOUT: Duration = Duration::from_secs(120);

/// Objects that `/acknowledged` lists. Beyond: they are counted in `left_out`, and the controller says of them that
/// it does not know. About 120 bytes each in the answer, 725 where names are as long as they may be, and less in memory.
pub const ACKNOWLEDGED_OBJECTS_MAX: usize = 20_000;

/// Size of one answer of a server of keys, in bytes. Beyond: the fetch fails.
pub const JWKS_BYTES_MAX: usize = 1024 * 1024;

/// Redirects followed for keys. Beyond: the fetch fails.
pub const JWKS_REDIRECTS_MAX: usize = 3;

/// Sources of keys of one configuration, each with a task of its own. Beyond: an error in the log, and
/// tokens of the rest are refused.
pub const JWKS_SOURCES_MAX: usize = 1_000;

/// How often keys are fetched, as istiod does.
pub const JWKS_REFRESH_INTERVAL: Duration = Duration::from_secs(1_200);

/// Time to the next fetch after one that failed; doubled with each further one.
pub const JWKS_RETRY_INTERVAL: Duration = Duration::from_secs(10);

/// Longest time to the next fetch after one that failed.
pub const JWKS_RETRY_INTERVAL_MAX: Duration = Duration::from_secs(300);

/// Keys are fetched for a token that names an unknown one, but not sooner after the last fetch: anybody
/// can make up such tokens.
pub const JWKS_ASKED_INTERVAL: Duration = Duration::from_secs(10);

/// How long the last good keys stay in force while fetching fails. Beyond: tokens are refused; a key
/// that its issuer withdrew must not be good for ever.
pub const JWKS_AGE_MAX: Duration = Duration::from_secs(86_400);

/// Keys of one rate limit with a bucket of their own. Beyond: they share one, which a metric counts. About
/// 100 bytes each, shared by all workers.
pub const RATE_LIMIT_KEYS_MAX: usize = 65_536;

/// How often full buckets of rate limits are dropped.
pub const RATE_LIMIT_SWEEP_INTERVAL: Duration = Duration::from_secs(10);

/// A value in a rate limit service's descriptor, in bytes. Beyond: cut, so that clients whose values
/// begin alike are counted as one. Descriptors have 128 values at most, and a header may be 60 KiB.
pub const RATE_LIMIT_VALUE_BYTES_MAX: usize = 1_024;

/// Checks that wait for one authorization or rate limit service, per worker. Beyond: 503, for a provider that fails
/// open too, since clients bring it about when they like. A slow service must not gather every request
/// there is. Nor are more connections dialled at once than such checks wait.
pub const EXT_AUTHZ_CHECKS_MAX: usize = 1_024;

/// Bodies of requests that are read, or held, for authorization services, per worker. Beyond: 503. Each
/// may take twice its 48 KiB, here and in the engine's buffer: 48 MiB in all.
pub const EXT_AUTHZ_BODIES_MAX: usize = 512;

/// Connections to one endpoint of an authorization service that are kept, per worker. Beyond: closed
/// after their answer.
pub const EXT_AUTHZ_IDLE_CONNECTIONS_MAX: usize = 64;

/// Header block of an authorization service's answer. Beyond: it can not be read,
/// and the request does not pass.
pub const EXT_AUTHZ_HEADER_BYTES_MAX: usize = 60 * 1024;

/// gRPC message of an authorization service. Beyond: the same.
pub const EXT_AUTHZ_MESSAGE_BYTES_MAX: usize = 256 * 1024;

/// Body of an authorization service's denial. Beyond: the client gets the denial without it.
pub const EXT_AUTHZ_DENIAL_BYTES_MAX: usize = 64 * 1024;

/// How long that body may take, once the denial is known. Beyond: the same.
pub const EXT_AUTHZ_DENIAL_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a body may take that an authorization service gets. Beyond: 408.
pub const EXT_AUTHZ_BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Addresses of one name that are endpoints. Beyond: the rest of the answer is left out, which is logged.
/// A request is balanced over all of them, and no one machine needs more.
pub const DNS_ADDRESSES_MAX: usize = 256;

/// Names of ServiceEntries that are looked up. Beyond: the rest stays unknown, and what needs it is
/// answered 503, which is logged. Each has a task and asks at least every [`DNS_TTL_MAX`].
pub const DNS_NAMES_MAX: usize = 4_096;

/// Names inside of wildcards whose addresses are known at once. Beyond: the one that was not asked for
/// for longest is forgotten; clients choose these names.
pub const DNS_REQUESTED_NAMES_MAX: usize = 1_024;

/// Names inside of wildcards that are known to have no address, each as long as its answer holds. Beyond:
/// the same. They have places of their own, for clients can make up as many as they like.
pub const DNS_ABSENT_NAMES_MAX: usize = 1_024;

/// Names inside of wildcards that are looked up for the first time. Beyond: answered 503.
pub const DNS_FIRST_LOOKUPS_MAX: usize = 256;

/// Questions for such names on their way to the thread that looks them up. Beyond: answered 503.
pub const DNS_QUESTIONS_WAITING_MAX: usize = 1_024;

/// How long one lookup may take, all servers together.
pub const DNS_TIMEOUT: Duration = Duration::from_secs(5);

/// An answer holds at least so long, whatever it says: DNS is not asked for each request.
pub const DNS_TTL_MIN: Duration = Duration::from_secs(1);

/// An answer is asked for again after this, whatever it says: a host that moves is followed.
pub const DNS_TTL_MAX: Duration = Duration::from_secs(300);

/// After a lookup without an answer the next one waits so long, then twice as long, to
/// [`DNS_RETRY_INTERVAL_MAX`].
pub const DNS_RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// See [`DNS_RETRY_INTERVAL`]. Also the longest that "there is no such name" is believed.
pub const DNS_RETRY_INTERVAL_MAX: Duration = Duration::from_secs(30);

/// As long as nobody answers, the last addresses are used to this age; then requests are answered 503.
pub const DNS_STALE_MAX: Duration = Duration::from_secs(3_600);

/// A name inside of a wildcard is forgotten when no request asked for it for so long.
pub const DNS_IDLE_TIMEOUT: Duration = Duration::from_secs(600);

/// Wait before a certificate is asked for again, then twice as long, to [`IDENTITY_BACK_OFF_MAX`]: Istio's
/// (specs/istio-waypoint.md 3). A tenth more or less, so that replicas do not come together.
pub const IDENTITY_BACK_OFF: Duration = Duration::from_millis(500);

/// See [`IDENTITY_BACK_OFF`].
pub const IDENTITY_BACK_OFF_MAX: Duration = Duration::from_secs(150);

/// One attempt to get a certificate from the CA, connecting included. Beyond: it has failed, as `connect`.
pub const CA_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);

/// A certificate is not renewed sooner than this after it came, however short its life is: who issues
/// certificates of a second must not be asked without end.
pub const CERTIFICATE_RENEWAL_MIN: Duration = Duration::from_secs(1);

/// Message and header block of an answer of the CA. Beyond: it can not be read.
pub const CA_ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// Certificates in an answer of the CA: a chain and roots, several while they change. Beyond: refused.
pub const CA_CERTIFICATES_MAX: usize = 64;

/// Token of the pod, in its file. Beyond: it is not sent; Kubernetes' have about 1 KiB.
pub const POD_TOKEN_BYTES_MAX: usize = 64 * 1024;

/// Resources (workloads and services) that istiod tells of. Beyond: refused by name, and what is known stays. Ten
/// clusters of ten thousand pods and their services.
pub const XDS_RESOURCES_MAX: usize = 200_000;

/// All of these resources, as they are sent. Beyond: refused by name. A pod has about 400 bytes.
pub const XDS_STATE_BYTES_MAX: usize = 128 * 1024 * 1024;

/// One answer of istiod. Beyond: the stream ends, as `refused`. Its first one has everything.
pub const XDS_MESSAGE_BYTES_MAX: usize = 160 * 1024 * 1024;

/// One of these resources. Beyond: refused by name; a workload behind a thousand services has 64 KiB.
pub const XDS_RESOURCE_BYTES_MAX: usize = 256 * 1024;

/// Name of a resource. Beyond: refused; a uid holds a few names of 253 bytes.
pub const XDS_NAME_BYTES_MAX: usize = 1024;

/// Identities that may answer for a service in other networks (`subjectAltNames`). Beyond: the service is refused by name.
/// Each request to a gateway compares them; a service has an account or a few.
pub const XDS_IDENTITIES_MAX: usize = 100;

/// Names and versions that are sent when a stream begins again. Beyond: none are, and everything is told anew; istiod
/// takes requests of up to 4 MiB.
pub const XDS_RESUME_BYTES_MAX: usize = 3 * 1024 * 1024;

/// Refused resources of one answer that are named to istiod and in the log; the rest is counted.
pub const XDS_REFUSED_TOLD_MAX: usize = 10;

/// How long what istiod tells of Pods of the own cluster waits for the API server to tell of them, too, which puts it in
/// force. Beyond: it is put in force by itself. What opens a tunnel to a Pod that is known does not wait.
pub const XDS_OWN_PODS_PAUSE: Duration = Duration::from_secs(10);

/// How long connecting to istiod, its first answer included, may take. Beyond: `late`, and it is tried again.
pub const XDS_FIRST_ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
