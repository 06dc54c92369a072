//! What the authorization service says over gRPC, by a word in the path.

use cairn_waypoint::external::messages::{
    BoolValue, CheckResponse, DeniedHttpResponse, HeaderValue, HeaderValueOption, HttpResponse,
    HttpStatus, OkHttpResponse, QueryParameter, Status,
};

/// The answer about a path.
pub(super) fn response(path: &str) -> Result<CheckResponse, tonic::Status> {
    let has = |word: &str| path.contains(word);
    if has("error") {
        return Err(tonic::Status::unknown("broken\n"));
    }
    let odd = [
        ("xfcc", "x-forwarded-client-cert", "By=spiffe://a/b"),
        ("pseudo", ":path", "/elsewhere"),
        ("host", "host", "elsewhere"),
        ("framing", "transfer-encoding", "chunked"),
        ("newline", "x-user", "a\r\nx-admin: yes"),
    ];
    if let Some((_, name, value)) = odd.iter().find(|(word, ..)| has(word)) {
        return Ok(setting(name, value));
    }
    Ok(if has("deny") {
        refusal(16, Some(HttpResponse::Denied(denial(401))))
    } else if has("bare") {
        refusal(7, None)
    } else if has("undecided") {
        refusal(14, Some(HttpResponse::Error(denial(503))))
    } else if has("empty") {
        CheckResponse::default()
    } else if has("both") {
        CheckResponse {
            http_response: Some(HttpResponse::Denied(denial(403))),
            ..ok(OkHttpResponse::default())
        }
    } else if has("huge") {
        setting("x-huge", &"x".repeat(1024 * 1024))
    } else if has("query") {
        changed_query()
    } else if has("response") {
        ok(OkHttpResponse {
            response_headers_to_add: vec![
                option("x-seen", "1", None, 0),
                option("server", "mine", None, 2),
            ],
            ..OkHttpResponse::default()
        })
    } else if has("append") {
        every_append_action()
    } else {
        setting("x-user", "alice")
    })
}

fn option(name: &str, value: &str, append: Option<bool>, append_action: i32) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue {
            key: name.to_owned(),
            value: value.to_owned(),
            raw_value: Vec::new(),
        }),
        append: append.map(|value| BoolValue { value }),
        append_action,
    }
}

fn ok(ok: OkHttpResponse) -> CheckResponse {
    CheckResponse {
        status: Some(Status::default()),
        http_response: Some(HttpResponse::Ok(ok)),
    }
}

fn setting(name: &str, value: &str) -> CheckResponse {
    ok(OkHttpResponse {
        headers: vec![option(name, value, None, 2)],
        ..OkHttpResponse::default()
    })
}

fn refusal(code: i32, http_response: Option<HttpResponse>) -> CheckResponse {
    CheckResponse {
        status: Some(Status {
            code,
            message: String::new(),
        }),
        http_response,
    }
}

fn denial(code: i32) -> DeniedHttpResponse {
    DeniedHttpResponse {
        status: Some(HttpStatus { code }),
        headers: vec![
            option("x-why", "because", None, 2),
            option("content-length", "99999", None, 2),
        ],
        body: "no, 100%".to_owned(),
    }
}

fn changed_query() -> CheckResponse {
    ok(OkHttpResponse {
        query_parameters_to_set: vec![QueryParameter {
            key: "user".to_owned(),
            value: "alice".to_owned(),
        }],
        query_parameters_to_remove: vec!["secret".to_owned()],
        ..OkHttpResponse::default()
    })
}

fn every_append_action() -> CheckResponse {
    ok(OkHttpResponse {
        headers: vec![
            option("x-default", "new", None, 0),
            option("x-append", "new", Some(true), 0),
            option("x-set", "new", Some(false), 0),
            option("x-absent", "new", None, 1),
            option("x-kept", "new", None, 1),
            option("x-replace", "new", None, 2),
            option("x-there", "new", None, 3),
            option("x-not-there", "new", None, 3),
        ],
        headers_to_remove: vec!["x-gone".to_owned()],
        ..OkHttpResponse::default()
    })
}
