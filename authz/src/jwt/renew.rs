//! What a token that was verified is worth after its rules have changed, for connections that stay open
//! (issue 4, item 7). Verifies no signature and looks at no clock.

use super::authenticate::{Authenticator, Failure, Login};
use super::status::Status;
use super::verify::is_for;
use crate::token::Token;

impl Authenticator {
    /// What a login that older rules gave is worth under these: all of it while its token's issuer is
    /// trusted, else it is nobody's. Its times are not looked at again.
    ///
    /// # Errors
    /// [`Failure`]: nothing passes here, or none of the issuer's rules takes one of its tokens any more.
    pub fn renew(&self, login: &Login) -> Result<Login, Failure> {
        self.refuse_if_broken()?;
        for verified in &login.verified {
            self.accepts(&verified.token)?;
        }
        let of_issuer = |token: &Token| self.rules.iter().any(|r| *r.rule.issuer == *token.issuer);
        match login.token() {
            Some(token) if of_issuer(token) => Ok(login.clone()),
            _ => Ok(Login::default()),
        }
    }

    fn accepts(&self, token: &Token) -> Result<(), Failure> {
        let mut refused = None;
        for rule in &self.rules {
            if *rule.rule.issuer != *token.issuer {
                continue;
            }
            let status = match rule.rule.broken.is_some() {
                true => Status::BadSignature,
                false if is_for(&rule.rule, || token.audiences()) => return Ok(()),
                false => Status::WrongAudience,
            };
            refused.get_or_insert((status, rule));
        }
        match refused {
            None => Ok(()),
            Some((status, rule)) => Err(self.failure(status, Some(rule), Some(&token.issuer))),
        }
    }
}
