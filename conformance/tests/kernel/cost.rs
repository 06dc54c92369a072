//! What the redirect costs, beside what else could steer connections: connect(), and whole requests
//! through the same proxy. Rounds of each, interleaved. Judges nothing; prints tables. Needs release
//! builds: `benches/redirect.sh` makes them, runs this and keeps what it prints.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cairn_conformance::process::Process;
use cairn_kernel_redirect::Redirect;
use serde_json::{Value, json};

use crate::lab::Pod;
use crate::mesh::{GATEWAY, Mesh, READERS, replace, slice};
use crate::processes::{Ready, command};

/// A service with a proxy (its server is elsewhere), and one without at its virtual address.
const STEERED: &str = "10.96.0.10:80";
const DIRECT: &str = "10.96.0.11:81";
/// The address that the first one's slot has in the pod, and in the host.
const SLOT: &str = "127.128.0.1:15001";
const HOST_SLOT: &str = "240.128.0.1:15001";
/// Its server.
const SERVER: &str = "10.97.0.5:8080";

const WEB: &str = "---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop, labels: {istio.io/use-waypoint: waypoint}}
spec: {clusterIP: 10.96.0.10, ports: [{name: http, port: 80}]}
";

/// A number from the environment, for short runs.
fn setting(name: &str, usual: usize) -> usize {
    let set = std::env::var(name).ok();
    set.map_or(usual, |text| text.parse().unwrap())
}

/// Rounds between two starts of everything.
fn rounds() -> usize {
    setting("ROUNDS", 8)
}

/// How often everything is started anew: how a process happens to lie in memory and on the
/// processors stays with it, and is no property of a way to steer.
fn sittings() -> usize {
    setting("SITTINGS", 3)
}

/// Who is on which processor: the proxy on the first, client and servers on the second. Where they
/// go where they like, rounds differ by more than the ways do.
const PROXY: [&str; 3] = ["taskset", "--cpu-list", "0"];
const OTHERS: [&str; 3] = ["taskset", "--cpu-list", "1"];

/// `cairn-bench plain ...` in a pod, in the cgroup that is given.
fn bench(pod: &Pod, cgroup: &Path, arguments: &[&str]) -> Command {
    let program = std::env::var_os("CAIRN_BENCH").expect("CAIRN_BENCH is a release cairn-bench");
    let mut command = command(&pod.netns, cgroup, Path::new(OTHERS[0]));
    command.args(&OTHERS[1..]).arg(program);
    command.arg("plain").args(arguments);
    command
}

fn ask(pod: &Pod, cgroup: &Path, arguments: &[&str]) -> Value {
    let output = bench(pod, cgroup, arguments)
        .stderr(Stdio::inherit())
        .output();
    let output = output.unwrap();
    assert!(output.status.success(), "{arguments:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A mesh in which both services answer.
struct Bench {
    agent: Process,
    servers: [Ready; 2],
    /// Of the pod, but not hooked: past the program.
    outside: PathBuf,
    mesh: Mesh,
}

impl Bench {
    fn new(flags: &[&str]) -> Option<Self> {
        let mesh = Mesh::new()?;
        mesh.lab.address("10.97.0.5");
        let hub = mesh.lab.hub();
        let servers =
            [DIRECT, SERVER].map(|at| Ready::start(bench(&hub, &hub.cgroup, &["serve", at])));
        let slice = slice("web", SERVER);
        mesh.configure(&format!("{GATEWAY}{WEB}{READERS}{slice}"));
        let client = &mesh.client;
        let listed = json!([{
            "name": "client", "namespace": "shop", "serviceAccount": "client",
            "netns": if flags.is_empty() { client.netns.clone() } else { "/nowhere".into() },
            "cgroup": client.cgroup, "hostInterface": client.device, "addresses": [client.address],
        }]);
        replace(&mesh.path("pods.json"), &listed.to_string());
        let agent = mesh.agent_in_hub_under(&PROXY, &[&["--access-log", "off"], flags].concat());
        let status = mesh.status();
        assert_eq!(
            (status.services[0].slot, status.pods[0].listener_port),
            (1, 15001)
        );
        Some(Self {
            agent,
            servers,
            outside: mesh.lab.outside_cgroup(),
            mesh,
        })
    }

    /// GETs from the pod, hooked or past the program.
    fn get(&self, hooked: bool, to: &str) -> Value {
        let client = &self.mesh.client;
        let cgroup = if hooked {
            &client.cgroup
        } else {
            &self.outside
        };
        let seconds = std::env::var("SECONDS_EACH").unwrap_or_else(|_| "0.8".into());
        let mut order = vec!["get".to_owned(), to.to_owned()];
        let mut say = |flag: &str, value: &dyn ToString| {
            order.extend([flag.to_owned(), value.to_string()]);
        };
        say("--process", &self.agent.id());
        self.servers
            .iter()
            .for_each(|server| say("--with", &server.id()));
        say("--measure-seconds", &seconds);
        say("--warm-up-seconds", &"0.3");
        let order: Vec<&str> = order.iter().map(String::as_str).collect();
        let got = ask(client, cgroup, &order);
        assert_eq!(got["errors"], 0, "{got}");
        got
    }

    /// As Istio's redirection in the pod does it with REDIRECT: connection tracking and a rewritten
    /// destination in the pod's own namespace. To the slot's address, so that the same listener
    /// knows the service without SO_ORIGINAL_DST; one getsockopt() for each connection less.
    fn with_nftables<T>(&self, work: impl FnOnce() -> T) -> T {
        let nft = |words: &str| {
            let mut nft = command(&self.mesh.client.netns, &self.outside, Path::new("nft"));
            assert!(nft.arg(words).status().unwrap().success(), "{words}");
        };
        nft("add table ip rival");
        nft("add chain ip rival out { type nat hook output priority -100; }");
        nft(&format!(
            "add rule ip rival out ip daddr 10.96.0.10 tcp dport 80 dnat to {SLOT}"
        ));
        let done = work();
        nft("delete table ip rival");
        done
    }

    /// tc and sk_assign at the host's end of the pod's link. The slots are plain addresses of the host
    /// meanwhile: a rule, which each packet would be asked for, is not the rival's price to pay.
    fn with_tc<T>(&self, work: impl FnOnce() -> T) -> T {
        let object = std::env::var("RIVAL_OBJECT").expect("RIVAL_OBJECT is assign.bpf.o");
        let (hub, device) = (self.mesh.lab.hub(), self.mesh.client.device.as_str());
        let tc = |words: &[&str]| {
            let mut tc = command(&hub.netns, &self.outside, Path::new("tc"));
            assert!(tc.args(words).status().unwrap().success(), "{words:?}");
        };
        let slots = |what: &str| format!("route {what} local 240.128.0.0/9 dev lo table local");
        self.mesh.lab.ip("hub", &[&slots("add")]);
        tc(&["qdisc", "add", "dev", device, "clsact"]);
        let program = ["bpf", "da", "obj", &object, "sec", "tc"];
        tc(&[&["filter", "add", "dev", device, "ingress"], &program[..]].concat());
        let done = work();
        tc(&["qdisc", "del", "dev", device, "clsact"]);
        self.mesh.lab.ip("hub", &[&slots("del")]);
        done
    }
}

/// The value below which this part of all lie.
fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len() - 1;
    sorted[(last as f64 * part).round() as usize]
}

/// One row per way: the median over all rounds, and between what the middle half of them lies.
fn table(title: &str, ways: &[&str], values: &[Vec<f64>]) {
    println!("\n{title}; {} interleaved rounds", values[0].len());
    for (way, values) in ways.iter().zip(values) {
        let [low, median, high] = [0.25, 0.5, 0.75].map(|part| quantile(values, part));
        println!("{way:46} median {median:8.2}   half between {low:8.2} and {high:8.2}");
    }
}

/// Two ways that were measured one right after the other: how they compare round by round, which the
/// machine's slow and fast minutes leave alone.
fn pair(words: &str, first: &[f64], second: &[f64]) {
    let ratios: Vec<f64> = first.iter().zip(second).map(|(a, b)| a / b).collect();
    let [low, median, high] = [0.25, 0.5, 0.75].map(|part| quantile(&ratios, part));
    let less = ratios.iter().filter(|ratio| **ratio < 1.0).count();
    println!(
        "{words:46} ratio  {median:8.3}   half between {low:8.3} and {high:8.3}; less in {less} of {}",
        ratios.len()
    );
}

#[test]
#[ignore = "a measurement, for a quiet machine: benches/redirect.sh"]
fn cost_of_connect() {
    let Some(bench) = Bench::new(&[]) else { return };
    let times = setting("CONNECTIONS", 1500).to_string();
    let client = &bench.mesh.client;
    let connect = |cgroup: &Path, to: &str| {
        let found = ask(client, cgroup, &["connect", to, "--times", &times]);
        found["p50_ns"].as_f64().unwrap() / 1e3
    };
    let ways = [
        "no program (same pod, cgroup not hooked)",
        "unflagged, with the programs",
        "flagged, steered to the listener in the pod",
        "nftables, to the same listener",
    ];
    let mut values = vec![Vec::new(); ways.len()];
    for _ in 0..rounds() * sittings() {
        values[0].push(connect(&bench.outside, DIRECT));
        values[1].push(connect(&client.cgroup, DIRECT));
        values[2].push(connect(&client.cgroup, STEERED));
        values[3].push(bench.with_nftables(|| connect(&bench.outside, STEERED)));
    }
    let title = format!("median of {times} connect() over a veth, us");
    table(&title, &ways, &values);
    pair("unflagged / no program", &values[1], &values[0]);
    pair("steered / nftables", &values[2], &values[3]);

    // By the kernel's own clock, which costs about as much as what it measures.
    let _counting = aya::sys::enable_stats(aya::sys::Stats::RunTime).unwrap();
    println!();
    for (name, to) in [("unflagged", DIRECT), ("flagged", STEERED)] {
        let before = bench.mesh.status();
        connect(&client.cgroup, to);
        let after = bench.mesh.status();
        for (old, new) in before.programs.iter().zip(&after.programs) {
            let time = new.run_time_ns - old.run_time_ns;
            if let Some(each) = time.checked_div(new.runs - old.runs) {
                println!("{name:10} {:20} {each} ns a run", new.name);
            }
        }
    }
}

#[test]
#[ignore = "a measurement, for a quiet machine: benches/redirect.sh"]
fn cost_of_requests() {
    let ways = [
        "direct, no program",
        "direct, unflagged, with the programs",
        "redirect, listener in the pod",
        "nftables, listener in the pod",
        "redirect, listener in the host",
        "tc and sk_assign, listener in the host",
    ];
    let mut got = vec![Vec::new(); ways.len()];
    for _ in 0..sittings() {
        let Some(in_pod) = Bench::new(&[]) else {
            return;
        };
        let in_host = Bench::new(&["--listen-in-host"]).unwrap();
        for round in 0..rounds() {
            for way in order(round) {
                got[way].push(measured(&in_pod, &in_host, way));
            }
        }
        for bench in [in_pod, in_host] {
            Redirect::detach(bench.mesh.lab.place()).unwrap();
        }
    }
    println!(
        "\nGET of 1 KiB over 16 connections that are kept, closed loop, the proxy on one processor, client and server on the other"
    );
    for (title, field) in [
        (
            "processor time of client, proxy, server and ksoftirqd, us a request",
            "together_us",
        ),
        (
            "processor time of the whole machine, us a request",
            "system_us",
        ),
        ("processor time of the proxy, us a request", "process_us"),
        ("requests a second", "rps"),
    ] {
        let of = |found: &Value| found[field].as_f64().unwrap();
        let values: Vec<Vec<f64>> = got.iter().map(|all| all.iter().map(of).collect()).collect();
        table(title, &ways, &values);
        pair("unflagged / no program", &values[1], &values[0]);
        pair("redirect / nftables", &values[2], &values[3]);
        pair("redirect / tc", &values[4], &values[5]);
        pair("redirect in the pod / tc", &values[2], &values[5]);
    }
}

/// The ways in pairs that follow each other, the pairs in turn and each first in every other round.
fn order(round: usize) -> Vec<usize> {
    let mut pairs = [[0, 1], [2, 3], [4, 5]];
    pairs.rotate_left(round % 3);
    if round % 2 == 1 {
        pairs.iter_mut().for_each(|pair| pair.reverse());
    }
    pairs.concat()
}

fn measured(in_pod: &Bench, in_host: &Bench, way: usize) -> Value {
    match way {
        0 => in_pod.get(false, DIRECT),
        1 => in_pod.get(true, DIRECT),
        2 => in_pod.get(true, STEERED),
        3 => in_pod.with_nftables(|| in_pod.get(false, STEERED)),
        4 => in_host.get(true, STEERED),
        _ => in_host.with_tc(|| in_host.get(false, HOST_SLOT)),
    }
}
