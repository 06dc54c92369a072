//! Memory without load: with two services, and with a thousand.

use std::time::Duration;

use serde::Serialize;

use super::rig::Rig;
use crate::cell::Path;
use crate::process::memory;
use crate::proxy::mesh::Mesh;
use crate::proxy::{Product, Proxy};

/// Memory of one proxy.
#[derive(Clone, Debug, Serialize)]
pub struct Footprint {
    /// The proxy.
    pub product: Product,
    /// Services it is configured with.
    pub services: usize,
    /// Resident memory.
    pub resident_kib: u64,
    /// Most it ever had resident, which shows the cost of loading.
    pub peak_kib: u64,
    /// Time from start to ready.
    pub start_up_ms: u64,
}

/// Services, endpoints of each and routes of each in the large mesh.
const CROWD: (u16, u8, u16) = (1_000, 10, 1);

fn footprint(proxy: &Proxy, services: usize) -> anyhow::Result<Footprint> {
    let memory = memory(proxy.process.id())?;
    Ok(Footprint {
        product: proxy.product,
        services,
        resident_kib: memory.resident_kib,
        peak_kib: memory.peak_kib,
        start_up_ms: proxy.start_up.as_millis() as u64,
    })
}

/// Of proxies that were just started and have had no request.
pub fn idle(proxies: &[Proxy]) -> anyhow::Result<Vec<Footprint>> {
    proxies.iter().map(|p| footprint(p, 2)).collect()
}

/// Of each proxy in turn, with the large mesh. One request proves that it is in force.
pub async fn measure(rig: &Rig) -> anyhow::Result<Vec<Footprint>> {
    let (services, endpoints, routes) = CROWD;
    let mesh = Mesh::of_table(&rig.backend, true).with_crowd(services, endpoints, routes);
    let mut footprints = Vec::new();
    for &product in &rig.options.products {
        let folder = rig.work_folder(&format!("scale-{product}"))?;
        let proxy = Proxy::start(product, &rig.launch(product, folder), &mesh).await?;
        crate::load::once(&rig.probe(&proxy, Path::Hbone)).await?;
        // What loading needed and is given back late is not what the proxy costs.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let found = footprint(&proxy, mesh.services.len())?;
        eprintln!(
            "{product:6} {} services: {:.1} MiB",
            found.services,
            found.resident_kib as f64 / 1024.0
        );
        footprints.push(found);
    }
    Ok(footprints)
}
