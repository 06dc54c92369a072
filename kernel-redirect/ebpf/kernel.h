/* The few kernel interfaces the program uses, as include/uapi/linux/bpf.h numbers them; nothing of
 * Cairn's own. Written out so that a rebuild needs a compiler and no kernel or libbpf headers. */
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef int s32;

#define SEC(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))

/* Byte order: the object is built for little-endian hosts (-target bpfel). */
#define to_be16(x) ((u16)__builtin_bswap16(x))
#define to_be32(x) ((u32)__builtin_bswap32(x))

enum { MAP_HASH = 1, MAP_ARRAY = 2, MAP_PERCPU_ARRAY = 6, MAP_SOCKHASH = 18 };
enum { MAP_NO_PREALLOC = 1 };
enum { PIN_BY_NAME = 1 };
enum { TYPE_STREAM = 1 };
enum { STATE_LISTEN = 10 };

/* A map as aya reads it from the section "maps". */
struct map_definition {
    u32 type, key_size, value_size, max_entries, flags, id, pinning;
};

/* struct bpf_sock, as far as it is read. */
struct socket {
    u32 bound_dev_if, family, type, protocol, mark, priority;
    u32 src_ip4, src_ip6[4], src_port;
    u16 dst_port, zero;
    u32 dst_ip4, dst_ip6[4], state;
};

/* struct bpf_sock_addr: addresses and ports are in network byte order. */
struct socket_address {
    u32 user_family, user_ip4, user_ip6[4], user_port;
    u32 family, type, protocol, msg_src_ip4, msg_src_ip6[4];
    union {
        struct socket *sk;
        u64 : 64;
    } __attribute__((aligned(8)));
};

/* struct sockaddr_in6. */
struct address6 {
    u16 family, port;
    u32 flow, address[4], scope;
};
enum { FAMILY_INET6 = 10 };

static void *(*const map_lookup)(const void *map, const void *key) = (void *)1;
static long (*const bind_source)(void *context, void *address, int size) = (void *)64;
static u64 (*const current_cgroup_id)(void) = (void *)80;
static long (*const release_socket)(void *socket) = (void *)86;
static u64 (*const netns_cookie)(void *context) = (void *)122;
static u64 (*const ancestor_cgroup_id)(int level) = (void *)123;
static int (*const set_retval)(int value) = (void *)187;
