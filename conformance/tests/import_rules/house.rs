//! The tables: who may import whom, and which names belong where. Checks nothing itself.

/// Workspace crates each crate may use outside its tests.
pub const WORKSPACE_IMPORTS: &[(&str, &[&str])] = &[
    ("cairn-config-schema", &[]),
    ("cairn-routing", &["cairn-config-schema"]),
    ("cairn-authz", &["cairn-config-schema"]),
    ("cairn-kernel-redirect", &["cairn-config-schema"]),
    ("cairn-allocator", &[]),
    ("cairn-kubernetes", &["cairn-config-schema", "cairn-authz"]),
    (
        "cairn-filters",
        &["cairn-config-schema", "cairn-routing", "cairn-authz"],
    ),
    (
        "cairn-waypoint",
        &[
            "cairn-config-schema",
            "cairn-routing",
            "cairn-authz",
            "cairn-filters",
            "cairn-kernel-redirect",
            "cairn-allocator",
            "cairn-kubernetes",
        ],
    ),
    (
        "cairn-conformance",
        &[
            "cairn-config-schema",
            "cairn-routing",
            "cairn-authz",
            "cairn-filters",
            "cairn-waypoint",
        ],
    ),
    (
        "cairn-benches",
        &[
            "cairn-config-schema",
            "cairn-routing",
            "cairn-authz",
            "cairn-filters",
            "cairn-waypoint",
        ],
    ),
    (
        "cairn-fuzz",
        &["cairn-config-schema", "cairn-authz", "cairn-filters"],
    ),
];

/// Crates whose code has no clock, socket, file, thread, randomness or async.
pub const PURE: &[(&str, &str)] = &[
    ("cairn-config-schema", "config-schema/src"),
    ("cairn-routing", "routing/src"),
    ("cairn-authz", "authz/src"),
];

/// What must not be in the normal dependency tree of a pure crate, at any depth. `kube`,
/// `kube-core` and `kube-derive` are not here: `gateway-api` declares its types with them, and
/// without the features `client` and `runtime` they hold no IO.
pub const IMPURE_PACKAGES: &[&str] = &[
    "async-trait",
    "fastrand",
    "futures",
    "getrandom",
    "h2",
    "hyper",
    "hyper-util",
    "kube-client",
    "kube-runtime",
    "mio",
    "notify",
    "pingora-core",
    "pingora-http",
    "pingora-proxy",
    "rand",
    "rustls",
    "socket2",
    "tokio",
    "tokio-rustls",
    "tracing",
    "uuid",
];

/// What must not be named in the source of a pure crate.
pub const IMPURE_PATHS: &[&str] = &[
    "std::time::Instant",
    "std::time::SystemTime",
    "Instant::now",
    "SystemTime::now",
    "std::net::Tcp",
    "std::net::Udp",
    "std::fs",
    "std::env",
    "std::process",
    "std::thread",
    "std::io::stdout",
    "println!",
    "eprintln!",
    "async fn",
    ".await",
];

/// A name that may be used only in some places.
pub struct Confined {
    /// Text that begins a path: `pingora` finds `pingora_core::`, `use pingora_http::...`.
    pub names: &'static [&'static str],
    /// Folders or files, relative to the workspace.
    pub places: &'static [&'static str],
    pub why: &'static str,
}

pub const CONFINED: &[Confined] = &[
    Confined {
        names: &[
            "pingora_core",
            "pingora_proxy",
            "pingora_http",
            "pingora_error",
        ],
        places: &["waypoint/src/proxy/"],
        why: "the HTTP engine is an implementation detail of proxy/",
    },
    Confined {
        names: &["rustls", "tokio_rustls"],
        places: &["waypoint/src/tls/"],
        why: "TLS is set up in one place, with one provider",
    },
    Confined {
        names: &["x509_parser"],
        places: &["waypoint/src/tls/", "waypoint/src/pki/"],
        why: "only who checks or makes certificates looks into them",
    },
    Confined {
        names: &["rcgen"],
        places: &["waypoint/src/pki/"],
        why: "certificates, and requests for them, are made in one place",
    },
    Confined {
        names: &[
            "kube",
            "kube_client",
            "kube_core",
            "kube_runtime",
            "k8s_openapi",
            "gateway_api",
        ],
        places: &["config-schema/src/", "kubernetes/src/"],
        why: "past parsing, everything speaks in the snapshot's terms",
    },
    Confined {
        names: &["spiffe"],
        places: &["waypoint/src/identity/"],
        why: "where the identity comes from is known in one place",
    },
    Confined {
        names: &["aya", "libc"],
        places: &["kernel-redirect/src/"],
        why: "the kernel's own interfaces are called in one crate",
    },
    Confined {
        names: &["notify"],
        places: &["waypoint/src/source/", "waypoint/src/tls/"],
        why: "only sources and identities watch files",
    },
];

/// Crates that bring tests and measurements: clients and servers of their own, so not confined.
pub const OUTSIDE: &[&str] = &["conformance", "benches", "fuzz"];
