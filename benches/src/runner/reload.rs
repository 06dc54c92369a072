//! Time from file saved to in force: one route of 5,001 changes, its effect is watched through
//! requests. Cairn only: Envoy gets its configuration over xDS, which has no file to save.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use http::HeaderValue;
use serde::Serialize;

use super::rig::Rig;
use crate::cell::{self, Exchange};
use crate::load::{Lane, Template};
use crate::proxy::cairn::{self, CONFIG_FOLDER};
use crate::proxy::mesh::{Mesh, Service};
use crate::proxy::{Product, Proxy};

/// Services, endpoints of each and routes of each; and one more route, which is the one changed.
const CROWD: (u16, u8, u16) = (1_000, 1, 5);
/// Changes that are timed.
const CHANGES: u32 = 10;
/// Time between two requests that watch.
const WATCH_STEP: Duration = Duration::from_millis(1);
/// A change that is not in force by then never will be.
const WITHIN: Duration = Duration::from_secs(10);

/// How changes fared with one layout of files.
#[derive(Clone, Debug, Serialize)]
pub struct Reload {
    /// Routes in force.
    pub routes: usize,
    /// Routes in the file that changes.
    pub routes_in_file: usize,
    /// Each change, from the rename that saves the file to the first answer that shows it.
    pub in_force_ms: Vec<f64>,
    /// Answers meanwhile.
    pub answers: u64,
    /// Answers that failed or showed neither the old nor the new version.
    pub wrong_answers: u64,
}

impl Reload {
    /// The middle and the worst change.
    pub fn median_and_max_ms(&self) -> (f64, f64) {
        let mut sorted = self.in_force_ms.clone();
        sorted.sort_by(f64::total_cmp);
        let at = |n: usize| sorted.get(n).copied().unwrap_or_default();
        (at(sorted.len() / 2), at(sorted.len().saturating_sub(1)))
    }
}

/// All routes in one file, then a file for each hundred.
pub async fn measure(rig: &Rig) -> anyhow::Result<Vec<Reload>> {
    let mut reloads = Vec::new();
    if rig.options.products.contains(&Product::Cairn) {
        for routes_per_file in [usize::MAX, 100] {
            reloads.push(measure_layout(rig, routes_per_file).await?);
        }
    }
    Ok(reloads)
}

async fn measure_layout(rig: &Rig, routes_per_file: usize) -> anyhow::Result<Reload> {
    let (services, endpoints, routes) = CROWD;
    let mesh = Mesh::of_table(&rig.backend, true).with_crowd(services, endpoints, routes);
    let all = mesh.services.iter().map(|s| s.route_prefixes.len()).sum();
    let folder = rig.work_folder(&format!("reload-{}", routes_per_file.min(all)))?;
    let proxy = Proxy::start(
        Product::Cairn,
        &rig.launch(Product::Cairn, folder.clone()),
        &mesh,
    )
    .await?;
    let config = folder.join(CONFIG_FOLDER);
    if routes_per_file < all {
        cairn::write(&mesh, &config, routes_per_file)?;
    }
    let mut watch = Watch {
        lane: crate::load::connect(&rig.probe(&proxy, cell::Path::Plain)).await?,
        template: Template::new(Exchange::Get1k),
        answers: 0,
        wrong_answers: 0,
    };
    let file = RouteFile::read(&mesh, &config)?;
    let mut in_force_ms = Vec::new();
    for version in 0..=CHANGES {
        file.save(version)?;
        let took = watch.until(version).await?;
        // The first change also takes the new layout in.
        if version > 0 {
            in_force_ms.push(took.as_secs_f64() * 1e3);
        }
    }
    let reload = Reload {
        routes: all,
        routes_in_file: routes_per_file.min(all),
        in_force_ms,
        answers: watch.answers,
        wrong_answers: watch.wrong_answers,
    };
    let (median, max) = reload.median_and_max_ms();
    eprintln!(
        "cairn  one of {all} routes changed: in force after {median:.0} ms, {max:.0} ms at most"
    );
    Ok(reload)
}

/// The file that holds the route that changes.
struct RouteFile<'a> {
    service: &'a Service,
    rest: String,
    place: std::path::PathBuf,
}

impl<'a> RouteFile<'a> {
    fn read(mesh: &'a Mesh, config: &Path) -> anyhow::Result<Self> {
        let place = config.join(cairn::routes_file(0));
        let service = mesh.services.first().context("no service")?;
        let text = std::fs::read_to_string(&place)?;
        let rest = text
            .strip_prefix(&cairn::route(service, 0, None))
            .context("the route is not the first of its file")?;
        Ok(Self {
            service,
            rest: rest.to_owned(),
            place,
        })
    }

    /// Renames a new version over the file, as editors and Kubernetes do.
    fn save(&self, version: u32) -> anyhow::Result<()> {
        // Hidden files are no configuration.
        let next = self.place.with_file_name(".next");
        std::fs::write(
            &next,
            cairn::route(self.service, 0, Some(version)) + &self.rest,
        )?;
        std::fs::rename(&next, &self.place)?;
        Ok(())
    }
}

struct Watch {
    lane: Lane,
    template: Template,
    answers: u64,
    wrong_answers: u64,
}

impl Watch {
    /// Time until an answer shows the version, from now.
    async fn until(&mut self, version: u32) -> anyhow::Result<Duration> {
        let saved = Instant::now();
        let expected = Some(HeaderValue::from(version));
        let before = version.checked_sub(1).map(HeaderValue::from);
        loop {
            let answer = self.lane.exchange(&self.template).await;
            self.answers += 1;
            match answer.as_ref().map(|a| a.headers().get("x-version")) {
                Ok(shown) if shown == expected.as_ref() => return Ok(saved.elapsed()),
                Ok(shown) if shown == before.as_ref() => {}
                Ok(_) | Err(_) => self.wrong_answers += 1,
            }
            ensure!(
                saved.elapsed() < WITHIN,
                "the change is not in force after {WITHIN:?}"
            );
            tokio::time::sleep(WATCH_STEP).await;
        }
    }
}
