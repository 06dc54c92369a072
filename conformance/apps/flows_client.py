"""A client of Hubble's observer API, generated from its public protocol definition.

Reads one JSON object from stdin: {"tls": TLS, "calls": [{"method": "GetFlows", "request": {...}}, ...]}, in
protobuf's JSON form, and prints {"fields": [names of all fields of a filter], "answers": [...]}. An answer is
{"messages": [...], "metadata": {...}} or {"code": "INVALID_ARGUMENT", "details": "..."}. TLS is null, or {"ca",
"chain", "key"} (files) and "name" (that the server's certificate must have).

Usage: flows_client.py ADDRESS
"""

import json
import sys

import grpc
from google.protobuf import json_format

from flow import flow_pb2
from observer import observer_pb2
from peer import peer_pb2


def unary(channel, method, request, answer):
    call = channel.unary_unary(
        method,
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=answer.FromString,
    )
    response, call = call.with_call(request, timeout=20)
    return [response], call


def flows(channel, request):
    call = channel.unary_stream(
        "/observer.Observer/GetFlows",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=observer_pb2.GetFlowsResponse.FromString,
    )
    stream = call(request, timeout=20)
    return list(stream), stream


def notify(channel, request):
    """The first change: the stream itself has no end."""
    call = channel.unary_stream(
        "/peer.Peer/Notify",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=peer_pb2.ChangeNotification.FromString,
    )
    stream = call(request, timeout=20)
    return [next(stream)], stream


def answer(channel, method, request):
    names = {"GetFlows", "ServerStatus", "GetNodes", "GetNamespaces", "GetDebugEvents", "Notify"}
    if method not in names:
        raise SystemExit(f"unknown method {method}")
    messages_of = peer_pb2 if method == "Notify" else observer_pb2
    message = getattr(messages_of, f"{method}Request")()
    json_format.ParseDict(request, message)
    try:
        if method == "GetFlows":
            messages, call = flows(channel, message)
        elif method == "Notify":
            messages, call = notify(channel, message)
        else:
            path = f"/observer.Observer/{method}"
            response = getattr(observer_pb2, f"{method}Response")
            messages, call = unary(channel, path, message, response)
    except grpc.RpcError as error:
        return {"code": error.code().name, "details": error.details()}
    convert = json_format.MessageToDict
    return {
        "messages": [convert(m, preserving_proto_field_name=True) for m in messages],
        "metadata": {key: value for key, value in call.initial_metadata()},
    }


def dial(address, tls):
    if tls is None:
        return grpc.insecure_channel(address)
    ca, key, chain = (open(tls[name], "rb").read() for name in ("ca", "key", "chain"))
    named = [("grpc.ssl_target_name_override", tls["name"])]
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(ca, key, chain), options=named)


def main():
    asked = json.load(sys.stdin)
    with dial(sys.argv[1], asked["tls"]) as channel:
        answers = [answer(channel, call["method"], call["request"]) for call in asked["calls"]]
    fields = [field.name for field in flow_pb2.FlowFilter.DESCRIPTOR.fields]
    json.dump({"fields": fields, "answers": answers}, sys.stdout)


main()
