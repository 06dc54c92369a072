//! What is taken of a CA's answers, and what is not (specs/istio-waypoint.md 3).

use std::time::{Duration, SystemTime};

use super::*;
use crate::pki::{Authority, Leaf, SigningRequest};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn waypoint() -> Identity {
    Identity::of_workload("cluster.local", "shop", "waypoint").unwrap()
}

/// A CA with the roots that the pod has.
struct Ca {
    root: Authority,
    file_roots: Vec<Vec<u8>>,
}

impl Ca {
    fn new() -> Self {
        let root = Authority::generate(DAY).unwrap();
        let file_roots = der(root.root_cert_pem());
        Self { root, file_roots }
    }

    /// Judges what comes of a request; `answer` makes it of the CSR.
    fn judge(
        &self,
        answer: impl FnOnce(&str) -> Vec<String>,
    ) -> Result<(Issued, LocalIdentity), AnswerError> {
        let request = SigningRequest::new(&waypoint()).unwrap();
        let answer = answer(&request.csr_pem);
        Issued::judge(&answer, request.key, &waypoint(), &self.file_roots)
    }

    fn leaf(&self, csr: &str, leaf: &Leaf) -> String {
        self.root.sign(csr, leaf).unwrap()
    }

    fn refusal(&self, answer: impl FnOnce(&str) -> Vec<String>) -> String {
        self.judge(answer).unwrap_err().to_string()
    }
}

fn der(pem: &str) -> Vec<Vec<u8>> {
    certificates_of_pem(pem.as_bytes()).unwrap()
}

fn proper() -> Leaf {
    Leaf::of(&waypoint(), DAY)
}

#[test]
fn a_leaf_and_its_root_are_taken_with_the_end_of_the_certificate_itself() {
    let ca = Ca::new();
    let root = ca.root.root_cert_pem().to_owned();
    let (issued, identity) = ca
        .judge(|csr| vec![ca.leaf(csr, &Leaf::of(&waypoint(), DAY / 2)), root])
        .unwrap();
    assert_eq!(identity.identity, waypoint());
    assert_eq!(issued.chain.len(), 1, "the root is not sent to peers");
    let left = issued.left(SystemTime::now()).as_secs();
    assert!((43_190..=43_200).contains(&left), "{left}");
}

#[test]
fn intermediates_are_sent_and_the_root_is_trusted_also_when_one_element_has_them_all() {
    let ca = Ca::new();
    let below = ca.root.intermediate(DAY).unwrap();
    let parts = |csr: &str| {
        vec![
            below.sign(csr, &proper()).unwrap(),
            below.root_cert_pem().to_owned(),
            ca.root.root_cert_pem().to_owned(),
        ]
    };
    for answer in [|p: Vec<String>| p, |p: Vec<String>| vec![p.concat()]] {
        let (issued, _) = ca.judge(|csr| answer(parts(csr))).unwrap();
        assert_eq!(issued.chain.len(), 2);
        assert_eq!(issued.roots, ca.file_roots);
    }
}

/// An answer that lacks its root must not make one of the intermediate: peers would not get it.
#[test]
fn an_intermediate_that_comes_last_is_an_intermediate() {
    let ca = Ca::new();
    let below = ca.root.intermediate(DAY).unwrap();
    let (issued, _) = ca
        .judge(|csr| {
            let leaf = below.sign(csr, &proper()).unwrap();
            vec![leaf, below.root_cert_pem().to_owned()]
        })
        .unwrap();
    assert_eq!(issued.chain.len(), 2);
    assert!(issued.roots.is_empty());
}

#[test]
fn a_certificate_for_somebody_else_is_refused() {
    let ca = Ca::new();
    let of = |domain: &str, account: &str| {
        let identity = Identity::of_workload(domain, "shop", account).unwrap();
        ca.refusal(|csr| vec![ca.leaf(csr, &Leaf::of(&identity, DAY))])
    };
    assert_eq!(
        of("cluster.local", "web"),
        "the certificate is for spiffe://cluster.local/ns/shop/sa/web, and this waypoint is \
         spiffe://cluster.local/ns/shop/sa/waypoint"
    );
    assert!(of("other.example", "waypoint").contains("trust domain other.example"));
}

#[test]
fn a_certificate_for_another_key_is_refused() {
    let ca = Ca::new();
    let other = SigningRequest::new(&waypoint()).unwrap();
    let words = ca.refusal(|_| vec![ca.leaf(&other.csr_pem, &proper())]);
    assert!(words.contains("the key does not go with"), "{words}");
}

#[test]
fn a_certificate_that_no_peer_would_take_is_refused() {
    let ca = Ca::new();
    let stranger = Authority::generate(DAY).unwrap();
    let words = ca.refusal(|csr| vec![stranger.sign(csr, &proper()).unwrap()]);
    assert!(words.contains("no chain to the roots"), "{words}");
    let now = SystemTime::now();
    let expired = Leaf {
        not_before: now - DAY,
        not_after: now - DAY / 2,
        ..proper()
    };
    let words = ca.refusal(|csr| vec![ca.leaf(csr, &expired)]);
    assert!(words.contains("not valid now"), "{words}");
    let two_names = Leaf {
        uris: vec![waypoint().uri().to_owned(), "spiffe://td/x".to_owned()],
        ..proper()
    };
    let words = ca.refusal(|csr| vec![ca.leaf(csr, &two_names)]);
    assert!(words.contains("2 URI SANs"), "{words}");
}

#[test]
fn what_is_no_certificate_is_refused() {
    let ca = Ca::new();
    for answer in [vec![], vec![String::new()], vec!["no PEM".to_owned()]] {
        assert!(ca.judge(|_| answer.clone()).is_err(), "{answer:?}");
    }
    let root = ca.root.root_cert_pem();
    let words = ca.refusal(|csr| vec![ca.leaf(csr, &proper()), root.repeat(CA_CERTIFICATES_MAX)]);
    assert!(words.contains("64 at most"), "{words}");
}

/// While roots change, those of the file and those of the answer count together; and who has the new file
/// alone tells whether the certificate is still good.
#[test]
fn roots_of_the_file_and_of_the_answer_count_together() {
    let ca = Ca::new();
    let root = ca.root.root_cert_pem().to_owned();
    let (issued, _) = ca.judge(|csr| vec![ca.leaf(csr, &proper()), root]).unwrap();
    let next = der(Authority::generate(DAY).unwrap().root_cert_pem());
    assert!(issued.is_accepted_by(&ca.file_roots));
    assert!(!issued.is_accepted_by(&next));
    let both = issued.with(&next).unwrap();
    assert!(
        both.check_chain().is_ok(),
        "the root of the answer is there"
    );
}
