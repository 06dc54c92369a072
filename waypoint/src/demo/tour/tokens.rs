//! Who a request is from by its token: none, a valid one, one that is too old.

use std::time::{SystemTime, UNIX_EPOCH};

use http::header::{AUTHORIZATION, HeaderValue};
use http::{HeaderMap, Method};
use serde_json::json;

use super::ask::Seen;
use super::{Tour, Who};

impl Tour<'_> {
    pub(super) async fn tokens(&mut self) -> anyhow::Result<()> {
        let seen = self.get(Who::Visitor, "/items/mine").await?;
        self.tell(
            "guest/visitor GET /items/mine",
            "403: members only",
            seen.words(),
            seen.status() == 403,
        );

        let seen = self.get_with_token(300).await?;
        let ok = seen.status() == 200 && seen.logged("policy").ends_with("/members");
        self.tell(
            "  with alice's token",
            "200 by the policy members",
            seen.words(),
            ok,
        );

        let seen = self.get_with_token(-300).await?;
        let ok = seen.status() == 401 && seen.body() == "Jwt is expired";
        self.tell(
            "  with a token that ran out",
            "401, and why",
            seen.words(),
            ok,
        );
        Ok(())
    }

    /// Sends a token that ends so many seconds from now.
    async fn get_with_token(&mut self, ends_in_s: i64) -> anyhow::Result<Seen> {
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let ends = i64::try_from(now_s)?.saturating_add(ends_in_s);
        let claims = json!({"iss": "https://issuer.demo", "sub": "alice", "exp": ends});
        let bearer = format!("Bearer {}", self.lab.issuer.token(&claims)?);
        let headers = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::try_from(bearer)?)]);
        self.ask(Who::Visitor, Method::GET, "/items/mine", headers)
            .await
    }
}
