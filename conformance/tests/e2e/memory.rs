//! What a waypoint keeps resident when nothing changes.

use cairn_conformance::lab::{Lab, Port};
use cairn_conformance::memory::Memory;
use cairn_conformance::process::until;

/// Reading a configuration runs code that nothing else runs. A second later it is mapped no more, as often as there is
/// something new to read.
#[tokio::test]
async fn code_that_only_a_change_runs_is_mapped_no_more_when_it_is_done() {
    let mut lab = Lab::new();
    lab.service("web", &[Port::new("http", 80)]);
    lab.start().await;
    given_back(&lab).await;
    for name in ["first", "second"] {
        let before = mapped(&lab);
        let text = format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}}}}}");
        lab.write(name, &text);
        until("code of the change is mapped", async || {
            mapped(&lab) > before / 8 * 9
        })
        .await;
        given_back(&lab).await;
    }
}

fn mapped(lab: &Lab) -> u64 {
    Memory::of(lab.cairn().process.id()).program
}

async fn given_back(lab: &Lab) {
    let mut most = 0;
    until("code is given back", async || {
        let now = mapped(lab);
        most = most.max(now);
        // The kernel takes no mapping away by itself while there is memory.
        now < most / 4 * 3
    })
    .await;
}
