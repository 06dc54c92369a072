/* The rival of tc and sk_assign: hands packets for a steered service to the socket they belong to, for
 * every packet that comes in by the pod's link. Benchmarks only; nothing of it is in Cairn. */
typedef unsigned char uint8_t;
typedef unsigned short uint16_t;
typedef unsigned int uint32_t;
typedef unsigned long long uint64_t;

#define SEC(name) __attribute__((section(name), used))

/* struct __sk_buff, as far as it is read. */
struct packet {
    uint32_t skip[19];
    uint32_t data, data_end;
};
struct tuple4 {
    uint32_t source, destination;
    uint16_t source_port, destination_port;
};

static void *(*const find_tcp)(void *packet, void *tuple, uint32_t size, uint64_t netns, uint64_t flags) = (void *)99;
static long (*const release)(void *socket) = (void *)86;
static long (*const assign)(void *packet, void *socket, uint64_t flags) = (void *)124;

enum { OK = 0, IPV4 = 0x0008 /* 0x0800 in network byte order */, TCP = 6, ETHERNET_BYTES = 14 };
#define SLOTS 0x000080f0u /* 240.128.0.0/9 in network byte order */
#define SLOTS_MASK 0x000080ffu
#define THIS_NAMESPACE (-1LL)

SEC("tc")
int steer(struct packet *packet)
{
    uint8_t *at = (uint8_t *)(uint64_t)packet->data, *end = (uint8_t *)(uint64_t)packet->data_end;
    if (at + ETHERNET_BYTES + 20 + 4 > end || *(uint16_t *)(at + 12) != IPV4)
        return OK;
    uint8_t *ip = at + ETHERNET_BYTES;
    if (ip[0] != 0x45 || ip[9] != TCP)
        return OK;
    struct tuple4 tuple;
    tuple.source = *(uint32_t *)(ip + 12);
    tuple.destination = *(uint32_t *)(ip + 16);
    tuple.source_port = *(uint16_t *)(ip + 20);
    tuple.destination_port = *(uint16_t *)(ip + 22);
    if ((tuple.destination & SLOTS_MASK) != SLOTS)
        return OK;
    void *socket = find_tcp(packet, &tuple, sizeof(tuple), THIS_NAMESPACE, 0);
    if (!socket)
        return OK;
    assign(packet, socket, 0);
    release(socket);
    return OK;
}

const char gpl[] SEC("license") = "GPL";
