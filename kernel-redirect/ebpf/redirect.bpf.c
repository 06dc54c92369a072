/* Steers connect() to an L7-flagged service to the listener in the caller's network namespace, and
 * shows the dialled address to getpeername(). It sees no packet and keeps nothing per connection:
 * which service was meant is written in the loopback address that the connection arrives at.
 *
 * Layout 2. kernel-redirect/src/layout.rs has the other half of every structure here; whoever
 * changes one raises LAYOUT there and changes both. */
#include "kernel.h"

/* An address as every map has it: IPv6, or IPv4 mapped into it. Words in network byte order. */
struct endpoint {
    u32 address[4];
    u16 port;
    u16 zero;
};

struct service {
    u32 slot;
    u32 flags;
};
enum { SERVICE_FAIL_OPEN = 1 };

/* Where the connections of one pod are steered: slot 0 of the range, and the port. */
struct pod {
    u32 range; /* host byte order */
    u16 port;  /* network byte order */
    u16 flags;
};
enum { POD_HAS_IPV6_SLOTS = 1, POD_IN_HOST = 2 };

/* A pod is known by the cookie of its network namespace, or, if its listener is in the host's, by the
 * id of its cgroup with this bit. */
#define BY_CGROUP (1ull << 63)
/* Folders between the root of the cgroups and that of a pod, which counts. Deeper ones are not
 * enrolled (src/host.rs). */
#define CGROUP_DEPTH 12

struct about {
    u64 own_cgroup;
    u32 features;
    u32 by_cgroup; /* whether there are pods that are known by their cgroup */
};

enum counter {
    STEERED,       /* sent to the listener */
    REFUSED,       /* no listener, fail-closed */
    OPENED,        /* no listener, fail-open: went direct */
    UNREACHABLE,   /* bound to a device that does not reach loopback; also one of the two above */
    NOT_ENROLLED,  /* from a network namespace that is not enrolled: went direct */
    OWN,           /* the proxy's own connections: went direct */
    COUNTERS
};

struct map_definition cairn_services SEC("maps") = {
    .type = MAP_HASH, .key_size = sizeof(struct endpoint), .value_size = sizeof(struct service),
    .max_entries = 65536, .flags = MAP_NO_PREALLOC, .pinning = PIN_BY_NAME,
};
struct map_definition cairn_slots SEC("maps") = {
    .type = MAP_HASH, .key_size = sizeof(u32), .value_size = sizeof(struct endpoint),
    .max_entries = 65536, .flags = MAP_NO_PREALLOC, .pinning = PIN_BY_NAME,
};
struct map_definition cairn_pods SEC("maps") = {
    .type = MAP_HASH, .key_size = sizeof(u64), .value_size = sizeof(struct pod),
    .max_entries = 4096, .flags = MAP_NO_PREALLOC, .pinning = PIN_BY_NAME,
};
/* Listening sockets. The kernel takes one out when its last descriptor closes, so that an entry
 * means that somebody can accept. */
struct map_definition cairn_listeners SEC("maps") = {
    .type = MAP_SOCKHASH, .key_size = sizeof(u64), .value_size = sizeof(u32),
    .max_entries = 4096, .pinning = PIN_BY_NAME,
};
struct map_definition cairn_counters SEC("maps") = {
    .type = MAP_PERCPU_ARRAY, .key_size = sizeof(u32), .value_size = sizeof(u64),
    .max_entries = COUNTERS, .pinning = PIN_BY_NAME,
};
struct map_definition cairn_about SEC("maps") = {
    .type = MAP_ARRAY, .key_size = sizeof(u32), .value_size = sizeof(struct about),
    .max_entries = 1, .pinning = PIN_BY_NAME,
};

/* Set by the loader. Without the helper a refusal is the kernel's EPERM: the verifier drops the
 * call, which older kernels would not load. */
volatile const u32 may_set_retval = 1;

enum { ERROR_CONNECTION_REFUSED = 111, LOOPBACK_INDEX = 1 };
enum { REFUSE = 0, GO = 1 };
#define V4_MAPPED to_be32(0x0000ffff)
#define SLOT_RANGE 0x7f800000 /* 127.128.0.0/9 */
#define HOST_SLOT_RANGE 0xf0800000 /* 240.128.0.0/9 */
#define SLOT_RANGE_MASK 0xff800000
/* fd63:6169:726e::/96, which is routed to loopback in the pods' namespaces, or in the host's. */
#define SLOT6_FIRST to_be32(0xfd636169)
#define SLOT6_SECOND to_be32(0x726e0000)

INLINE void count(u32 which)
{
    u64 *value = map_lookup(&cairn_counters, &which);
    if (value)
        *value += 1; /* of this CPU */
}

/* The pod that connects, and what it is known by. */
INLINE struct pod *enrolled(struct socket_address *context, const struct about *about, u64 *key)
{
    *key = netns_cookie(context);
    struct pod *pod = map_lookup(&cairn_pods, key);
    if (pod || !about || !about->by_cgroup)
        return pod;
    for (int level = 1; level <= CGROUP_DEPTH; level++) {
        u64 cgroup = ancestor_cgroup_id(level);
        if (!cgroup)
            return 0;
        *key = cgroup | BY_CGROUP;
        pod = map_lookup(&cairn_pods, key);
        if (pod)
            return pod;
    }
    return 0;
}

/* Whether the pod's listener can be reached and accepts. A slot in the pod is reached through
 * loopback, one in the host's namespace through any other device. */
INLINE int listens(struct socket_address *context, const struct pod *pod, u64 key)
{
    struct socket *own = context->sk;
    int by_loopback = !(pod->flags & POD_IN_HOST);
    if (own && own->bound_dev_if != 0 && (own->bound_dev_if == LOOPBACK_INDEX) != by_loopback) {
        count(UNREACHABLE);
        return 0;
    }
    struct socket *listener = map_lookup(&cairn_listeners, &key);
    if (!listener)
        return 0;
    int yes = listener->state == STATE_LISTEN;
    release_socket(listener);
    return yes;
}

/* What becomes of a flagged connection: GO with `*pod` set to where, GO without, or REFUSE. */
INLINE int judge(struct socket_address *context, const struct service *service, struct pod **pod)
{
    struct about *about = map_lookup(&cairn_about, &(u32){0});
    if (about && current_cgroup_id() == about->own_cgroup) {
        count(OWN);
        return GO;
    }
    u64 key;
    struct pod *entry = enrolled(context, about, &key);
    if (!entry) {
        count(NOT_ENROLLED);
        return GO;
    }
    if (listens(context, entry, key)) {
        count(STEERED);
        *pod = entry;
        return GO;
    }
    if (service->flags & SERVICE_FAIL_OPEN) {
        count(OPENED);
        return GO;
    }
    count(REFUSED);
    if (may_set_retval)
        set_retval(-ERROR_CONNECTION_REFUSED);
    return REFUSE;
}

SEC("cgroup/connect4")
int cairn_connect4(struct socket_address *context)
{
    if (context->type != TYPE_STREAM)
        return GO;
    struct endpoint to = {
        .address = {0, 0, V4_MAPPED, context->user_ip4}, .port = (u16)context->user_port};
    struct service *service = map_lookup(&cairn_services, &to);
    if (!service)
        return GO;
    struct pod *pod = 0;
    int verdict = judge(context, service, &pod);
    if (pod) {
        context->user_ip4 = to_be32(pod->range + service->slot);
        context->user_port = pod->port;
    }
    return verdict;
}

/* Whether the connection can go to an IPv6 slot. To one in the pod from loopback's address only, because
 * the answer of a listener that is bound to loopback finds no way to another one (in IPv4 loopback is
 * the source by itself); a socket that was bound before keeps its source. To one in the host from
 * every address the pod has. */
INLINE int reaches_slot6(struct socket_address *context, const struct pod *pod)
{
    struct socket *own = context->sk;
    if (!(pod->flags & POD_HAS_IPV6_SLOTS))
        return 0;
    if (pod->flags & POD_IN_HOST)
        return 1;
    if (!own || own->src_port != 0)
        return 0;
    struct address6 loopback = {.family = FAMILY_INET6, .address = {0, 0, 0, to_be32(1)}};
    return bind_source(context, &loopback, sizeof(loopback)) == 0;
}

/* IPv6 destinations get an IPv6 slot, which IPV6_V6ONLY sockets reach too; IPv4-mapped ones, and all
 * where that can not be, an IPv4 one, which the kernel refuses to sockets that are IPv6 only. */
SEC("cgroup/connect6")
int cairn_connect6(struct socket_address *context)
{
    if (context->type != TYPE_STREAM)
        return GO;
    struct endpoint to = {
        .address = {context->user_ip6[0], context->user_ip6[1], context->user_ip6[2],
                    context->user_ip6[3]},
        .port = (u16)context->user_port};
    struct service *service = map_lookup(&cairn_services, &to);
    if (!service)
        return GO;
    struct pod *pod = 0;
    int verdict = judge(context, service, &pod);
    if (pod) {
        int mapped = to.address[0] == 0 && to.address[1] == 0 && to.address[2] == V4_MAPPED;
        if (!mapped && reaches_slot6(context, pod)) {
            context->user_ip6[0] = SLOT6_FIRST;
            context->user_ip6[1] = SLOT6_SECOND;
            context->user_ip6[2] = 0;
            context->user_ip6[3] = to_be32(service->slot);
        } else {
            context->user_ip6[0] = 0;
            context->user_ip6[1] = 0;
            context->user_ip6[2] = V4_MAPPED;
            context->user_ip6[3] = to_be32(pod->range + service->slot);
        }
        context->user_port = pod->port;
    }
    return verdict;
}

/* The pod, if a peer's port is that of its listener. */
INLINE struct pod *listening_on(struct socket_address *context)
{
    u64 key;
    struct pod *pod = enrolled(context, map_lookup(&cairn_about, &(u32){0}), &key);
    return pod && pod->port == (u16)context->user_port ? pod : 0;
}

/* The service that a peer's IPv4 address stands for, or none. */
INLINE struct endpoint *dialled(struct socket_address *context, u32 address)
{
    u32 host = to_be32(address), range = host & SLOT_RANGE_MASK;
    if (range != SLOT_RANGE && range != HOST_SLOT_RANGE)
        return 0;
    struct pod *pod = listening_on(context);
    if (!pod || pod->range != range)
        return 0;
    u32 slot = host - pod->range;
    return map_lookup(&cairn_slots, &slot);
}

/* The service that a peer's IPv6 address stands for, or none. */
INLINE struct endpoint *dialled6(struct socket_address *context)
{
    u32 first = context->user_ip6[0], second = context->user_ip6[1];
    u32 third = context->user_ip6[2], last = context->user_ip6[3];
    if (first == 0 && second == 0 && third == V4_MAPPED)
        return dialled(context, last);
    if (first != SLOT6_FIRST || second != SLOT6_SECOND || third != 0 || !listening_on(context))
        return 0;
    u32 slot = to_be32(last);
    return map_lookup(&cairn_slots, &slot);
}

SEC("cgroup/getpeername4")
int cairn_getpeername4(struct socket_address *context)
{
    struct endpoint *service = dialled(context, context->user_ip4);
    if (service) {
        context->user_ip4 = service->address[3];
        context->user_port = service->port;
    }
    return GO;
}

SEC("cgroup/getpeername6")
int cairn_getpeername6(struct socket_address *context)
{
    struct endpoint *service = dialled6(context);
    if (service) {
        context->user_ip6[0] = service->address[0];
        context->user_ip6[1] = service->address[1];
        context->user_ip6[2] = service->address[2];
        context->user_ip6[3] = service->address[3];
        context->user_port = service->port;
    }
    return GO;
}

/* No GPL-only helper is used. */
const char cairn_license[] SEC("license") = "Apache-2.0";
