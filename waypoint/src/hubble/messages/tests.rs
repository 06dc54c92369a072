//! JSON as protobuf's own: names, numbers as strings, no defaults; and bytes that come back as they went.

use prost::Message;

use super::*;

#[test]
fn json_is_that_of_protobuf() {
    let flow = Flow {
        verdict: Verdict::Dropped as i32,
        drop_reason_desc: 200,
        ip: Some(Ip {
            source: "10.0.0.1".into(),
            ip_version: IpVersion::V4 as i32,
            ..Ip::default()
        }),
        l7: Some(Layer7 {
            r#type: L7FlowType::Response as i32,
            latency_ns: 1_500,
            record: Some(layer7::Record::Http(Http {
                code: 200,
                ..Http::default()
            })),
        }),
        is_reply: Some(false),
        r#type: FlowType::L7 as i32,
        summary: "s".into(),
        ..Flow::default()
    };
    let response = GetFlowsResponse {
        response_types: Some(get_flows_response::ResponseTypes::Flow(Box::new(flow))),
        node_name: "n".into(),
        time: Some(Timestamp {
            seconds: 1_793_795_696,
            nanos: 789_000_000,
        }),
    };
    assert_eq!(
        serde_json::to_value(&response).unwrap(),
        serde_json::json!({
            "flow": {
                "verdict": "DROPPED",
                "drop_reason_desc": 200,
                "IP": {"source": "10.0.0.1", "ipVersion": "IPv4"},
                "l7": {"type": "RESPONSE", "latency_ns": "1500", "http": {"code": 200}},
                "is_reply": false,
                "Type": "L7",
                "Summary": "s",
            },
            "node_name": "n",
            "time": "2026-11-04T12:34:56.789Z",
        })
    );
    let bytes = response.encode_to_vec();
    assert_eq!(GetFlowsResponse::decode(&bytes[..]).unwrap(), response);
}

#[test]
fn times_out_of_range_are_none() {
    for (seconds, nanos) in [(-1, 0), (0, -1), (0, 1_000_000_000)] {
        assert_eq!(Timestamp { seconds, nanos }.time(), None);
    }
}
