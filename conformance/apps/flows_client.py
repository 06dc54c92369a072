"""A client of Hubble's observer API, generated from its public protocol definition.

Reads one JSON object from stdin: {"calls": [{"method": "GetFlows", "request": {...}}, ...]}, in protobuf's
JSON form, and prints {"fields": [names of all fields of a filter], "answers": [...]}. An answer is
{"messages": [...], "metadata": {...}} or {"code": "INVALID_ARGUMENT", "details": "..."}.

Usage: flows_client.py ADDRESS
"""

import json
import sys

import grpc
from google.protobuf import json_format

from flow import flow_pb2
from observer import observer_pb2


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


def answer(channel, method, request):
    names = {"GetFlows", "ServerStatus", "GetNodes", "GetNamespaces", "GetDebugEvents"}
    if method not in names:
        raise SystemExit(f"unknown method {method}")
    message = getattr(observer_pb2, f"{method}Request")()
    json_format.ParseDict(request, message)
    try:
        if method == "GetFlows":
            messages, call = flows(channel, message)
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


def main():
    calls = json.load(sys.stdin)["calls"]
    with grpc.insecure_channel(sys.argv[1]) as channel:
        answers = [answer(channel, call["method"], call["request"]) for call in calls]
    fields = [field.name for field in flow_pb2.FlowFilter.DESCRIPTOR.fields]
    json.dump({"fields": fields, "answers": answers}, sys.stdout)


main()
