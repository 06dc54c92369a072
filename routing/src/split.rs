//! The weighted choice of a backend. Does not look at endpoints: the share of a backend that can
//! not answer is not given to the others (specs/gateway-api.md 1.4, Weights).

use cairn_config_schema::snapshot::Backend;

/// Chooses a backend by weight. `random` is uniform; over any run of as many consecutive numbers as
/// the weights sum up to, every backend is chosen exactly as often as its weight says. `None`: there is
/// no backend, or none with a weight.
pub fn choose(backends: &[Backend], random: u64) -> Option<&Backend> {
    if let [only] = backends {
        return (only.weight > 0).then_some(only);
    }
    let total: u64 = backends.iter().map(|b| u64::from(b.weight)).sum();
    // The bias of the remainder is total / 2^64: nothing, for weights of 32 bits.
    let mut ticket = random.checked_rem(total)?;
    backends.iter().find(|b| {
        let weight = u64::from(b.weight);
        let chosen = ticket < weight;
        ticket = ticket.saturating_sub(weight);
        chosen
    })
}

#[cfg(test)]
mod tests;
