//! The tour: what is sent, what should come, what comes. Each line goes over real sockets through the
//! real waypoint; the reasons it shows are those of the access log.

mod ask;

use std::time::{Duration, Instant};

use anyhow::Context;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, LOCATION};
use http::{HeaderMap, Method, StatusCode};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

use self::ask::{Seen, send};
use super::lab::{Client, Lab, POLICIES};
use super::log::Log;
use super::table::Line;
use crate::client::{ClientError, HttpClient};

/// Virtual IP and port of the service `web`.
pub const WEB: &str = "10.96.0.10:80";

/// Virtual IP and port of the service `db`.
pub const DB: &str = "10.96.0.20:5432";

/// How many requests show the canary's shares, and between which numbers its part must be: ten per
/// cent, give or take what once in a hundred thousand tours chance would exceed.
const CANARY_REQUESTS: u32 = 200;
const CANARY_PART: std::ops::RangeInclusive<u32> = 4..=42;

/// How many requests follow the death of an endpoint.
const REQUESTS_AFTER_DEATH: u32 = 20;

/// How long a saved change may take; the goal is 200 ms, for thousands of objects.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(5);

/// Pause between looks whether a change is in force.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);

/// Runs the tour and shows each line as it comes. Leaves the mesh as it was. `Ok(true)`: every line is
/// as expected.
///
/// # Errors
/// When the tour itself can not go on: the waypoint can not be reached, a file not be saved.
pub async fn tour(
    lab: &mut Lab,
    log: &mut Log,
    show: &mut (dyn FnMut(&Line) + Send),
) -> anyhow::Result<bool> {
    let mut tour = Tour {
        frontend: lab.client("shop", "frontend").await?,
        visitor: lab.client("guest", "visitor").await?,
        asked: 0,
        all_ok: true,
        lab,
        log,
        show,
    };
    tour.policy().await?;
    tour.paths().await?;
    tour.routes().await?;
    tour.tcp().await?;
    tour.strangers().await?;
    tour.death().await?;
    tour.reload().await?;
    Ok(tour.all_ok)
}

struct Tour<'a> {
    lab: &'a mut Lab,
    log: &'a mut Log,
    show: &'a mut (dyn FnMut(&Line) + Send),
    frontend: Client,
    visitor: Client,
    asked: u32,
    all_ok: bool,
}

/// Who asks.
#[derive(Clone, Copy)]
enum Who {
    Frontend,
    Visitor,
}

impl Tour<'_> {
    fn tell(&mut self, sent: &str, expected: &str, got: String, ok: bool) {
        self.all_ok &= ok;
        (self.show)(&Line {
            sent: sent.to_owned(),
            expected: expected.to_owned(),
            got,
            ok,
        });
    }

    fn client(&self, who: Who) -> &Client {
        match who {
            Who::Frontend => &self.frontend,
            Who::Visitor => &self.visitor,
        }
    }

    /// Sends one request to `web` over a stream of its own.
    async fn ask(
        &mut self,
        who: Who,
        method: Method,
        path: &str,
        headers: HeaderMap,
    ) -> anyhow::Result<Seen> {
        let grpc = headers.contains_key(CONTENT_TYPE);
        let mut http = self.client(who).http(WEB, grpc).await?;
        self.ask_over(&mut http, method, path, headers).await
    }

    async fn ask_over(
        &mut self,
        http: &mut HttpClient,
        method: Method,
        path: &str,
        headers: HeaderMap,
    ) -> anyhow::Result<Seen> {
        self.asked += 1;
        let id = format!("demo-{}", self.asked);
        let response = send(http, method, path, headers, &id).await?;
        let log = self.log.line("request_id", &id).await.unwrap_or_default();
        Ok(Seen { response, log })
    }

    async fn get(&mut self, who: Who, path: &str) -> anyhow::Result<Seen> {
        self.ask(who, Method::GET, path, HeaderMap::new()).await
    }

    async fn policy(&mut self) -> anyhow::Result<()> {
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

    async fn paths(&mut self) -> anyhow::Result<()> {
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

    async fn routes(&mut self) -> anyhow::Result<()> {
        let seen = self.get(Who::Frontend, "/nowhere").await?;
        self.tell(
            "shop/frontend GET /nowhere",
            "404, no route matches",
            seen.words(),
            seen.status() == 404,
        );
        self.canary().await?;

        let secret = (
            HeaderName::from_static("x-secret"),
            HeaderValue::from_static("1"),
        );
        let seen = self
            .ask(
                Who::Frontend,
                Method::GET,
                "/legacy/7?full=1",
                HeaderMap::from_iter([secret]),
            )
            .await?;
        let body = seen.body();
        let target = body.lines().nth(1).unwrap_or_default();
        let ok = target.starts_with("GET /items/7?full=1 ")
            && body.contains("x-shop: legacy")
            && !body.contains("x-secret")
            && seen.header("x-served-by") == "cairn";
        let got = format!("{target}, x-served-by: {}", seen.header("x-served-by"));
        let expected = "path becomes /items/7?full=1; headers set and removed both ways";
        self.tell("shop/frontend GET /legacy/7?full=1", expected, got, ok);

        let seen = self.get(Who::Frontend, "/old").await?;
        let location = seen.header(LOCATION.as_str()).to_owned();
        let ok = seen.status() == 301 && location == "http://web.shop/items";
        let got = format!("{} to {location}", seen.status());
        self.tell(
            "shop/frontend GET /old",
            "301 to http://web.shop/items",
            got,
            ok,
        );
        Ok(())
    }

    async fn canary(&mut self) -> anyhow::Result<()> {
        let mut http = self.frontend.http(WEB, false).await?;
        let (mut v1, mut v2, mut other) = (0, 0, 0);
        for _ in 0..CANARY_REQUESTS {
            let sent = send(
                &mut http,
                Method::GET,
                "/canary",
                HeaderMap::new(),
                "canary",
            );
            let response = sent.await?;
            let log = Value::Null;
            let seen = Seen { response, log };
            match (seen.status(), seen.app().as_str()) {
                (200, "web-v1") => v1 += 1,
                (200, "web-v2") => v2 += 1,
                _ => other += 1,
            }
        }
        let sent = format!("shop/frontend {CANARY_REQUESTS} x GET /canary");
        let mut got = format!("{v1} from web-v1, {v2} from web-v2");
        if other > 0 {
            got.push_str(&format!(", {other} other answers"));
        }
        let ok = other == 0 && CANARY_PART.contains(&v2);
        self.tell(&sent, "about 90 % web-v1, 10 % web-v2", got, ok);
        Ok(())
    }

    async fn tcp(&mut self) -> anyhow::Result<()> {
        let expected = "the database speaks first, then echoes";
        let (got, ok) = match self.frontend.open(DB).await {
            Ok(stream) => {
                let mut stream = BufReader::new(stream);
                let mut greeting = String::new();
                stream.read_line(&mut greeting).await?;
                stream.write_all(b"select 1\n").await?;
                stream.shutdown().await?;
                let mut echo = String::new();
                stream.read_to_string(&mut echo).await?;
                let ok = greeting == "db\n" && echo == "select 1\n";
                (format!("`{}`, then `{}`", greeting.trim(), echo.trim()), ok)
            }
            Err(error) => (error.to_string(), false),
        };
        self.tell("shop/frontend TCP to db:5432", expected, got, ok);

        let (got, ok) = match self.visitor.open(DB).await {
            Err(ClientError::Refused { status, .. }) => {
                let log = self
                    .log
                    .line("tunnel_authority", DB)
                    .await
                    .unwrap_or_default();
                // The line of the allowed stream may come first.
                let log = match log.get("verdict").and_then(Value::as_str) {
                    Some("deny") => log,
                    _ => self
                        .log
                        .line("tunnel_authority", DB)
                        .await
                        .unwrap_or_default(),
                };
                let reason = log
                    .get("reason")
                    .and_then(Value::as_str)
                    .unwrap_or_default();
                (
                    format!("CONNECT {}: {reason}", status.as_u16()),
                    status == StatusCode::UNAUTHORIZED,
                )
            }
            Err(error) => (error.to_string(), false),
            Ok(_) => ("a stream".to_owned(), false),
        };
        self.tell(
            "guest/visitor TCP to db:5432",
            "refused at CONNECT with 401",
            got,
            ok,
        );
        Ok(())
    }

    async fn strangers(&mut self) -> anyhow::Result<()> {
        for (to, what) in [
            ("10.96.0.99:80", "an address nobody declared"),
            ("127.0.0.1:22", "loopback"),
        ] {
            let (got, ok) = match self.frontend.open(to).await {
                Err(ClientError::Refused { status, .. }) => (
                    format!("CONNECT {}", status.as_u16()),
                    status == StatusCode::BAD_REQUEST,
                ),
                Err(error) => (error.to_string(), false),
                Ok(_) => ("a stream".to_owned(), false),
            };
            let sent = format!("shop/frontend CONNECT {to}");
            self.tell(&sent, &format!("400: {what}"), got, ok);
        }
        let (got, ok) = match self.lab.stranger(WEB).await? {
            Err(error @ (ClientError::Tls { .. } | ClientError::Tunnel(_))) => {
                (format!("no tunnel: {error}"), true)
            }
            Err(error) => (error.to_string(), false),
            Ok(()) => ("a stream".to_owned(), false),
        };
        let sent = "certificate of trust domain elsewhere.example";
        self.tell(sent, "no tunnel", got, ok);
        Ok(())
    }

    async fn death(&mut self) -> anyhow::Result<()> {
        self.lab.kill("web-v1-a");
        let mut http = self.frontend.http(WEB, false).await?;
        let (mut fine, mut retried) = (0, 0);
        for _ in 0..REQUESTS_AFTER_DEATH {
            let seen = self
                .ask_over(&mut http, Method::GET, "/items", HeaderMap::new())
                .await?;
            fine += u32::from(seen.status() == 200);
            let attempts = seen.log.get("attempts").and_then(Value::as_u64);
            retried += u32::from(attempts.unwrap_or_default() > 1);
        }
        self.lab.revive("web-v1-a").await?;
        let sent = format!(
            "one of two endpoints killed; shop/frontend {REQUESTS_AFTER_DEATH} x GET /items"
        );
        let got = format!("{fine} x 200, {retried} of them tried again elsewhere");
        let ok = fine == REQUESTS_AFTER_DEATH;
        self.tell(&sent, "no request lost", got, ok);
        Ok(())
    }

    async fn reload(&mut self) -> anyhow::Result<()> {
        let opened = POLICIES.replacen("[shop/frontend]", "[shop/frontend, guest/visitor]", 1);
        let saved = Instant::now();
        self.lab.save_policies(&opened)?;
        let mut seen = self.get(Who::Visitor, "/items").await?;
        while seen.status() != 200 && saved.elapsed() < RELOAD_TIMEOUT {
            tokio::time::sleep(LOOK_INTERVAL).await;
            seen = self.get(Who::Visitor, "/items").await?;
        }
        let got = format!("{} after {} ms", seen.words(), saved.elapsed().as_millis());
        let sent = "policy readers saved with guest/visitor in it; guest/visitor GET /items";
        self.tell(
            sent,
            "200 as soon as it is in force",
            got,
            seen.status() == 200,
        );

        self.save_and_wait(&opened.replacen("rules:", "rulez:", 1))
            .await?;
        let kept = self.get(Who::Visitor, "/items").await?;
        let denied = self.get(Who::Frontend, "/admin").await?;
        let ok = kept.status() == 200 && denied.status() == 403;
        let got = format!(
            "GET /items {}, GET /admin {}",
            kept.status(),
            denied.status()
        );
        let sent = "policy readers saved with a typing error (`rulez:`)";
        self.tell(sent, "its last good version stays in force", got, ok);

        self.save_and_wait(POLICIES).await?;
        let seen = self.get(Who::Visitor, "/items").await?;
        let sent = "policies saved as they were; guest/visitor GET /items";
        self.tell(sent, "403 again", seen.words(), seen.status() == 403);
        Ok(())
    }

    async fn save_and_wait(&mut self, policies: &str) -> anyhow::Result<()> {
        let before = self.lab.version();
        self.lab.save_policies(policies)?;
        let in_force = async {
            while self.lab.version() == before {
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
        };
        tokio::time::timeout(RELOAD_TIMEOUT, in_force)
            .await
            .context("the saved policies did not come into force")
    }
}
