//! The Host of a request, as policy and the endpoint see it. What is refused is `http1_refused`'s.

use crate::frames::{Answered, END_STREAM, Frames};
use crate::mesh::{Mesh, RAW, status_word};

#[tokio::test]
async fn a_dot_at_the_end_of_host_is_left_out_for_policy_and_for_the_endpoint() {
    let mesh = Mesh::start().await;
    let deny = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
                metadata: {name: no-admin, namespace: shop}\nspec:\n  action: DENY\n  \
                targetRefs: [{group: \"\", kind: Service, name: raw}]\n  \
                rules: [{to: [{operation: {hosts: [admin.shop, \"admin.shop:8080\"]}}]}]\n";
    mesh.configure("no-admin", deny).await;
    let get = |target: &str, host: &str| {
        format!("GET {target} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n")
    };
    for (target, host, status) in [
        ("/", "admin.shop", "403"),
        ("/", "admin.shop.", "403"),
        ("/", "Admin.Shop.:8080", "403"),
        ("http://admin.shop./", "admin.shop.", "403"),
        ("/", "admin.shop..", "400"),
    ] {
        let answer = mesh.exchange(RAW, get(target, host)).await;
        assert_eq!(status_word(&answer), status, "{target} {host}: {answer:?}");
    }
    assert_eq!(mesh.raw.requests(), 0);
    for (host, forwarded) in [("web.shop.", "web.shop"), ("web.shop.:80", "web.shop:80")] {
        for target in ["/".to_owned(), format!("http://{host}/")] {
            let answer = mesh.exchange(RAW, get(&target, host)).await;
            assert_eq!(status_word(&answer), "200", "{target} {host}: {answer:?}");
            let request = mesh.raw.last().to_ascii_lowercase();
            let line = format!("\r\nhost: {forwarded}\r\n");
            assert!(request.contains(&line), "{request:?}");
            assert_eq!(
                request.matches(&format!("{host}\r\n")).count(),
                0,
                "{request:?}"
            );
        }
    }
    let fields = [
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", "admin.shop."),
    ];
    let mut frames = Frames::open(mesh.stream(RAW).await).await;
    frames.headers(1, END_STREAM, &fields).await;
    let answered = frames.answer(1).await;
    assert!(matches!(answered, Answered::Status(403)), "{answered:?}");
}
