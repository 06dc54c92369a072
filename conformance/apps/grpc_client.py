"""A gRPC client on one channel: python grpc_client.py ADDRESS CALLS. Prints what it saw as JSON."""

import collections
import json
import sys

import grpc

ADDRESS, CALLS = sys.argv[1], int(sys.argv[2])
channel = grpc.insecure_channel(ADDRESS, options=[("grpc.default_authority", "orders.shop:9090")])

quote = channel.unary_unary("/shop.Orders/Quote")
servers = collections.Counter()
for at in range(CALLS):
    answer, call = quote.with_call(str(at).encode(), timeout=20, wait_for_ready=True)
    name, echoed = answer.decode().split(":")
    assert echoed == str(at)
    assert dict(call.trailing_metadata())["x-server"] == name
    servers[name] += 1

stream = channel.unary_stream("/shop.Orders/Count")(b"", timeout=20)
numbers = [message.decode() for message in stream]
stream_trailer = dict(stream.trailing_metadata()).get("x-server")


def status(method):
    try:
        channel.unary_unary(method)(b"", timeout=20)
    except grpc.RpcError as error:
        return [error.code().name, error.details(), dict(error.trailing_metadata() or ()).get("x-server")]
    return ["OK", "", None]


print(
    json.dumps(
        {
            "servers": servers,
            "numbers": numbers,
            "stream_trailer": stream_trailer,
            "fail": status("/shop.Orders/Fail"),
            "forbidden": status("/shop.Orders/Forbidden"),
        }
    )
)
