//! What connect() costs with and without the redirect: rounds of each, interleaved. Judges nothing;
//! prints a table. Run it alone:
//! `cargo test -p cairn-conformance --test kernel -- --ignored --nocapture cost`

use std::net::TcpListener;
use std::os::fd::AsFd;

use cairn_kernel_redirect::{EnrolledPod, Redirect, netns_cookie};
use serde_json::json;

use crate::lab::{LISTENER_PORT, Lab, listen_on_loopback};
use crate::scene::flagged;

const ROUNDS: usize = 7;
const CONNECTIONS: u32 = 2000;

/// Accepts and closes until the process ends.
fn accept(listener: TcpListener) {
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            drop(connection);
        }
    });
}

#[test]
#[ignore = "a measurement, for a quiet machine"]
fn cost_of_connect() {
    let Some(mut lab) = Lab::new() else { return };
    lab.address("10.96.0.1");
    let pod = lab.pod("a");
    let [unflagged, direct] = [80, 81].map(|port| {
        lab.hub()
            .within(|| TcpListener::bind(("10.96.0.1", port)).unwrap())
    });
    accept(unflagged);
    accept(direct);
    let waypoint = pod.within(|| listen_on_loopback(LISTENER_PORT));
    let enrolled = EnrolledPod {
        netns_cookie: netns_cookie(waypoint.as_fd()).unwrap(),
        listener_port: LISTENER_PORT,
    };
    accept(waypoint.try_clone().unwrap());
    let mut app = pod.app();
    let mut median = |port: u16| {
        let order = json!({"do": "measure", "to": "10.96.0.1", "port": port, "times": CONNECTIONS});
        app.ask(&order)["median_ns"].as_u64().unwrap()
    };
    let mut table = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        table[0].push(median(80));
        let mut redirect = lab.attach();
        redirect
            .set_services(&[flagged("10.96.0.1:81", 1)])
            .unwrap();
        redirect.enrol(&enrolled, waypoint.as_fd()).unwrap();
        table[1].push(median(80));
        table[2].push(median(81));
        Redirect::detach(lab.place()).unwrap();
    }
    println!("median of {CONNECTIONS} connect(), ns, {ROUNDS} interleaved rounds");
    let rows = [
        "without the redirect",
        "unflagged, with it",
        "flagged, steered",
    ];
    for (name, medians) in rows.into_iter().zip(&mut table) {
        print!("{name:22}");
        medians.iter().for_each(|median| print!(" {median:6}"));
        medians.sort_unstable();
        println!("  median {}", medians[ROUNDS / 2]);
    }

    // Run times by the kernel's own clock, which costs itself about as much as what it measures.
    let _counting = aya::sys::enable_stats(aya::sys::Stats::RunTime).unwrap();
    let mut redirect = lab.attach();
    redirect
        .set_services(&[flagged("10.96.0.1:81", 1)])
        .unwrap();
    redirect.enrol(&enrolled, waypoint.as_fd()).unwrap();
    for (name, port) in [("unflagged", 80), ("flagged", 81)] {
        let before = redirect.status().unwrap();
        median(port);
        let after = redirect.status().unwrap();
        for (old, new) in before.programs.iter().zip(&after.programs) {
            let runs = new.runs - old.runs;
            if let Some(each) = (new.run_time_ns - old.run_time_ns).checked_div(runs) {
                println!("{name:10} {:20} {runs} runs of {each} ns", new.name);
            }
        }
    }
}
