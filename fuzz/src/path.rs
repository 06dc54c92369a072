//! Normalisation of request targets: what comes out is normal, and stays what it is.

use cairn_config_schema::snapshot::PathNormalization;
use cairn_filters::normalise;

const MODES: [PathNormalization; 5] = [
    PathNormalization::None,
    PathNormalization::Base,
    PathNormalization::MergeSlashes,
    PathNormalization::DecodeAndMergeSlashes,
    PathNormalization::Strict,
];

/// The bytes as a request target, in every mode.
pub fn path(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    for mode in MODES {
        let Ok(target) = normalise(text, mode) else {
            continue;
        };
        let sent = target.path_and_query().into_owned();
        let again = normalise(&sent, mode);
        let again = again.map(|again| (again.path.into_owned(), again.query.map(str::to_owned)));
        let once = (target.path.to_string(), target.query.map(str::to_owned));
        assert_eq!(again, Ok(once), "{text:?} in {mode:?}");
        let path = &*target.path;
        assert!(path == "*" || path.starts_with('/'), "{text:?} in {mode:?}");
        assert!(
            !path.contains(['?', '#', ' ', '\r', '\n', '\0']),
            "{text:?}"
        );
        if mode == PathNormalization::Strict {
            strict(path);
        }
    }
}

/// What no two servers read differently.
fn strict(path: &str) {
    let upper = path.to_ascii_uppercase();
    let odd = ["//", "\\", "%2F", "%5C", "%00"];
    assert!(!odd.iter().any(|odd| upper.contains(odd)), "{path:?}");
    assert!(path.is_ascii(), "{path:?}");
    let dots = |segment: &str| {
        let dots = segment.replace("%2E", ".").replace("%2e", ".");
        matches!(dots.split(';').next(), Some("." | ".."))
    };
    assert!(!path.split('/').any(dots), "{path:?}");
}
