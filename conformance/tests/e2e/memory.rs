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
    let mapped = || Memory::of(lab.cairn().process.id()).program;
    for name in ["", "first", "second"] {
        if !name.is_empty() {
            let before = mapped();
            let text = format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}}}}}");
            lab.write(name, &text);
            until("code of the change is mapped", async || {
                mapped() > before / 8 * 9
            })
            .await;
        }
        let mut most = 0;
        until("it is given back", async || {
            let now = mapped();
            most = most.max(now);
            // The kernel takes no mapping away by itself while there is memory.
            now < most / 4 * 3
        })
        .await;
    }
}
