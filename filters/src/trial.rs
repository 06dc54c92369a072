//! RequestAuthentications that are only tried: what would become of a request's token, and what
//! policies would say then. Changes nothing in the request, and never its answer.
//!
//! Left out: the headers that such an object would write or remove. Policies that are tried see the
//! request as it is, with the principal and claims it would have.

use std::sync::Arc;

use cairn_authz::jwt::{self, Authenticator, InlineKeys, KeySets, Memory};
use cairn_authz::{Consulted, TrialOutcome, Verdict, Would};
use cairn_config_schema::origin::Origin;
use cairn_config_schema::snapshot::RequestAuthentication;
use cairn_routing::Found;

use crate::chain::{Authenticated, External, PortChain, RequestView, facts, trial_facts};
use crate::normalise::Target;

/// What is tried of authentication.
#[derive(Debug)]
pub(crate) struct Trial {
    /// All objects, those in force and those that are tried.
    authenticator: Authenticator,
    /// Those that are tried, each with the reason if it is broken as a whole.
    tried: Vec<(Origin, bool)>,
}

impl Trial {
    /// `None`: none is tried.
    pub fn compile(
        authentications: &[Arc<RequestAuthentication>],
        keys: &InlineKeys,
    ) -> Option<Self> {
        let tried = authentications.iter().filter(|a| a.dry_run);
        let tried: Vec<_> = tried
            .map(|a| (a.origin.clone(), a.broken.is_some()))
            .collect();
        (!tried.is_empty()).then(|| Self {
            authenticator: Authenticator::compile_sharing(authentications, keys),
            tried,
        })
    }

    /// What each object that is tried says.
    fn outcomes<'a>(&'a self, login: &'a Authenticated) -> impl Iterator<Item = TrialOutcome> {
        self.tried.iter().map(move |(origin, is_broken)| {
            let (rule, would) = match login {
                _ if *is_broken => (None, Would::Deny),
                Ok(login) => {
                    let mut rules = self.authenticator.rules_of(login);
                    match rules.find(|(of, _)| *of == origin) {
                        Some((_, rule)) => (Some(rule), Would::Allow),
                        None => (None, Would::Nothing),
                    }
                }
                Err(failure) => match &failure.rule {
                    Some((of, rule)) if of == origin => (*rule, Would::Deny),
                    Some((of, _)) if self.tried.iter().any(|(tried, _)| tried == of) => {
                        (None, Would::Nothing)
                    }
                    // No rule is for such a token, and there would be one if not for these.
                    _ => (None, Would::Deny),
                },
            };
            TrialOutcome {
                policy: origin.clone(),
                rule,
                would,
            }
        })
    }
}

impl PortChain {
    /// What would become of a token, if a RequestAuthentication is tried; to be asked before
    /// [`PortChain::take_token`].
    pub fn try_token(
        &self,
        request: &jwt::Request<'_>,
        keys: &KeySets,
        memory: &mut Memory,
        now_s: i64,
    ) -> Option<Authenticated> {
        let trial = self.trial.as_ref()?;
        let authenticator = &trial.authenticator;
        Some(authenticator.authenticate(request, keys, memory, now_s))
    }

    /// What verifies tokens here, objects that are tried among it. `None`: none is.
    pub fn trial_authenticator(&self) -> Option<&Authenticator> {
        self.trial.as_ref().map(|trial| &trial.authenticator)
    }

    /// Asks policy, and what it would say.
    pub(crate) fn decide_policies(
        &self,
        view: &RequestView<'_, '_>,
        target: &Target<'_>,
        found: &Found,
    ) -> Verdict {
        let consulted = match view.external {
            External::Unasked => Consulted::Unasked,
            External::Settled(_) => Consulted::Settled,
        };
        let facts = facts(view, target, Some(found));
        let (Some(trial), Some(login)) = (&self.trial, view.trial) else {
            return match consulted {
                Consulted::Unasked => self.policies.decide(&facts),
                Consulted::Settled => self.policies.decide_settled(&facts),
            };
        };
        let mut verdict = self.policies.decide_in_force(&facts, consulted);
        let mut run = self
            .policies
            .try_out(&trial_facts(view, target, Some(found)), consulted);
        run.refused = login.as_ref().err().cloned();
        run.outcomes.extend(trial.outcomes(login));
        verdict.dry_run = Some(Box::new(run));
        verdict
    }
}
