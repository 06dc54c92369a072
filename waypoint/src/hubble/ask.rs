//! The filters of the `hubble` command, by the same names: a table of them, and how they add up to what a
//! server is asked. For the flags of `cairn observe` and the queries of the admin page.

mod values;

use self::values::{
    direction, drop_reason, event_type, header, ip_version, number, tcp_flags, text, truth,
    verdict, workload,
};
use super::messages::FlowFilter;

/// A filter by its name.
pub struct Flag {
    /// Without dashes.
    pub name: &'static str,
    /// What a value looks like.
    pub value: &'static str,
    /// One line.
    pub help: &'static str,
    add: fn(&mut List, &str) -> Result<(), String>,
}

/// One list while it is read. A flag like `--pod` is about either end, so that there are two filters: one
/// with it for the source, one for the destination.
#[derive(Default)]
pub struct List {
    source: FlowFilter,
    destination: FlowFilter,
    /// Of `--namespace`, `--from-namespace`, `--to-namespace`.
    namespaces: [Vec<String>; 3],
}

/// For both filters of a list.
macro_rules! both {
    ($field:ident, $read:expr) => {
        |list, text| {
            let value = $read(text)?;
            list.source.$field.push(value.clone());
            list.destination.$field.push(value);
            Ok(())
        }
    };
}

/// For either end: one filter for the source, one for the destination.
macro_rules! either {
    ($source:ident, $destination:ident, $read:expr) => {
        |list, text| {
            let value = $read(text)?;
            list.source.$source.push(value.clone());
            list.destination.$destination.push(value);
            Ok(())
        }
    };
}

/// Three flags: either end, from, to.
macro_rules! ends {
    ($flag:literal, $from:literal, $to:literal, $value:literal, $help:literal, $source:ident, $destination:ident, $read:expr) => {
        [
            Flag {
                name: $flag,
                value: $value,
                help: concat!("From or to ", $help),
                add: either!($source, $destination, $read),
            },
            Flag {
                name: $from,
                value: $value,
                help: concat!("From ", $help),
                add: both!($source, $read),
            },
            Flag {
                name: $to,
                value: $value,
                help: concat!("To ", $help),
                add: both!($destination, $read),
            },
        ]
    };
}

static ENDS: [[Flag; 3]; 9] = [
    ends!(
        "pod",
        "from-pod",
        "to-pod",
        "NS/PREFIX",
        "pods whose name begins so; without a namespace, of `default` or of --namespace",
        source_pod,
        destination_pod,
        text
    ),
    ends!(
        "service",
        "from-service",
        "to-service",
        "NS/PREFIX",
        "services whose name begins so",
        source_service,
        destination_service,
        text
    ),
    ends!(
        "workload",
        "from-workload",
        "to-workload",
        "KIND/NAME",
        "a workload, by name or kind and name",
        source_workload,
        destination_workload,
        workload
    ),
    ends!(
        "label",
        "from-label",
        "to-label",
        "SELECTOR",
        "what has these labels: app=web,tier in (a, b)",
        source_label,
        destination_label,
        text
    ),
    ends!(
        "ip",
        "from-ip",
        "to-ip",
        "IP|CIDR",
        "an address or block",
        source_ip,
        destination_ip,
        text
    ),
    ends!(
        "port",
        "from-port",
        "to-port",
        "PORT",
        "a port",
        source_port,
        destination_port,
        text
    ),
    ends!(
        "identity",
        "from-identity",
        "to-identity",
        "ID",
        "an identity, by its number",
        source_identity,
        destination_identity,
        number
    ),
    ends!(
        "fqdn",
        "from-fqdn",
        "to-fqdn",
        "PATTERN",
        "a host: *.example.com",
        source_fqdn,
        destination_fqdn,
        text
    ),
    ends!(
        "cluster",
        "from-cluster",
        "to-cluster",
        "NAME",
        "a cluster",
        source_cluster_name,
        destination_cluster_name,
        text
    ),
];

static NAMESPACES: [Flag; 3] = [
    Flag {
        name: "namespace",
        value: "NS",
        help: "From or to a namespace",
        add: |list, text| namespace(list, 0, text),
    },
    Flag {
        name: "from-namespace",
        value: "NS",
        help: "From a namespace",
        add: |list, text| namespace(list, 1, text),
    },
    Flag {
        name: "to-namespace",
        value: "NS",
        help: "To a namespace",
        add: |list, text| namespace(list, 2, text),
    },
];

static REST: [Flag; 17] = [
    Flag {
        name: "verdict",
        value: "VERDICT",
        help: "FORWARDED, DROPPED, ERROR or AUDIT",
        add: both!(verdict, verdict),
    },
    Flag {
        name: "drop-reason-desc",
        value: "REASON",
        help: "POLICY_DENIED (no rule allows), POLICY_DENY (a rule denies) or AUTH_REQUIRED",
        add: both!(drop_reason_desc, drop_reason),
    },
    Flag {
        name: "type",
        value: "TYPE",
        help: "l7, policy-verdict, trace or drop",
        add: both!(event_type, event_type),
    },
    Flag {
        name: "protocol",
        value: "PROTOCOL",
        help: "http or tcp",
        add: both!(protocol, text),
    },
    Flag {
        name: "http-status",
        value: "STATUS",
        help: "Responses with a status: 404, 5+ or 5xx",
        add: both!(http_status_code, text),
    },
    Flag {
        name: "http-method",
        value: "METHOD",
        help: "A method",
        add: both!(http_method, text),
    },
    Flag {
        name: "http-path",
        value: "REGEX",
        help: "An expression matches somewhere in the path",
        add: both!(http_path, text),
    },
    Flag {
        name: "http-url",
        value: "REGEX",
        help: "An expression matches somewhere in the URL",
        add: both!(http_url, text),
    },
    Flag {
        name: "http-header",
        value: "NAME:VALUE",
        help: "A header that flows show",
        add: both!(http_header, header),
    },
    Flag {
        name: "trace-id",
        value: "ID",
        help: "A trace",
        add: both!(trace_id, text),
    },
    Flag {
        name: "uuid",
        value: "UUID",
        help: "One flow",
        add: both!(uuid, text),
    },
    Flag {
        name: "node-name",
        value: "PATTERN",
        help: "The waypoint that tells of it",
        add: both!(node_name, text),
    },
    Flag {
        name: "traffic-direction",
        value: "DIRECTION",
        help: "ingress or egress; a waypoint sees ingress",
        add: both!(traffic_direction, direction),
    },
    Flag {
        name: "ip-version",
        value: "VERSION",
        help: "v4 or v6",
        add: both!(ip_version, ip_version),
    },
    Flag {
        name: "tcp-flags",
        value: "FLAGS",
        help: "TCP flags that are all set: syn, ack,fin",
        add: both!(tcp_flags, tcp_flags),
    },
    Flag {
        name: "encrypted",
        value: "BOOL",
        help: "Came in by mTLS: true or false",
        add: both!(encrypted, truth),
    },
    Flag {
        name: "reply",
        value: "BOOL",
        help: "Responses: true; requests: false",
        add: both!(reply, truth),
    },
];

/// All of them.
pub fn all() -> impl Iterator<Item = &'static Flag> {
    ENDS.iter().flatten().chain(&NAMESPACES).chain(&REST)
}

impl Flag {
    /// The one of a name.
    pub fn named(name: &str) -> Option<&'static Self> {
        all().find(|flag| flag.name == name)
    }

    /// Adds it to a list.
    ///
    /// # Errors
    /// When the value means nothing, in words.
    pub fn add(&self, list: &mut List, value: &str) -> Result<(), String> {
        (self.add)(list, value)
    }
}

impl List {
    /// The filters that it comes to: none, one, or one for each end.
    pub fn filters(mut self) -> Vec<FlowFilter> {
        let [either, from, to] = std::mem::take(&mut self.namespaces);
        in_namespaces(
            &mut self.source.source_pod,
            &mut self.source.source_service,
            &either,
        );
        in_namespaces(
            &mut self.destination.destination_pod,
            &mut self.destination.destination_service,
            &either,
        );
        for filter in [&mut self.source, &mut self.destination] {
            in_namespaces(&mut filter.source_pod, &mut filter.source_service, &from);
            in_namespaces(
                &mut filter.destination_pod,
                &mut filter.destination_service,
                &to,
            );
        }
        if self.source == self.destination {
            return match self.source == FlowFilter::default() {
                true => Vec::new(),
                false => vec![self.source],
            };
        }
        vec![self.source, self.destination]
    }
}

/// Puts names that say no namespace into these; where there are no names, all of these namespaces.
fn in_namespaces(pods: &mut Vec<String>, services: &mut Vec<String>, namespaces: &[String]) {
    if namespaces.is_empty() {
        return;
    }
    for names in [&mut *pods, services] {
        let bare: Vec<String> = names.extract_if(.., |name| !name.contains('/')).collect();
        let each = bare.iter().flat_map(|name| {
            let namespaces = namespaces.iter();
            namespaces.map(move |namespace| format!("{namespace}/{name}"))
        });
        names.extend(each);
    }
    if pods.is_empty() && services.is_empty() {
        pods.extend(namespaces.iter().map(|namespace| format!("{namespace}/")));
    }
}

fn namespace(list: &mut List, which: usize, text: &str) -> Result<(), String> {
    if let Some(namespaces) = list.namespaces.get_mut(which) {
        namespaces.push(text.to_owned());
    }
    Ok(())
}
