"""A gRPC server of three methods without a .proto: python grpc_server.py ADDRESS NAME.

Quote answers with its name, Count streams three numbers, Fail ends with NOT_FOUND and a trailer.
"""

import sys
from concurrent import futures

import grpc

ADDRESS, NAME = sys.argv[1:]


def quote(request, context):
    context.set_trailing_metadata((("x-server", NAME),))
    return NAME.encode() + b":" + request


def count(_request, context):
    context.set_trailing_metadata((("x-server", NAME),))
    for number in range(3):
        yield str(number).encode()


def fail(_request, context):
    context.set_trailing_metadata((("x-server", NAME),))
    context.abort(grpc.StatusCode.NOT_FOUND, "no such order")


class Orders(grpc.GenericRpcHandler):
    def service(self, details):
        return {
            "/shop.Orders/Quote": grpc.unary_unary_rpc_method_handler(quote),
            "/shop.Orders/Count": grpc.unary_stream_rpc_method_handler(count),
            "/shop.Orders/Fail": grpc.unary_unary_rpc_method_handler(fail),
        }.get(details.method)


server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
server.add_generic_rpc_handlers((Orders(),))
server.add_insecure_port(ADDRESS)
server.start()
server.wait_for_termination()
