//! Keeps keys fresh: one task for each source that the configuration in force names. Fetches by
//! `fetch`, writes to `state`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cairn_config_schema::snapshot::{KeySource, RemoteKeys, Snapshot};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use super::fetch::Fetcher;
use super::state::Jwks;
use crate::limits::{
    JWKS_AGE_MAX, JWKS_ASKED_INTERVAL, JWKS_REFRESH_INTERVAL, JWKS_RETRY_INTERVAL,
    JWKS_RETRY_INTERVAL_MAX, JWKS_SOURCES_MAX,
};

/// Starts the thread that follows the configuration in force: `version` tells of a new one, which
/// `snapshot` then gives.
///
/// # Errors
/// When the thread can not be started.
pub fn start(
    jwks: Arc<Jwks>,
    allow_local: bool,
    version: watch::Receiver<u64>,
    snapshot: impl Fn() -> Arc<Snapshot> + Send + 'static,
) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let follow =
        async move { follow(jwks, Arc::new(Fetcher::new(allow_local)), version, snapshot).await };
    std::thread::Builder::new()
        .name("jwks".to_owned())
        .spawn(move || runtime.block_on(follow))?;
    Ok(())
}

async fn follow(
    jwks: Arc<Jwks>,
    fetcher: Arc<Fetcher>,
    mut version: watch::Receiver<u64>,
    snapshot: impl Fn() -> Arc<Snapshot>,
) {
    let mut tasks: BTreeMap<RemoteKeys, (Duration, AbortOnDropHandle<()>)> = BTreeMap::new();
    loop {
        version.mark_unchanged();
        let wanted = wanted(&snapshot());
        tasks.retain(|source, _| {
            let keep = wanted.contains_key(source);
            if !keep {
                jwks.remove(source);
            }
            keep
        });
        for (source, within) in wanted {
            if tasks
                .get(&source)
                .is_none_or(|(before, _)| *before != within)
            {
                let asked = jwks.add(&source);
                let task = keep_fresh(jwks.clone(), fetcher.clone(), source.clone(), within, asked);
                let task = AbortOnDropHandle::new(tokio::spawn(task));
                tasks.insert(source, (within, task));
            }
        }
        if version.changed().await.is_err() {
            return;
        }
    }
}

/// Sources of the configuration, each with the longest time that a rule gives it.
fn wanted(snapshot: &Snapshot) -> BTreeMap<RemoteKeys, Duration> {
    let mut wanted: BTreeMap<RemoteKeys, Duration> = BTreeMap::new();
    for rule in snapshot.authentications.all().flat_map(|a| &a.rules) {
        if let KeySource::Remote(source) = &rule.keys
            && rule.broken.is_none()
        {
            let within = Duration::from_millis(rule.timeout_ms);
            let longest = wanted.entry(source.clone()).or_default();
            *longest = within.max(*longest);
        }
    }
    if wanted.len() > JWKS_SOURCES_MAX {
        let left_out = wanted.len() - JWKS_SOURCES_MAX;
        tracing::error!(
            left_out,
            "too many sources of keys: tokens of the rest are refused"
        );
        wanted = wanted.into_iter().take(JWKS_SOURCES_MAX).collect();
    }
    wanted
}

async fn keep_fresh(
    jwks: Arc<Jwks>,
    fetcher: Arc<Fetcher>,
    source: RemoteKeys,
    within: Duration,
    asked: Arc<Notify>,
) {
    // A task before this one may have left keys; they grow no younger by a new `timeout`.
    let mut good_until = jwks.good_until(&source);
    let mut failures = 0;
    loop {
        let began = Instant::now();
        match fetcher.fetch(&source, within).await {
            Ok(set) => {
                if failures > 0 || good_until.is_none() {
                    tracing::info!(source = %source, keys = set.keys().len(), "keys fetched");
                }
                failures = 0;
                let until = began + JWKS_AGE_MAX;
                good_until = Some(until);
                jwks.fetched(&source, set, until);
            }
            Err(error) => {
                if failures == 0 {
                    let kept = good_until.is_some();
                    tracing::error!(source = %source, %error, kept, "keys can not be fetched; without kept ones every token is refused");
                }
                failures += 1;
                jwks.failed(&source, error.to_string());
            }
        }
        let next = began + pause(failures);
        let waited = async {
            asked.notified().await;
            sleep_until(began + JWKS_ASKED_INTERVAL).await;
        };
        let expires = async {
            match good_until {
                Some(until) => sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = sleep_until(next) => {}
            () = waited => {}
            () = expires => {
                tracing::error!(source = %source, "the last good keys are too old: every token is refused");
                good_until = None;
                jwks.expire(&source);
            }
        }
    }
}

/// Time from one fetch to the next: longer with each that failed.
fn pause(failures: u32) -> Duration {
    match failures.checked_sub(1) {
        None => JWKS_REFRESH_INTERVAL,
        Some(before) => JWKS_RETRY_INTERVAL
            .saturating_mul(2_u32.saturating_pow(before))
            .min(JWKS_RETRY_INTERVAL_MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_tried_again_ever_more_rarely() {
        assert_eq!(pause(0), JWKS_REFRESH_INTERVAL);
        assert_eq!(pause(1), JWKS_RETRY_INTERVAL);
        assert_eq!(pause(2), JWKS_RETRY_INTERVAL * 2);
        assert_eq!(pause(1_000), JWKS_RETRY_INTERVAL_MAX);
    }

    /// Another `timeout` is another task; the keys that the one before it fetched are as old as before.
    #[tokio::test(flavor = "current_thread")]
    async fn kept_keys_do_not_outlive_their_time_in_another_task() {
        let (jwks, fetcher) = (Arc::new(Jwks::default()), Arc::new(Fetcher::new(false)));
        let source = RemoteKeys {
            // Refused before anything is sent.
            url: "http://127.0.0.1:1/".into(),
            discovery: false,
        };
        let asked = jwks.add(&source);
        let set = include_str!("../../../conformance/golden/keys/jwks.json");
        let set = cairn_authz::jwt::KeySet::parse(set).unwrap();
        jwks.fetched(&source, set, Instant::now());
        assert!(jwks.load().by_source.contains_key(&source));
        let within = Duration::from_secs(1);
        let task = keep_fresh(jwks.clone(), fetcher, source.clone(), within, asked);
        let run = tokio::time::timeout(Duration::from_millis(200), task).await;
        assert!(run.is_err(), "it goes on");
        assert!(!jwks.load().by_source.contains_key(&source));
    }
}
