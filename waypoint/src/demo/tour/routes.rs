//! Where requests go, and what is changed in them: no match, weights, rewrites, redirects.

use http::header::{HeaderName, HeaderValue, LOCATION};
use http::{HeaderMap, Method};
use serde_json::Value;

use super::ask::{Seen, send};
use super::{Tour, WEB, Who};

/// How many requests show the canary's shares, and between which numbers its part must be: ten per
/// cent, give or take what once in a hundred thousand tours chance would exceed.
const CANARY_REQUESTS: u32 = 200;
const CANARY_PART: std::ops::RangeInclusive<u32> = 4..=42;

impl Tour<'_> {
    pub(super) async fn routes(&mut self) -> anyhow::Result<()> {
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
}
