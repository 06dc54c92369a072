//! Who may do what: the policies of the demo, and paths that try to get around them.

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Method};

use super::{Tour, Who};

impl Tour<'_> {
    pub(super) async fn policy(&mut self) -> anyhow::Result<()> {
        let seen = self.get(Who::Frontend, "/items").await?;
        let ok = seen.status() == 200 && seen.app() == "web-v1";
        self.tell(
            "shop/frontend GET /items",
            "200 from web-v1",
            seen.words(),
            ok,
        );

        let seen = self.get(Who::Visitor, "/items").await?;
        let ok = seen.status() == 403 && seen.logged("reason").contains("nearest allow is");
        self.tell(
            "guest/visitor GET /items",
            "403, and the ALLOW rule that came nearest",
            seen.words(),
            ok,
        );

        let seen = self
            .ask(Who::Frontend, Method::POST, "/items", HeaderMap::new())
            .await?;
        let ok = seen.status() == 403 && seen.logged("reason").contains("method POST");
        self.tell(
            "shop/frontend POST /items",
            "403, for the method",
            seen.words(),
            ok,
        );

        let seen = self.get(Who::Frontend, "/admin/users").await?;
        let policy = "AuthorizationPolicy/shop/no-admin";
        let ok = seen.status() == 403 && seen.logged("policy") == policy;
        self.tell(
            "shop/frontend GET /admin/users",
            "403 by the DENY policy no-admin",
            seen.words(),
            ok,
        );

        let grpc =
            HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/grpc"))]);
        let seen = self
            .ask(Who::Visitor, Method::POST, "/shop.Items/List", grpc)
            .await?;
        let ok = seen.status() == 200 && seen.header("grpc-status") == "7";
        self.tell(
            "guest/visitor gRPC call over HTTP/2",
            "grpc-status 7, as gRPC tells a denial",
            seen.words(),
            ok,
        );
        Ok(())
    }

    pub(super) async fn paths(&mut self) -> anyhow::Result<()> {
        let seen = self.get(Who::Frontend, "/items/..%2fadmin/users").await?;
        let sent = "shop/frontend GET /items/..%2fadmin/users";
        self.tell(
            sent,
            "400, before any policy is asked",
            seen.words(),
            seen.status() == 400,
        );

        let seen = self.get(Who::Frontend, "//admin/./users").await?;
        let ok = seen.status() == 403 && seen.logged("policy").ends_with("/no-admin");
        self.tell(
            "shop/frontend GET //admin/./users",
            "403: policy sees /admin/users",
            seen.words(),
            ok,
        );
        Ok(())
    }
}
