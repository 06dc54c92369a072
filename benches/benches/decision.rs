//! Time of one decision on a service with 0, 10 or 1,000 policies of ten rules each, on every surface:
//! Istio's, Cilium's, Calico's. Rules differ by whom they are for, or are for one client and differ by
//! path. `allowed` falls on a rule in the middle, `denied` on none.

#![allow(clippy::unwrap_used)] // a panic is a benchmark that measures nothing

mod surfaces;

use cairn_authz::PolicySet;
use divan::{Bencher, black_box};
use surfaces::{Asked, By, calico, cilium, istio};

fn main() {
    divan::main();
}

const SIZES: [usize; 3] = [0, 10, 1_000];

fn measure(bencher: Bencher<'_, '_>, set: &PolicySet, asked: &Asked, allowed: bool) {
    asked.with(|facts| {
        assert_eq!(set.decide(facts).allowed, allowed);
        bencher.bench_local(|| set.decide(black_box(facts)));
    });
}

/// A rule in the middle allows.
fn allowed(bencher: Bencher<'_, '_>, set: &PolicySet, by: By, policies: usize) {
    measure(bencher, set, &Asked::of_rule(by, policies * 5), true);
}

/// No rule allows; without a policy that is allowed.
fn denied(bencher: Bencher<'_, '_>, set: &PolicySet, by: By, policies: usize) {
    measure(bencher, set, &Asked::of_nobody(by), policies == 0);
}

macro_rules! surface {
    ($name:ident, $set:path) => {
        mod $name {
            use super::{Bencher, By, SIZES};

            #[divan::bench(args = SIZES)]
            fn by_client_allowed(bencher: Bencher<'_, '_>, policies: usize) {
                super::allowed(bencher, &$set(By::Client, policies), By::Client, policies);
            }

            #[divan::bench(args = SIZES)]
            fn by_client_denied(bencher: Bencher<'_, '_>, policies: usize) {
                super::denied(bencher, &$set(By::Client, policies), By::Client, policies);
            }

            #[divan::bench(args = SIZES)]
            fn by_path_allowed(bencher: Bencher<'_, '_>, policies: usize) {
                super::allowed(bencher, &$set(By::Path, policies), By::Path, policies);
            }

            #[divan::bench(args = SIZES)]
            fn by_path_denied(bencher: Bencher<'_, '_>, policies: usize) {
                super::denied(bencher, &$set(By::Path, policies), By::Path, policies);
            }
        }
    };
}

surface!(of_istio, super::istio::allowing);
surface!(of_cilium, super::cilium::allowing);
surface!(of_calico, super::calico::allowing);

/// AuthorizationPolicies whose rules differ by one thing that is neither client nor path.
mod of_istio_by {
    use super::{Bencher, SIZES, black_box};
    use crate::surfaces::shapes::{self, Shape};

    /// A rule in the middle allows; `denied`: none does.
    fn measure(bencher: Bencher<'_, '_>, shape: Shape, policies: usize, is_denied: bool) {
        let set = shapes::allowing(shape, policies);
        let n = if is_denied {
            shapes::NOBODY
        } else {
            policies * 5
        };
        shapes::with(n, |facts| {
            assert_eq!(set.decide(facts).allowed, !is_denied || policies == 0);
            bencher.bench_local(|| set.decide(black_box(facts)));
        });
    }

    macro_rules! shape {
        ($allowed:ident, $denied:ident, $shape:expr) => {
            #[divan::bench(args = SIZES)]
            fn $allowed(bencher: Bencher<'_, '_>, policies: usize) {
                measure(bencher, $shape, policies, false);
            }

            #[divan::bench(args = SIZES)]
            fn $denied(bencher: Bencher<'_, '_>, policies: usize) {
                measure(bencher, $shape, policies, true);
            }
        };
    }

    shape!(header_allowed, header_denied, Shape::Header);
    shape!(claim_allowed, claim_denied, Shape::Claim);
    shape!(block_allowed, block_denied, Shape::Block);
    shape!(namespace_allowed, namespace_denied, Shape::Namespace);
}

/// Rules that deny others: all of them have to be ruled out.
mod past_all_that_deny {
    use super::{Asked, Bencher, By, SIZES, calico, cilium, istio, measure};

    #[divan::bench(args = SIZES)]
    fn of_istio(bencher: Bencher<'_, '_>, policies: usize) {
        let set = istio::denying(policies);
        measure(bencher, &set, &Asked::of_nobody(By::Client), true);
    }

    #[divan::bench(args = SIZES)]
    fn of_cilium(bencher: Bencher<'_, '_>, policies: usize) {
        let set = cilium::denying(policies);
        measure(bencher, &set, &Asked::of_nobody(By::Client), true);
    }

    #[divan::bench(args = SIZES)]
    fn of_calico(bencher: Bencher<'_, '_>, policies: usize) {
        let set = calico::denying(policies);
        measure(bencher, &set, &Asked::of_nobody(By::Client), true);
    }
}
