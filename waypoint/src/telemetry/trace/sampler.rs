//! Whether a trace is kept. Random numbers come in as part of the trace id.

use super::context::TraceId;

/// Who decides, and how.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampler {
    /// The decision of the hop before holds, where it made one.
    pub parent_first: bool,
    /// Otherwise, of traces so many are kept: 0 to 1.
    pub ratio: f64,
}

impl Sampler {
    /// The parent's decision, else this share of traces.
    pub const fn parent_or(ratio: f64) -> Self {
        Self {
            parent_first: true,
            ratio,
        }
    }

    /// Whether a trace is kept; `parent`: what the hop before decided. By the trace id alone otherwise, so
    /// that all who see it and have the same ratio agree.
    pub fn keeps(&self, parent: Option<bool>, trace: TraceId) -> bool {
        match parent {
            Some(sampled) if self.parent_first => sampled,
            _ if self.ratio >= 1.0 => true,
            _ => {
                // The last 63 bits, as the other implementations of this sampler take.
                let below = (self.ratio.max(0.0) * (1_u64 << 63) as f64) as u64;
                (trace.get() as u64 >> 1) < below
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(sampler: Sampler, parent: Option<bool>) -> usize {
        let mut random = fastrand::Rng::with_seed(7);
        let traces = (0..10_000).map(|_| TraceId::random(|| random.u64(..)));
        traces.filter(|trace| sampler.keeps(parent, *trace)).count()
    }

    #[test]
    fn the_parent_decides_first_and_the_ratio_otherwise() {
        let sampler = Sampler::parent_or(0.1);
        assert_eq!(kept(sampler, Some(true)), 10_000);
        assert_eq!(kept(sampler, Some(false)), 0);
        assert!((900..1_100).contains(&kept(sampler, None)));
        let alone = Sampler {
            parent_first: false,
            ..sampler
        };
        assert!((900..1_100).contains(&kept(alone, Some(false))));
    }

    #[test]
    fn all_and_none_are_exact() {
        assert_eq!(kept(Sampler::parent_or(1.0), None), 10_000);
        assert_eq!(kept(Sampler::parent_or(0.0), None), 0);
    }
}
