//! Paths that two parsers could read differently (issue 2 item 8, strict mode): what the endpoint
//! sees is what policy saw, or nobody sees anything.

use crate::mesh::{Mesh, RAW, answers, status_word};

/// What the endpoint sees of each, if it sees it.
const NORMALISED: [(&str, &str); 30] = [
    ("/", "/"),
    ("/a/b?c=d", "/a/b?c=d"),
    ("//a///b", "/a/b"),
    ("/a/./b", "/a/b"),
    ("/a/../b", "/b"),
    ("/a/%2e/b", "/a/b"),
    ("/a/%2e%2e/b", "/b"),
    ("/a/%2E%2e/b", "/b"),
    ("/a/.%2e/b", "/b"),
    ("/a/b/..", "/a/"),
    ("/a/b/.", "/a/b/"),
    ("/a/b/../", "/a/"),
    ("/%61%7Eb", "/a~b"),
    ("/%41%2D%5f", "/A-_"),
    ("/a%20b", "/a%20b"),
    ("/a%c3%a9", "/a%C3%A9"),
    ("/a/...", "/a/..."),
    ("/a/..b", "/a/..b"),
    ("/a;v=1/b", "/a;v=1/b"),
    ("/a?x=//y/../z%2F%00", "/a?x=//y/../z%2F%00"),
    ("/a//?//", "/a/?//"),
    ("/A/B", "/A/B"),
    // RFC 3986 5.2.4: there is nothing above the root.
    ("/..", "/"),
    ("/../a", "/a"),
    ("/a/../../b", "/b"),
    ("/%2e%2e/a", "/a"),
    // The engine escapes what no target may hold before anybody looks at it.
    ("/a b", "/a%20b"),
    ("/a\"b", "/a\"b"),
    // Bytes that stay escaped can not be taken for anything else.
    ("/a%0d%0ab", "/a%0D%0Ab"),
    ("/a%7fb", "/a%7Fb"),
];

/// What nobody sees.
const REFUSED: [&str; 20] = [
    "/a%2Fb",
    "/a%2fb",
    "/a%5Cb",
    "/a%5cb",
    "/a\\b",
    "/a/..\\b",
    "/a%00b",
    "/a%00",
    "/a/..;/b",
    "/a/..;x=y/b",
    "/a/.;/b",
    "/a/%2e%2e;/b",
    "/a%zz",
    "/a%2",
    "/a%",
    "/a%252e%252e/b%",
    "/a/%2e%2e%2fb",
    "/a#fragment",
    "a",
    "*",
];

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: raw.shop\r\nconnection: close\r\n\r\n")
}

#[tokio::test]
async fn the_endpoint_sees_the_normalised_path() {
    let mesh = Mesh::start().await;
    let mut wrong = Vec::new();
    for (sent, seen) in NORMALISED {
        let answer = mesh.exchange(RAW, get(sent)).await;
        let request = mesh.raw.last();
        let line = request.lines().next().unwrap_or_default();
        if status_word(&answer) != "200" || line != format!("GET {seen} HTTP/1.1") {
            wrong.push(format!("{sent}: {line:?}, {answer:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_path_that_could_be_read_in_two_ways_is_a_400() {
    let mesh = Mesh::start().await;
    let mut wrong = Vec::new();
    for sent in REFUSED {
        let answer = mesh.exchange(RAW, get(sent)).await;
        if status_word(&answer) != "400" || answers(&answer) != 1 {
            wrong.push(format!("{sent}: {answer:?}"));
        }
    }
    let seen = mesh.raw.seen();
    assert!(wrong.is_empty(), "{}\n{seen}", wrong.join("\n"));
    assert_eq!(seen, "");
}

#[tokio::test]
async fn a_line_break_before_the_request_hides_no_fragment() {
    let mesh = Mesh::start().await;
    for breaks in ["\r\n", "\n", "\r\n\r\n"] {
        let request = format!("{breaks}{}", get("/a#/../b"));
        let answer = mesh.exchange(RAW, request).await;
        assert_eq!(status_word(&answer), "400", "{breaks:?}: {answer:?}");
    }
    assert_eq!(mesh.raw.seen(), "");
}

#[tokio::test]
async fn no_spelling_of_a_denied_path_gets_through() {
    let mesh = Mesh::start().await;
    let deny = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
                metadata: {name: deny-admin, namespace: shop}\nspec:\n  action: DENY\n  \
                targetRefs: [{group: \"\", kind: Service, name: raw}]\n  \
                rules: [{to: [{operation: {paths: [/admin, /admin/*]}}]}]\n";
    mesh.configure("deny-admin", deny).await;
    for path in [
        "/admin",
        "/admin/",
        "//admin",
        "/./admin",
        "/x/../admin",
        "/x/%2e%2e/admin",
        "/%61dmin",
        "/admin?x",
        "/admin/users",
        "/admin//users",
        "/admin/./users",
        "/public/../admin/users",
        "/admin%2fusers",
        "/admin%5cusers",
        // To a servlet these are /admin and /admin/users.
        "/admin;x",
        "/admin;x/users",
        "/;x/admin",
        "/admin/..;/users",
        "/..;/admin",
        "/admin%00",
        "/%2561dmin/../admin",
        "http://raw.shop/admin",
        "HTTP://raw.shop//admin",
        "http://raw.shop/x/../admin",
        "/admin#x",
        "/admin\\users",
        "\\admin",
    ] {
        let answer = mesh.exchange(RAW, get(path)).await;
        let status = status_word(&answer);
        assert!(status == "403" || status == "400", "{path}: {answer:?}");
    }
    assert_eq!(mesh.raw.seen(), "");
}
